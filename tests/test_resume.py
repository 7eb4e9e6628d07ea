"""Stopping a run with real signals, and going on with it."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import curves, expect_same_run, go_on_as_told, start, wait_for_step

# Dropout draws random numbers, the plateau steps at nearly every validation, and an epoch has some 40 steps.
SETTINGS = (
    "experiment=smoke",
    "model.num_layers=1",
    "max_steps=200",
    "trainer.val_every_steps=25",
    "optim.warmup_steps=10",
    "optim.lr=0.05",
    "optim.plateau.patience=0",
    "logger.sample_tokens=5",
    "trainer.precision=bf16-mixed",  # not found out anew by each of the runs, beside other tests
)


@pytest.fixture(scope="module")
def settings(first_book: Path) -> list[str]:
    return [*SETTINGS, f"data.path={first_book}", "run_dir=run"]


@pytest.fixture(scope="module")
def unbroken(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("unbroken")
    process = start(cwd, *settings)
    assert process.wait(300) == 0
    return cwd / "run"


@pytest.mark.parametrize("kill_at", [60, 160])
def test_killed_and_resumed_is_the_unbroken_run(
    kill_at: int, settings: list[str], unbroken: Path, run_script: Callable, tmp_path: Path
) -> None:
    process = start(tmp_path, *settings)
    wait_for_step(tmp_path / "run", kill_at)
    process.kill()
    process.communicate()
    folders = sorted(path.name for path in (tmp_path / "run").iterdir())
    done = run_script("train.py", "resume=run")
    assert done.returncode == 0, done.stderr
    [resumed_at] = re.findall(r"resumed at step (\d+)", done.stdout)
    assert int(resumed_at) in range(kill_at // 25 * 25, 200, 25)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 200
    assert sorted({*folders, "summary.json"}) == sorted(path.name for path in (tmp_path / "run").iterdir())
    expect_same_run(tmp_path / "run", unbroken)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_at_the_next_step(
    number: signal.Signals, status: int, settings: list[str], unbroken: Path, tmp_path: Path
) -> None:
    process = start(tmp_path, *settings)
    wait_for_step(tmp_path / "run", 30)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    [line] = errors.strip().split("\n")
    assert f"stopped by {number.name}" in line
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    step = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert step >= 30
    go_on_as_told(line, tmp_path, step)
    expect_same_run(tmp_path / "run", unbroken)


def test_a_complete_run_goes_on_only_when_more_is_asked(
    settings: list[str], run_script: Callable, tmp_path: Path
) -> None:
    assert run_script("train.py", *settings, "max_steps=20").returncode == 0
    summary = (tmp_path / "run" / "summary.json").read_bytes()
    done = run_script("train.py", "resume=run")
    assert done.returncode == 0
    assert "The run is complete" in done.stdout
    assert (tmp_path / "run" / "summary.json").read_bytes() == summary
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    done = run_script("train.py", "resume=elsewhere", "max_steps=30")
    assert done.returncode == 0, done.stderr
    assert json.loads((moved / "summary.json").read_text())["steps"] == 30
    assert [step for step, _ in curves(moved)["val/loss"]] == [20, 25, 30]


def test_a_run_stopped_before_its_test_is_finished(settings: list[str], run_script: Callable, tmp_path: Path) -> None:
    assert run_script("train.py", *settings, "max_steps=25").returncode == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (tmp_path / "run" / "summary.json").unlink()
    done = run_script("train.py", "resume=run")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


def test_a_corpus_that_changed_is_refused(
    settings: list[str], first_book: Path, run_script: Callable, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.csv"
    corpus.write_bytes(first_book.read_bytes())
    assert run_script("train.py", *settings, "max_steps=5", "data.path=corpus.csv").returncode == 0
    with corpus.open("a", encoding="utf-8") as file:
        file.write("One line more.,The Ferry to Vesperhold,1 Fog on the Quay\n")
    done = run_script("train.py", "resume=run", "max_steps=10")
    assert done.returncode == 2
    assert f"data.path={corpus} has changed since the run run began" in done.stderr
    done = run_script("train.py", "resume=run", "max_steps=10", f"data.path={first_book}")
    assert done.returncode == 0, "the same text in another place is the same corpus"


def test_epochs_and_accumulation(settings: list[str], run_script: Callable, tmp_path: Path) -> None:
    """Validation once an epoch, a signal at any step of it, gradients from two batches a step."""
    more = ["trainer.accumulate_grad_batches=2", "trainer.val_every_steps=null", "max_steps=70"]
    assert run_script("train.py", *settings, *more, "run_dir=unbroken").returncode == 0
    process = start(tmp_path, *settings, *more)
    for step in (15, 45):
        wait_for_step(tmp_path / "run", step)
        process.terminate()
        assert process.wait(60) == 143
        process = start(tmp_path, "resume=run")
    assert process.wait(120) == 0
    expect_same_run(tmp_path / "run", tmp_path / "unbroken")


def test_what_cannot_change_is_refused_by_name(settings: list[str], run_script: Callable) -> None:
    assert run_script("train.py", *settings, "max_steps=5").returncode == 0
    done = run_script("train.py", "resume=run", "model=small", "seed=3", "max_steps=10")
    assert done.returncode == 2
    assert "train.py: error: model, seed cannot change in a resumed run" in done.stderr
