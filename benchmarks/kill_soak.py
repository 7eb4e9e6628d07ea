"""One run, killed with SIGKILL at random moments and resumed each time: does it end as the unbroken run does?

    python benchmarks/kill_soak.py                    # 50 kills, some ten minutes
    python benchmarks/kill_soak.py --kills 10 --seed 2 model=tiny tokenizer=char

Further arguments are settings of train.py; without any, a small network with dropout, warm-up, a plateau and
accumulated gradients. Every session is killed a random time after it began, while Python still imports or while it
trains, validates or saves; the last is left to its end. Compared are weights, optimizer state, schedule, the record of
the validations, every scalar of TensorBoard and every row of metrics.csv, all to the last bit.
"""

import argparse
import csv
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from commands import TRAIN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

SETTINGS = (
    "experiment=smoke",
    "max_steps=3000",
    "max_epochs=null",
    "trainer.val_every_steps=100",
    "trainer.accumulate_grad_batches=2",
    "optim.warmup_steps=50",
    "optim.plateau.patience=1",
    "checkpoint.every_minutes=0.01",
    "trainer.precision=32-true",
    "logger.sample_tokens=5",
    "logger.images=false",
)
STARTING, SECONDS_OF_A_START = 0.1, 5.0  # the share of sessions that are killed within their first seconds
OF_THE_MACHINE = {"tokens_per_second", "mfu"}
STATE = ("state_dict", "optimizer_states", "schedule", "hp_lightning", "global_step")


@dataclass
class Session:
    """One process of the run."""

    began: int | None  # the step from which it went on; None where it was killed before
    reached: int  # the last step in metrics.csv when it ended

    @property
    def steps(self) -> int:
        """About how many steps it took: metrics.csv has every fifth or tenth."""
        return 0 if self.began is None else max(self.reached - self.began, 0)


def main() -> int:
    """Runs both, prints what happened, and compares; status 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="50 by default")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    parser.add_argument("settings", nargs="*", help="of train.py, as key=value")
    arguments = parser.parse_args()
    settings = [*(arguments.settings or SETTINGS)]
    with tempfile.TemporaryDirectory(prefix="kill_soak_") as folder:
        unbroken, broken = Path(folder) / "unbroken", Path(folder) / "broken"
        print("the unbroken run", flush=True)
        seconds = _timed(unbroken, settings)
        with _counted_changes(broken / "run" / "checkpoints" / "last.ckpt") as checkpoints:
            sessions = _kill(broken, settings, arguments.kills, seconds, random.Random(arguments.seed))
        differences = [*_state_differences(broken, unbroken), *_curve_differences(broken, unbroken)]
        _tell(sessions, len(checkpoints))
    for difference in differences:
        print(f"DIFFERS: {difference}")
    print("the final states are " + ("NOT equal" if differences else "equal, bit for bit"))
    return 1 if differences else 0


@contextmanager
def _counted_changes(path: Path) -> Iterator[set[int]]:
    """Gives a set that has, at the end, a member for each time that the file was written."""
    seen: set[int] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            with suppress(OSError):
                seen.add(path.stat().st_mtime_ns)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def _start(cwd: Path, settings: list[str]) -> "subprocess.Popen[str]":
    cwd.mkdir(exist_ok=True)
    command = [*TRAIN, *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # nothing to gain by more in so small a network
    with (cwd / "log").open("w") as log:
        return subprocess.Popen(
            command, cwd=cwd, env=environment, stdout=log, stderr=log, text=True, start_new_session=True
        )


def _finish(process: "subprocess.Popen[str]", cwd: Path) -> None:
    if process.wait():
        raise SystemExit((cwd / "log").read_text())


def _timed(cwd: Path, settings: list[str]) -> float:
    """Seconds of a run to its end."""
    begin = time.monotonic()
    _finish(_start(cwd, [*settings, "run_dir=run"]), cwd)
    return time.monotonic() - begin


def _kill(cwd: Path, settings: list[str], kills: int, seconds: float, draw: random.Random) -> list[Session]:
    """Kills so many sessions, and lets one more come to its end."""
    sessions: list[Session] = []
    while len(sessions) < kills:
        process = _start(cwd, _arguments(cwd, settings))
        # Most sessions train, as long as a share of the run; some are killed while they still start.
        if draw.random() < STARTING:
            time.sleep(draw.uniform(0, SECONDS_OF_A_START))
        else:
            _wait_for_a_step(cwd, process)
            time.sleep(draw.uniform(0, 1.5 * seconds / kills))
        os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        if status > 0:
            raise SystemExit((cwd / "log").read_text())
        if status == 0:
            raise SystemExit(f"the run came to its end after {len(sessions)} kills: give it more max_steps")
        sessions.append(_session(cwd, first=not sessions))
        print(f"kill {len(sessions)}/{kills}: {sessions[-1]}", flush=True)
    _finish(_start(cwd, ["resume=run"]), cwd)
    return [*sessions, _session(cwd, first=False)]


def _arguments(cwd: Path, settings: list[str]) -> list[str]:
    run = cwd / "run"
    if (run / ".hydra" / "config.yaml").exists():
        return ["resume=run"]
    if run.exists():  # killed within the milliseconds in which its folder was made
        shutil.rmtree(run)
    return [*settings, "run_dir=run"]


def _session(cwd: Path, first: bool) -> Session:
    found = re.search(r"resumed at step (\d+)", (cwd / "log").read_text())
    began = int(found[1]) if found else 0 if first else None
    return Session(began, _last_step(cwd))


def _wait_for_a_step(cwd: Path, process: "subprocess.Popen[str]") -> None:
    """Until this session has written a row into metrics.csv."""
    begin = time.time_ns()
    path = cwd / "run" / "metrics.csv"
    while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > begin):
        time.sleep(0.01)


def _last_step(cwd: Path) -> int:
    path = cwd / "run" / "metrics.csv"
    rows = path.read_text().splitlines()[1:] if path.exists() else []
    return int(rows[-1].partition(",")[0] or 0) if rows else 0


def _tell(sessions: list[Session], checkpoints: int) -> None:
    taken = sum(session.steps for session in sessions)
    print(f"kills                  {len(sessions) - 1}")
    print(f"killed while starting  {sum(session.steps == 0 for session in sessions)}")
    print(f"steps taken            {taken:,}, of which repeated {taken - sessions[-1].reached:,}")
    print(f"checkpoints written    {checkpoints}")


def _state_differences(broken: Path, unbroken: Path) -> list[str]:
    ours, theirs = (
        torch.load(cwd / "run" / "checkpoints" / "last.ckpt", weights_only=True) for cwd in (broken, unbroken)
    )
    return [place for part in STATE for place in _differences(ours[part], theirs[part], part)]


def _differences(ours: Any, theirs: Any, place: str) -> list[str]:
    if isinstance(theirs, torch.Tensor):
        return [] if torch.equal(ours, theirs) else [place]
    if isinstance(theirs, dict):
        keys = sorted(map(str, theirs.keys() ^ ours.keys()))
        both = sorted(theirs.keys() & ours.keys(), key=str)
        within = [found for key in both for found in _differences(ours[key], theirs[key], f"{place}.{key}")]
        return [*(f"{place}.{key}" for key in keys), *within]
    if isinstance(theirs, list):
        if len(ours) != len(theirs):
            return [place]
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [found for number, pair in pairs for found in _differences(*pair, f"{place}[{number}]")]
    return [] if ours == theirs else [place]


def _curve_differences(broken: Path, unbroken: Path) -> list[str]:
    ours, theirs = _curves(broken), _curves(unbroken)
    tags = sorted(ours.keys() | theirs.keys())
    found = [f"TensorBoard's {tag}" for tag in tags if ours.get(tag) != theirs.get(tag)]
    return found if _metrics(broken) == _metrics(unbroken) else [*found, "metrics.csv"]


def _curves(cwd: Path) -> dict[str, list[tuple[int, float]]]:
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each step that it leaves out
    curves: dict[str, list[tuple[int, float]]] = {}
    for folder in (cwd / "run", cwd / "run" / "by_tokens"):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        for tag in set(events.Tags()["scalars"]) - OF_THE_MACHINE:
            curves[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    return curves


def _metrics(cwd: Path) -> list[dict[str, str]]:
    with (cwd / "run" / "metrics.csv").open(newline="") as file:
        return [
            {key: value for key, value in row.items() if key not in OF_THE_MACHINE | {"seconds"}}
            for row in csv.DictReader(file)
        ]


if __name__ == "__main__":
    sys.exit(main())
