"""A sweep from its plan to its summary."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from hp_lightning.common import torchrun
from hp_lightning.common.command_line import command, own_command
from hp_lightning.common.console import log, messages
from hp_lightning.common.errors import InputError, Interrupted, RunError
from hp_lightning.common.run_dir import RunDir, short_reason
from hp_lightning.sweeps.comparison.write import summarize
from hp_lightning.sweeps.job import ELSEWHERE, JobProcess, is_settled, status_of
from hp_lightning.sweeps.plan import Job, start_sweep


class Grid:
    """The jobs of a sweep that is planned to its end, one after the other."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.total = len(jobs)
        self._left: Iterator[Job] = iter(jobs)

    def next(self) -> Job | None:
        """The next job; None where there is no other."""
        return next(self._left, None)

    def is_wanted(self, job: Job) -> bool:
        """Every job runs to its end."""
        return True

    def ended(self, job: Job, status: str) -> str:
        """The status as it is."""
        return status


def run_sweep(sweep_dir: Path, overrides: list[str], train: Callable[[], None], jobs: Callable[[], list[Job]]) -> None:
    """Train every job, and write a summary, whatever their ends.

    Args:
        sweep_dir: the sweep's folder; made here
        overrides: the command line, by which the sweep can be resumed
        train: trains the jobs that have something left to do
        jobs: all that there are, asked for afterwards

    Raises:
        InputError: the folder holds something else, another process trains the sweep, or torchrun is used
        Interrupted: a signal was received; the running jobs have saved
        RunError: not every job came to its end
    """
    if torchrun.is_used():
        raise InputError("machine.several_processes", "a sweep starts its jobs itself: start it without torchrun")
    start_sweep(sweep_dir, overrides)
    with RunDir(sweep_dir).lock(), messages() as said:
        said.keep_in(sweep_dir / "sweep.log")
        log.info("sweep   %s", sweep_dir)
        log.info("watch   %s", command("tensorboard", "--logdir", str(sweep_dir)))
        done = sum(map(is_settled, jobs()))
        if done:
            log.info("done    %s of %s jobs", done, len(jobs()))
        stopped = None
        try:
            train()
        except Interrupted as error:
            stopped = error
        except KeyboardInterrupt:  # before or after the jobs
            stopped = Interrupted("sweep.interrupted", "stopped by SIGINT", signal.SIGINT)
        _conclude(sweep_dir, jobs(), stopped)


def _conclude(sweep_dir: Path, jobs: list[Job], stopped: Interrupted | None) -> None:
    """The summary, and the last line; an exception where the sweep is not at its end."""
    folders = [job.folder for job in jobs if job.folder.is_dir()]
    if folders:
        summarize(folders, sweep_dir)
    elsewhere = [job for job in jobs if not is_settled(job) and job.run_dir.is_running()]
    statuses = Counter(ELSEWHERE if job in elsewhere else status_of(job) or "not finished" for job in jobs)
    counted = ", ".join(f"{count} {status}" for status, count in statuses.items())
    log.info("\n%s jobs: %s", len(jobs), counted)
    if stopped is None and all(is_settled(job) or job in elsewhere for job in jobs):
        return
    going_on = own_command("train", "-m", f"resume_sweep={sweep_dir}")
    if stopped is not None:
        message = f"{stopped}: {counted}; resume with: {going_on}"
        raise Interrupted("sweep.interrupted", message, stopped.exit_status - 128) from stopped
    failed = [job for job in jobs if status_of(job) == "failed"]
    if failed:
        reason = short_reason(failed[0].run_dir.read_summary())
        message = f"{len(failed)} of {len(jobs)} jobs failed (first: {failed[0].name}: {reason})"
    else:
        message = f"not every job finished: {counted}"
    raise RunError("sweep.failed_jobs" if failed else "sweep.unfinished", f"{message}. Retry with: {going_on}")


def train_alone(job: Job, sweep_dir: Path) -> None:
    """One job, where another of Hydra's launchers has started a process for it; its folder tells its end."""
    if is_settled(job) or job.run_dir.is_running():
        return
    process = JobProcess(job, sweep_dir, {})
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        for line in process.lines():
            print(line, flush=True)
        process.outcome()
    finally:  # a launcher's own handler may want the process back
        process.stop()
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: object) -> NoReturn:
    raise Interrupted("sweep.interrupted", f"stopped by {signal.Signals(number).name}", number)
