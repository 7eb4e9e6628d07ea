"""The most common mistakes as a person sees them, to the letter; all other tests hold their codes alone."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from helpers.in_process import run_in_process
from helpers.processes import Finished, run_program

CORPUS = "text,book,chapter\nA line.,Book,1\n"


@pytest.fixture(scope="module")
def interrupted(first_book: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run in the folder run, on which somebody has pressed Ctrl-C; `args` ends with the folder around it."""
    cwd = tmp_path_factory.mktemp("interrupted")
    shutil.copyfile(first_book, cwd / "corpus.csv")
    settings = ("experiment=smoke", "data.path=corpus.csv", "logger.images=false", "run_dir=run")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an active virtual environment
    done = run_program(cwd, "train.py", *settings, stop=("SIGINT", "training.step", 3), PATH=path)
    assert done.returncode == 128 + signal.SIGINT, done.stderr
    return Finished([*settings, str(cwd)], done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("content", "arguments", "line"),
    [
        (
            CORPUS,
            ["model.n_heads=4"],
            "[config.unknown_key]: there is no config key model.n_heads: did you mean model.num_heads?",
        ),
        (
            CORPUS,
            ["model=huge"],
            "[config.unknown_choice]: there is no model=huge: take one of base, gpt2, roadmap, small, tiny",
        ),
        (
            CORPUS,
            ["model.num_heads=3"],
            "[model.indivisible_heads]: model.num_heads=3 does not divide model.d_model=128: each head takes an equal "
            "share; try num_heads=2",
        ),
        (
            CORPUS,
            ["data.path=nowhere.csv"],
            "[data.not_found]: data.path=nowhere.csv does not exist: name a CSV file (relative to {folder})",
        ),
        (
            CORPUS,
            ["data.text_column=txt"],
            "[data.no_such_column]: data.text_column=txt: data.path=corpus.csv has no such column; it has text, book, "
            "chapter",
        ),
        (
            "",
            [],
            "[data.no_rows]: data.path=corpus.csv holds no rows of text: a header line and rows below it were expected",
        ),
        (
            CORPUS,
            ["run_dir=."],
            "[output.not_empty]: run_dir=. is not empty: name a new folder",
        ),
    ],
)
def test_train(content: str, arguments: list[str], line: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text(content)
    done = run_in_process(tmp_path, "train.py", "data.path=corpus.csv", *arguments)
    assert done.stderr == f"train.py: error{line.format(folder=tmp_path)}\n"


def test_without_a_trained_run(tmp_path: Path) -> None:
    done = run_in_process(tmp_path, "generate.py")
    assert done.stderr == (
        f"generate.py: error[run.none]: no trained run below {tmp_path}/outputs: train one by `make train`, or "
        "name ckpt=\n"
    )


def test_an_interrupted_run(interrupted: Finished) -> None:
    installed = Path(sys.executable).with_name("hp-lightning").exists()
    going_on = ("hp-lightning" if installed else "python -m hp_lightning") + " train resume=run"
    assert interrupted.stderr == (
        "train.py: error[run.interrupted]: stopped by SIGINT, checkpoint saved to run/checkpoints/last.ckpt; "
        "resume with: "
        f"{going_on}\n"
    )


def test_a_run_whose_corpus_has_changed(interrupted: Finished) -> None:
    folder = Path(interrupted.args[-1])
    with (folder / "corpus.csv").open("a", encoding="utf-8") as file:
        file.write("One line more.,The Ferry to Vesperhold,1 Fog on the Quay\n")
    done = run_in_process(folder, "train.py", "resume=run")
    assert done.stderr == (
        f"train.py: error[data.changed]: data.path={folder}/corpus.csv has changed since the run run started: resumed, "
        "the run might be validated on what it was trained on; bring the old file back, or start a new run\n"
    )
