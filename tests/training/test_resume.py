"""Stopping a run with real signals at every kind of moment, and going on with it, to the state of an unbroken run."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.errors import expect_line, expect_refusal
from helpers.processes import killed, launch
from helpers.program import HELD
from helpers.runs import curves, expect_same_run, finished_run, metrics, resume_as_told, wait_for_step, wait_until

from hp_lightning.common import slurm
from hp_lightning.common.run_dir import RunDir
from hp_lightning.training.callbacks.graceful_shutdown import SECONDS_BETWEEN_SIGNALS

# Dropout draws random numbers, the plateau steps at nearly every validation, and an epoch has some 40 steps. Muon has
# AdamW in it.
SETTINGS = (
    "experiment=smoke",
    "optim=muon",
    "optim.schedule=cosine",
    "model.num_layers=1",
    "max_steps=200",
    "max_epochs=25",
    "trainer.val_every_steps=25",
    "optim.warmup_steps=10",
    "optim.lr=0.05",
    "optim.plateau.patience=0",
    "checkpoint.every_steps=10",
    "logger.sample_tokens=5",
    "logger.images=false",  # half a second a run; test_loggers.py shows that they change nothing
    "trainer.precision=32-true",  # not found out anew by each of the runs; quick on every processor
)
# Failpoints, and how often each is reached before the process is killed there.
KILLS = {
    "before the first checkpoint": [("training.step", 7)],
    "while it trains": [
        ("training.gradients", 33),
        ("metrics.append", 9),
        ("validation.step", 2),
        ("validation.plateau", 2),
        ("validation.logged", 2),
    ],
    "while it saves": [
        ("checkpoint.write", 90),
        ("checkpoint.written", 3),
        ("checkpoint.copy", 2),
        ("checkpoint.keep_previous", 3),
        ("checkpoint.rename", 3),
    ],
    "at its end": [
        ("training.step", 200),
        ("validation.plateau", 1),
        ("end.test", 1),
        ("end.show_best", 1),
        ("end.embeddings", 1),
        ("end.summary", 1),
    ],
}


@pytest.fixture(scope="module")
def settings(first_book: Path) -> list[str]:
    return [*SETTINGS, f"data.path={first_book}", "run_dir=run"]


@pytest.fixture(scope="module")
def unbroken(settings: list[str], once: Callable) -> Path:
    return once("unbroken", lambda folder: finished_run(folder, *settings)) / "run"


def names(run: Path) -> set[str]:
    """What is in a run folder; every session has an event file of its own."""
    return {path.name for path in run.iterdir() if not path.name.startswith("events.")}


# Exact


@pytest.mark.parametrize("kind", KILLS)
def test_killed_again_and_again_is_the_unbroken_run(
    kind: str, settings: list[str], unbroken: Path, tmp_path: Path
) -> None:
    arguments = settings
    for place, count in KILLS[kind]:
        killed(launch(tmp_path, "train.py", *arguments, stop=("SIGKILL", place, count)))
        arguments = ["resume=run"]
    run = finished_run(tmp_path, "resume=run", fresh=kind == "while it saves")  # sets of strings have another order
    expect_same_run(run, unbroken)
    assert not list(run.rglob("*.unfinished"))
    assert (run / "train.log").read_text().count("resumed at step") >= len(KILLS[kind]) - 1


@pytest.mark.parametrize("kill_at", [60])
def test_killed_from_outside(kill_at: int, settings: list[str], unbroken: Path, tmp_path: Path) -> None:
    """By the clock, too, a checkpoint may be saved at any step."""
    more = ["checkpoint.every_steps=null", "checkpoint.every_minutes=0.01"]
    process = launch(tmp_path, "train.py", *settings, *more)
    wait_for_step(tmp_path / "run", kill_at)
    os.killpg(process.pid, signal.SIGKILL)
    killed(process)
    folders = names(tmp_path / "run")
    process = launch(tmp_path, "train.py", "resume=run", "checkpoint.every_minutes=5", "checkpoint.every_steps=10")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    [resumed_at] = re.findall(r"resumed at step (\d+)", output)
    assert 0 < int(resumed_at) < 200
    assert folders | {"summary.json", "projector", "projector_config.pbtxt"} == names(tmp_path / "run")
    expect_same_run(tmp_path / "run", unbroken)


@pytest.mark.parametrize(
    ("number", "place", "count"),
    [
        (signal.SIGINT, "training.step", 33),
        (signal.SIGTERM, "training.step", 50),  # a validation is due after it
        (signal.SIGHUP, "validation.step", 8),
        (signal.SIGTERM, "validation.step", 37),  # the last
    ],
)
def test_a_signal_saves_at_the_next_step(
    number: signal.Signals, place: str, count: int, settings: list[str], unbroken: Path, tmp_path: Path
) -> None:
    process = launch(tmp_path, "train.py", *settings, stop=(number.name, place, count))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    line = expect_line(errors, "run.interrupted", number.name, "run/checkpoints/last.ckpt")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    step = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    if place == "training.step":
        assert step == count
    resume_as_told(line, tmp_path, step)
    expect_same_run(tmp_path / "run", unbroken)


BY_EPOCHS = ("trainer.accumulate_grad_batches=2", "trainer.val_every_steps=null", "max_steps=70")


@pytest.fixture(scope="module")
def unbroken_by_epochs(settings: list[str], once: Callable) -> Path:
    return once("unbroken_by_epochs", lambda folder: finished_run(folder, *settings, *BY_EPOCHS)) / "run"


def test_stopped_before_the_validation_of_an_epoch(
    settings: list[str], unbroken_by_epochs: Path, tmp_path: Path
) -> None:
    """In its last step, and again while the validation is made up for; then killed when that is logged, not saved."""
    [steps] = re.findall(r"(\d+) steps per epoch", (unbroken_by_epochs / "train.log").read_text())
    process = launch(tmp_path, "train.py", *settings, *BY_EPOCHS, stop=("SIGTERM", "training.step", 2 * int(steps)))
    assert process.wait(300) == 143
    process = launch(tmp_path, "train.py", "resume=run", stop=("SIGTERM", "validation.step", 2))
    assert process.wait(300) == 143
    killed(launch(tmp_path, "train.py", "resume=run", stop=("SIGKILL", "checkpoint.save", 1)))
    killed(launch(tmp_path, "train.py", "resume=run", stop=("SIGKILL", "training.step", 7)))
    finished_run(tmp_path, "resume=run")
    expect_same_run(tmp_path / "run", unbroken_by_epochs)


def test_stopped_in_the_validation_of_an_epoch(settings: list[str], unbroken_by_epochs: Path, tmp_path: Path) -> None:
    """Lightning, which takes it for validated, must not believe the epoch that is over to go on."""
    process = launch(tmp_path, "train.py", *settings, *BY_EPOCHS, stop=("SIGTERM", "validation.step", 2))
    assert process.wait(300) == 143
    finished_run(tmp_path, "resume=run")
    expect_same_run(tmp_path / "run", unbroken_by_epochs)


def test_more_epochs_are_whole_ones(settings: list[str], tmp_path: Path) -> None:
    """Though the last validation came at no multiple of the interval, and gradients are accumulated."""
    more = ["trainer.accumulate_grad_batches=2", "trainer.val_every_steps=7", "max_steps=null"]
    (tmp_path / "unbroken").mkdir()
    unbroken = finished_run(tmp_path / "unbroken", *settings, "optim.schedule=plateau", *more, "max_epochs=3")
    finished_run(tmp_path, *settings, "optim.schedule=plateau", *more, "max_epochs=1")
    run = finished_run(tmp_path, "resume=run", "max_epochs=3")
    ours, theirs = (torch.load(each / "checkpoints" / "last.ckpt", weights_only=True) for each in (run, unbroken))
    assert ours["global_step"] == theirs["global_step"]
    before, after = (
        {row["step"]: row["train/loss"] for row in metrics(each) if row["train/loss"]} for each in (run, unbroken)
    )
    assert before.keys() == after.keys()
    [steps] = re.findall(r"(\d+) steps per epoch", (run / "train.log").read_text())[:1]
    assert [before[step] for step in before if step <= int(steps)] == [
        after[step] for step in after if step <= int(steps)
    ]


def test_a_second_signal_leaves_at_once(settings: list[str], tmp_path: Path) -> None:
    """While the first is waiting for its step to end, which here never does; two that come together are one."""
    process = launch(tmp_path, "train.py", *settings, stop=("SIGINT+SIGTERM+HOLD", "training.step", 3))
    wait_until((tmp_path / HELD).exists)
    time.sleep(SECONDS_BETWEEN_SIGNALS + 0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM, errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a device of a processor is a core")
def test_two_processes(settings: list[str], tmp_path: Path) -> None:
    """Each draws a dropout of its own, and draws the same again after the whole group was killed."""
    more = ["trainer.devices=2", "trainer.accelerator=cpu", "max_steps=150"]
    (tmp_path / "unbroken").mkdir()
    unbroken = finished_run(tmp_path / "unbroken", *settings, *more)
    process = launch(tmp_path, "train.py", *settings, *more)
    wait_for_step(tmp_path / "run", 45)
    os.killpg(process.pid, signal.SIGKILL)
    killed(process)
    process = launch(tmp_path, "train.py", "resume=run")
    wait_for_step(tmp_path / "run", 70)
    process.terminate()
    assert process.wait(60) == 143
    finished_run(tmp_path, "resume=run")
    expect_same_run(tmp_path / "run", unbroken)


# What resume= takes


def test_latest_and_checkpoints_are_resumed(settings: list[str], unbroken: Path, tmp_path: Path) -> None:
    """`latest` goes on where the newest run was, a checkpoint where it was saved, though the run had come further."""
    arguments = [argument for argument in settings if not argument.startswith("run_dir=")]
    killed(launch(tmp_path, "train.py", *arguments, stop=("SIGKILL", "training.step", 133)))
    [run] = (tmp_path / "outputs" / "runs").iterdir()
    process = launch(tmp_path, "train.py", "resume=latest", "checkpoint.top_k=3")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "resumed at step 130" in output
    older = sorted((run / "checkpoints").glob("step_*"))[0]
    process = launch(tmp_path, "train.py", f"resume={older}", "checkpoint.top_k=1")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert f"resumed at step {int(older.name.split('_')[1])}\n" in output
    ours, theirs = (torch.load(each / "checkpoints" / "best.ckpt", weights_only=True) for each in (run, unbroken))
    assert all(torch.equal(weight, theirs["state_dict"][name]) for name, weight in ours["state_dict"].items())
    assert curves(run) == curves(unbroken)
    assert not list((run / "checkpoints").glob("step_*")), "top_k=1 keeps best.ckpt alone"


def test_a_complete_run_goes_on_only_when_more_is_asked(
    settings: list[str], run_script: Callable, tmp_path: Path
) -> None:
    assert run_script("train.py", *settings, "max_steps=20").returncode == 0
    summary = (tmp_path / "run" / "summary.json").read_bytes()
    done = run_script("train.py", "resume=run")
    assert done.returncode == 0
    assert "Run already finished" in done.stdout
    assert (tmp_path / "run" / "summary.json").read_bytes() == summary
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    done = run_script("train.py", "resume=elsewhere", "max_steps=30")
    assert done.returncode == 0, done.stderr
    assert json.loads((moved / "summary.json").read_text())["steps"] == 30
    assert [step for step, _ in curves(moved)["val/loss"]] == [20, 25, 30]
    assert [step for step, _ in curves(moved)["test/loss"]] == [31], "what an older end reached is gone"


def test_what_can_change_holds_from_there_on(settings: list[str], tmp_path: Path) -> None:
    """A new rate, though the run is killed before it saves again and resumed without a word; and the other rate."""
    killed(launch(tmp_path, "train.py", *settings, "optim.schedule=plateau", stop=("SIGKILL", "training.step", 133)))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = torch.load(last, weights_only=True)
    killed(
        launch(
            tmp_path,
            "train.py",
            "resume=run",
            "optim.lr=0.004",
            "optim.plateau.patience=99",
            stop=("SIGKILL", "training.step", 3),
        )
    )
    run = finished_run(tmp_path, "resume=run", "max_steps=160")
    rates = {row["step"]: float(row["lr"]) for row in metrics(run) if row["lr"]}
    assert rates[30] > 0.004
    assert {rate for step, rate in rates.items() if step > 130} == {0.004}
    muon_lr = before["hp_lightning"]["config"]["optim"]["muon_lr"]
    *_, hidden = torch.load(last, weights_only=True)["optimizer_states"][0]["param_groups"]
    assert hidden["lr"] == pytest.approx(muon_lr * before["schedule"]["factor"]), "what was not told stays as it was"


def test_an_early_end_is_one_until_more_patience_is_given(settings: list[str], tmp_path: Path) -> None:
    calm = ["regularization.dropout=0.3", "regularization.weight_decay=0.1"]  # a large decay would tame the rate
    wild = ["optim.lr=0.3", "optim.muon_lr=0.02", "optim.muon_momentum=0.95"]  # so that the loss rises again
    more = [*calm, *wild, "regularization.early_stopping_patience=1"]
    run = finished_run(tmp_path, *settings, *more)
    steps = json.loads((run / "summary.json").read_text())["steps"]
    assert steps < 200
    finished_run(tmp_path, "resume=run")
    assert json.loads((run / "summary.json").read_text())["steps"] == steps
    finished_run(tmp_path, "resume=run", "regularization.early_stopping_patience=2")
    assert json.loads((run / "summary.json").read_text())["steps"] > steps


def test_a_corpus_that_changed_is_refused(
    settings: list[str], first_book: Path, run_script: Callable, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.csv"
    corpus.write_bytes(first_book.read_bytes())
    assert run_script("train.py", *settings, "max_steps=5", "data.path=corpus.csv").returncode == 0
    with corpus.open("a", encoding="utf-8") as file:
        file.write("One line more.,The Ferry to Vesperhold,1 Fog on the Quay\n")
    done = run_script("train.py", "resume=run", "max_steps=10")
    expect_refusal(done, "data.changed", f"data.path={corpus} ", " run ")
    done = run_script("train.py", "resume=run", "max_steps=10", f"data.path={first_book}")
    assert done.returncode == 0, "the same text in another place is the same corpus"


def test_what_cannot_change_is_refused_by_name(settings: list[str], run_script: Callable) -> None:
    assert run_script("train.py", *settings, "max_steps=5").returncode == 0
    given = ["model=small", "seed=3", "max_steps=10", "tokenizer.vocab_size=100", "data.split=tail", "optim.eps=1"]
    done = run_script("train.py", "resume=run", *given)
    expect_refusal(done, "config.cannot_change", ": model, seed, tokenizer.vocab_size, data.split, optim.eps ")


def test_a_run_that_is_training_is_not_resumed(settings: list[str], run_script: Callable, tmp_path: Path) -> None:
    process = launch(tmp_path, "train.py", *settings, "max_steps=100000")
    wait_for_step(tmp_path / "run", 20)
    done = run_script("train.py", "resume=run")
    expect_refusal(done, "run.locked", " run:")
    os.killpg(process.pid, signal.SIGKILL)
    killed(process)
    killed_at = metrics(tmp_path / "run")[-1]["step"]
    assert finished_run(tmp_path, "resume=run", f"max_steps={killed_at + 10}"), "a dead process keeps nobody out"


# As a job of SLURM


def test_each_task_of_an_array_goes_on_with_its_own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_NAME", "books")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4711")
    runs = {task: Path("outputs", "runs", f"run_of_{task}") for task in ("1", "2")}
    for task, run in runs.items():
        run.mkdir(parents=True)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        slurm.mark(RunDir(run))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for task in ("1", "2", "3"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        assert slurm.run_of_requeued_job(None) == runs.get(task)


def test_a_job_is_requeued_and_goes_on(settings: list[str], unbroken: Path, tmp_path: Path) -> None:
    """`scontrol` here is a script that notes what it was told; SLURM then starts the same command again."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (commands / "scontrol").chmod(0o755)
    job = {
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "books",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
    }
    arguments = [argument for argument in settings if not argument.startswith("run_dir=")]
    process = launch(tmp_path, "train.py", *arguments, "max_steps=100000", **job)
    deadline = time.monotonic() + 120
    while not (runs := list((tmp_path / "outputs" / "runs").glob("*"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    [run] = runs
    wait_for_step(run, 30)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1
    expect_line(errors, "run.interrupted", "4711 again")
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    stopped_at = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    # Preempted: SIGTERM, and SLURM requeues of its own accord.
    process = launch(tmp_path, "train.py", *arguments, "max_steps=100000", **job, SLURM_RESTART_COUNT="1")
    wait_for_step(run, stopped_at + 20)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"resumed at step {stopped_at}\n" in output
    assert list((tmp_path / "outputs" / "runs").iterdir()) == [run]
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    other = {**job, "SLURM_JOB_ID": "4712", "SLURM_RESTART_COUNT": "1"}
    process = launch(tmp_path, "train.py", *arguments, "max_steps=5", **other)
    assert process.wait(120) == 0, process.communicate()
    assert len(list((tmp_path / "outputs" / "runs").iterdir())) == 2, "another job's run is another run"
