"""What a person gets wrong is one line on stderr that says what to do, with status 2, and nothing is left behind."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.processes import command, environment, run_program

HEADER = "text,book,chapter\n"


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refusal(run_script: Callable, folder: Path, script: str, *arguments: str) -> str:
    """The line, after checking that it is one and that nothing else happened."""
    before = files_in(folder)
    done = run_script(script, *arguments)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().split("\n")
    assert line.startswith(f"{script}: error: ")
    assert [line for line in done.stdout.splitlines() if not line.startswith("reading ")] == []
    assert files_in(folder) == before
    return line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model.n_heads=4"], "no config key model.n_heads: did you mean model.num_heads?"),
        (["num_heads=4"], "did you mean model.num_heads?"),
        (["--epochs", "5"], "unrecognized arguments: --epochs: settings are given as key=value"),
        (["seed=1", "--resolve", "model=tiny"], "options before them"),
        (["--cfg", "job", "-m", "seed=1,2"], "exclude each other"),
        (["--experimental-rerun", "job.pickle"], "pickles can run anything"),
        (["--shell-completion"], "add install=bash"),
        (["+model.colour=red"], "no config key model.colour"),
        (["model=huge"], "there is no model=huge: take one of base, gpt2, roadmap, small, tiny"),
        (["model=null"], "a config group was given null or a number"),
        (["model.num_heads=three"], "model.num_heads: Value 'three'"),
        (["model.num_heads=3"], "model.num_heads=3 does not divide model.d_model=128"),
        (["data.group_columns=book"], "data.group_columns must be a list"),
        (["model=tiny,small"], "Ambiguous value"),
        (["data=csv"], "data.path is not set"),
        (["data.path="], "data.path is empty"),
        (["data.path=Wren's, books (1).csv"], "data.path=Wren's, books (1).csv does not exist"),
        (["data.path=nowhere.csv"], "data.path=nowhere.csv does not exist"),
        (["data.path=[nowhere.csv,neither.csv]"], "data.path=nowhere.csv does not exist"),
        (["tokenizer.from_run=nowhere"], "tokenizer.from_run=nowhere does not exist"),
        (["tokenizer=char", "tokenizer.from_run=nowhere"], "leave out tokenizer"),
        (["resume=nowhere"], "resume=nowhere does not exist: name a run folder"),
        (["resume=latest"], "resume=latest: there is no run below"),
        (["resume=."], "resume=. holds no run"),
        (["checkpoint.every_minutes=0"], "checkpoint.every_minutes=0.0 is out of range"),
        (["checkpoint.top_k=0"], "checkpoint.top_k=0 is out of range"),
        (["trainer.precision=half"], "trainer.precision=half is not a choice: take one of auto, 32-true, bf16-mixed"),
        (["trainer.compile=maybe"], "trainer.compile=maybe is not a choice: take one of true, false, auto"),
        (["trainer.devices=0"], "trainer.devices=0 is out of range"),
        (["trainer.devices=99"], "trainer.devices=99, but there are"),
        (["data.batch_tokens=640", "trainer.accumulate_grad_batches=2"], "leave one of the two out"),
        (["trainer=gpu"], "there is no GPU"),
    ],
)
def test_train_refuses(arguments: list[str], said: str, run_script: Callable, tmp_path: Path) -> None:
    if arguments == ["trainer=gpu"] and torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    assert said in refusal(run_script, tmp_path, "train.py", *arguments)


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (HEADER + "A line.,Book,1\n", ["data.text_column=txt"], "it has text, book, chapter"),
        ("", [], "holds no rows of text"),
        (HEADER + 'A line.,Book,1\n"Another,Book,1\n', [], "line 3: no valid CSV in the row that begins here"),
        (HEADER + "A line.,Book,1\n", ["data.sha256=" + "0" * 64], "is not the file that data.sha256 tells"),
        (HEADER + "A line.,Book,1\n", ["tokenizer=bpe", "tokenizer.vocab_size=256"], "must be at least 257"),
        (HEADER + "".join(f"Only {n} words here.,Book,{n}\n" for n in range(9)), [], "fewer than one window"),
    ],
)
def test_train_refuses_a_corpus(
    content: str, arguments: list[str], said: str, run_script: Callable, tmp_path: Path
) -> None:
    (tmp_path / "corpus.csv").write_text(content)
    assert said in refusal(run_script, tmp_path, "train.py", "data.path=corpus.csv", *arguments)


def test_generate_refuses(run_script: Callable, tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.ckpt")
    (tmp_path / "empty.ckpt").touch()
    torch.save({"hp_lightning": {"format": 1}}, tmp_path / "other_version.ckpt")
    for arguments, said in (
        (["ckpt=nowhere.ckpt"], "ckpt=nowhere.ckpt does not exist"),
        (["ckpt=."], "holds no checkpoints/best.ckpt"),
        ([], "no trained run below"),
        (["ckpt=text.ckpt"], "text.ckpt is no checkpoint of hp_lightning"),
        (["ckpt=other.ckpt"], "other.ckpt is no checkpoint of hp_lightning"),
        (["ckpt=other_version.ckpt"], "other_version.ckpt has the checkpoint format 1, and this version reads"),
        (["ckpt=empty.ckpt"], "empty.ckpt is no checkpoint of hp_lightning"),
        (["model=small"], "there is no config key model"),
        (["seed=1,2", "-m"], "only train.py has sweeps"),
        (["prompt=null"], "prompt=null is no choice"),
        (["prompt=[a, b]"], "no trained run below"),
        (["top_p=0"], "top_p=0"),
    ):
        assert said in refusal(run_script, tmp_path, "generate.py", *arguments)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_can_take(unbuffered: str, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_program(tmp_path, "generate.py", "--help", stdout=full, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr == "generate.py: error: what is printed cannot be written (No space left on device)\n"
    line = f"{shlex.join(command('generate.py', '--help'))} | head -c 1"
    changed = environment(PYTHONUNBUFFERED=unbuffered)
    reader = subprocess.run(line, shell=True, cwd=tmp_path, env=changed, capture_output=True, text=True, check=False)
    assert reader.stderr == "", "whoever reads may have read enough"
