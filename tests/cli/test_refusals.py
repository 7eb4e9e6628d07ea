"""What a person gets wrong is one line on stderr that says what to do, with status 2, and nothing is left behind."""

import os
import signal
from pathlib import Path

import pytest
import torch
from helpers.errors import expect_line, expect_refusal
from helpers.in_process import run_in_process
from helpers.processes import launch, run_program

HEADER = "text,book,chapter\n"


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def expect_nothing_but_a_refusal(folder: Path, code: str, mentioned: list[str], script: str, *arguments: str) -> None:
    before = files_in(folder)
    done = run_in_process(folder, script, *arguments)
    assert expect_refusal(done, code, *mentioned).startswith(f"{script}: ")
    assert [line for line in done.stdout.splitlines() if not line.startswith("reading ")] == []
    assert files_in(folder) == before


@pytest.mark.parametrize(
    ("arguments", "code", "mentioned"),
    [
        (["model.n_heads=4"], "config.unknown_key", ["model.n_heads:", "model.num_heads"]),
        (["num_heads=4"], "config.unknown_key", ["model.num_heads"]),
        (["--epochs", "5"], "cli.usage", ["--epochs", "key=value"]),
        (["seed=1", "--resolve", "model=tiny"], "cli.usage", ["--resolve"]),
        (["-sc", "query=bash"], "cli.usage", ["install=bash"]),
        (["sweep.jobs=0"], "config.out_of_range", ["sweep.jobs=0 "]),
        (["-m", "sweep.jobs=null", "seed=1,2"], "config.null", ["sweep.jobs=null "]),
        (["trainer.compile=null"], "config.null", ["trainer.compile=null "]),
        (["max_steps=${seedx}"], "config.interpolation", ["'seedx'"]),
        (["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=abc"], "config.wrong_type", ["n_trials", "'abc'"]),
        (["-m", "hydra/sweeper=optuna", "hydra.sweeper.seed=-5"], "config.out_of_range", ["hydra.sweeper.seed=-5 "]),
        (["data.text_column=größe", "data.path=nowhere.csv"], "data.not_found", ["nowhere.csv "]),
        (["--cfg", "job", "-m", "seed=1,2"], "cli.exclusive", ["-m", "--cfg"]),
        (["--experimental-rerun", "job.pickle"], "cli.rerun", ["--experimental-rerun", "resume="]),
        (["--shell-completion"], "cli.usage", ["--shell-completion", "install=bash"]),
        (["+model.colour=red"], "config.unknown_key", ["model.colour"]),
        (["model=huge"], "config.unknown_choice", ["model=huge", "base, gpt2, roadmap, small, tiny"]),
        (["model=null"], "config.unknown_choice", ["model=tiny"]),
        (["model.num_heads=three"], "config.wrong_type", ["model.num_heads:", "'three'"]),
        (["model.num_heads=3"], "model.indivisible_heads", ["model.num_heads=3 ", "model.d_model=128"]),
        (["data.group_columns=book"], "config.wrong_type", ["data.group_columns=["]),
        (["model=tiny,small"], "config.not_composed", ["model=tiny,small"]),
        (["data=csv"], "config.missing", ["data.path=..."]),
        (["data.path="], "config.empty", ["data.path "]),
        (["data.path=Wren's, books (1).csv"], "data.not_found", ["data.path=Wren's, books (1).csv "]),
        (["data.path=nowhere.csv"], "data.not_found", ["data.path=nowhere.csv "]),
        (["data.path=[nowhere.csv,neither.csv]"], "data.not_found", ["data.path=nowhere.csv "]),
        (["tokenizer.from_run=nowhere"], "checkpoint.not_found", ["tokenizer.from_run=nowhere "]),
        (["tokenizer=char", "tokenizer.from_run=nowhere"], "config.conflict", ["leave out tokenizer"]),
        (["resume=nowhere"], "run.not_found", ["resume=nowhere "]),
        (["resume=latest"], "run.none", ["resume=latest", "{folder}/outputs"]),
        (["resume=."], "run.not_a_run", ["resume=. "]),
        (["checkpoint.every_minutes=0"], "config.out_of_range", ["checkpoint.every_minutes=0.0 "]),
        (["checkpoint.top_k=0"], "config.out_of_range", ["checkpoint.top_k=0 "]),
        (
            ["trainer.precision=half"],
            "config.unknown_choice",
            ["trainer.precision=half ", "auto, 32-true, bf16-mixed"],
        ),
        (["trainer.compile=maybe"], "config.unknown_choice", ["trainer.compile=maybe ", "true, false, auto"]),
        (["trainer.devices=0"], "config.out_of_range", ["trainer.devices=0 "]),
        (["trainer.devices=99"], "machine.too_few_devices", ["trainer.devices=99,"]),
        (
            ["data.batch_tokens=640", "trainer.accumulate_grad_batches=2"],
            "config.conflict",
            ["data.batch_tokens", "trainer.accumulate_grad_batches"],
        ),
        (["trainer=gpu"], "machine.no_gpu", ["trainer.accelerator=gpu", "trainer.accelerator=cpu"]),
    ],
)
def test_train_refuses(arguments: list[str], code: str, mentioned: list[str], tmp_path: Path) -> None:
    if arguments == ["trainer=gpu"] and torch.accelerator.is_available():
        pytest.skip("there is a GPU")
    mentioned = [thing.format(folder=tmp_path) for thing in mentioned]
    expect_nothing_but_a_refusal(tmp_path, code, mentioned, "train.py", *arguments)


@pytest.mark.parametrize(
    ("content", "arguments", "code", "mentioned"),
    [
        (
            HEADER + "A line.,Book,1\n",
            ["data.text_column=txt"],
            "data.no_such_column",
            ["data.text_column=txt:", "text, book, chapter"],
        ),
        ("", [], "data.no_rows", ["data.path=corpus.csv"]),
        (HEADER + 'A line.,Book,1\n"Another,Book,1\n', [], "data.invalid_csv", ["data.path=corpus.csv, line 3:"]),
        (
            HEADER + "A line.,Book,1\n",
            ["data.sha256=" + "0" * 64],
            "data.checksum_mismatch",
            ["data.path=corpus.csv", "data.sha256", "0" * 64],
        ),
        (
            HEADER + "A line.,Book,1\n",
            ["tokenizer=bpe", "tokenizer.vocab_size=256"],
            "config.out_of_range",
            ["tokenizer.vocab_size=256 ", "257"],
        ),
        (
            HEADER + "".join(f"Only {n} words here.,Book,{n}\n" for n in range(9)),
            [],
            "data.too_short",
            ["/corpus.csv has 46 tokens", "data.seq_len=64:"],
        ),
    ],
)
def test_train_refuses_a_corpus(
    content: str, arguments: list[str], code: str, mentioned: list[str], tmp_path: Path
) -> None:
    (tmp_path / "corpus.csv").write_text(content)
    expect_nothing_but_a_refusal(tmp_path, code, mentioned, "train.py", "data.path=corpus.csv", *arguments)


def test_generate_refuses(tmp_path: Path) -> None:
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.ckpt")
    (tmp_path / "empty.ckpt").touch()
    torch.save({"hp_lightning": {"format": 1}}, tmp_path / "other_version.ckpt")
    for arguments, code, mentioned in (
        (["ckpt=nowhere.ckpt"], "checkpoint.not_found", ["ckpt=nowhere.ckpt "]),
        (["ckpt=."], "checkpoint.not_in_folder", ["ckpt=. ", "checkpoints/best.ckpt"]),
        ([], "run.none", [f"{tmp_path}/outputs"]),
        (["ckpt=text.ckpt"], "checkpoint.damaged", ["text.ckpt"]),
        (["ckpt=other.ckpt"], "checkpoint.damaged", ["other.ckpt"]),
        (["ckpt=other_version.ckpt"], "checkpoint.other_version", ["other_version.ckpt", "format 1,"]),
        (["ckpt=empty.ckpt"], "checkpoint.damaged", ["empty.ckpt"]),
        (["model=small"], "config.unknown_key", ["model"]),
        (["seed=1,2", "-m"], "cli.no_sweeps", ["-m", "hp-lightning train"]),
        (["prompt=null"], "config.null", ["prompt=null "]),
        (["prompt=[a, b]"], "run.none", []),
        (["top_p=0"], "config.out_of_range", ["top_p=0"]),
    ):
        expect_nothing_but_a_refusal(tmp_path, code, mentioned, "generate.py", *arguments)


@pytest.mark.parametrize(
    ("program", "argument", "code"),
    [
        ("train.py", "data.path=nowhere.csv", "data.not_found"),
        ("train", "data.path=nowhere.csv", "data.not_found"),
        ("generate.py", "ckpt=nowhere", "checkpoint.not_found"),
        ("corpus", "nowhere.csv", "data.not_found"),
        ("compare", "nowhere", "run.not_found"),
    ],
)
def test_a_process_that_is_refused(program: str, argument: str, code: str, tmp_path: Path) -> None:
    """What the other tests here do within this process, as a person does it."""
    done = run_program(tmp_path, program, argument, fresh=True)
    expect_refusal(done, code, "nowhere")
    assert (done.stdout, files_in(tmp_path)) == ("", set())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("words", [["generate.py", "--help"], ["corpus", "--help"], ["--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_can_take(unbuffered: str, words: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run_program(tmp_path, *words, stdout=full, PYTHONUNBUFFERED=unbuffered)
    expect_refusal(done, "output.stdout", "No space left on device", status=1)
    read_end, write_end = os.pipe()
    os.close(read_end)  # as `head` does when it has read enough
    done = run_program(tmp_path, *words, stdout=write_end, PYTHONUNBUFFERED=unbuffered)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_compare_ends_as_the_other_commands_do(tmp_path: Path) -> None:
    """Where its output is lost, where nobody reads on, and on Ctrl-C, here while it reads what never comes."""
    run_dir = tmp_path / "run"
    (run_dir / ".hydra").mkdir(parents=True)
    (run_dir / ".hydra" / "overrides.yaml").write_text("[]\n")
    (run_dir / "summary.json").write_text('{"status": "failed", "reason": "no reason"}')
    with Path("/dev/full").open("w") as full:
        done = run_program(tmp_path, "compare", "run", stdout=full)
    expect_refusal(done, "output.stdout", "No space left on device", status=1)
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = run_program(tmp_path, "compare", "run", stdout=write_end)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, ""), "the summary is in its files"

    os.mkfifo(run_dir / "metrics.csv")
    process = launch(tmp_path, "compare", "run")
    with (run_dir / "metrics.csv").open("w"):  # waits until it is read
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (128 + signal.SIGINT, "")
    expect_line(errors, "cli.interrupted", "SIGINT")
