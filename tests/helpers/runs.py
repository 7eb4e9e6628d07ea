"""What a run leaves in its folder, read by means of others: csv, torch, TensorBoard's own reader."""

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .processes import run_line, run_program

MEASURED = ("train/loss", "grad_norm", "lr", "val/loss", "val/perplexity", "val/bits_per_char", "val/gap")


def finished_run(cwd: Path, *settings: str, fresh: bool = False) -> Path:
    """The folder of a run, once it has come to its end; `run_dir=run` is among its settings, `fresh` as in `launch`."""
    done = run_program(cwd, "train.py", *settings, fresh=fresh)
    assert (done.returncode, done.stderr) == (0, "")
    return cwd / "run"


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Fails where it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_step(run_dir: Path, step: int) -> None:
    """Until metrics.csv has come to a step."""

    def is_there() -> bool:
        return (run_dir / "metrics.csv").exists() and max([row["step"] for row in metrics(run_dir)], default=0) >= step

    wait_until(is_there)


def metrics(run_dir: Path) -> list[dict]:
    """The whole rows of metrics.csv."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [{**row, "step": int(row["step"])} for row in csv.DictReader(file) if row["val/gap"] is not None]


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, but for what depends on the machine's speed."""
    shown = {**scalars(run_dir), **scalars(run_dir / "by_tokens")}
    assert {*MEASURED, "loss_by_tokens/train", "loss_by_tokens/val"} <= shown.keys()
    return {tag: curve for tag, curve in shown.items() if tag not in ("tokens_per_second", "mfu")}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The steps and values of every scalar, by TensorBoard's own reader."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expect_same_run(run_dir: Path, unbroken: Path) -> None:
    """The same state to the last bit, the same figures at the same steps, each once."""
    ours, theirs = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (run_dir, unbroken)
    )
    for part in ("state_dict", "optimizer_states", "schedule", "global_step", "hp_lightning"):
        expect_equal(ours[part], theirs[part], part)
    loaders = [contents["loops"]["fit_loop"]["state_dict"]["combined_loader"] for contents in (ours, theirs)]
    expect_equal(*loaders, "where the loader is")
    figures = [
        {key: contents["callbacks"]["MetricsCSV"][key] for key in ("best", "losses")} for contents in (ours, theirs)
    ]
    expect_equal(*figures, "what the next figures are made of")
    assert curves(run_dir) == curves(unbroken)
    rows = [
        [{key: row[key] for key in ("step", *MEASURED)} for row in metrics(folder)] for folder in (run_dir, unbroken)
    ]
    assert rows[0] == rows[1]
    found, wanted = (json.loads((folder / "summary.json").read_text()) for folder in (run_dir, unbroken))
    assert {**found, "seconds": 0} == {**wanted, "seconds": 0}


def expect_equal(ours: Any, theirs: Any, where: str) -> None:
    """Nested dicts and lists with equal values; tensors to the last bit."""
    assert type(ours) is type(theirs), where
    if isinstance(theirs, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in theirs.items():
            expect_equal(ours[key], value, f"{where}.{key}")
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), where
        for place, value in enumerate(theirs):
            expect_equal(ours[place], value, f"{where}[{place}]")
    else:
        assert ours == theirs, where


def resume_as_told(line: str, cwd: Path, step: int) -> None:
    """Runs the command that an interrupted run has printed; it resumes at that step and comes to its end."""
    done = run_line(line.partition("resume with: ")[2], cwd)
    assert done.returncode == 0, done.stderr
    assert f"resumed at step {step}" in done.stdout
