"""One job of a sweep: a process that trains, and the record of its end."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from omegaconf import OmegaConf

from hp_lightning.common.command_line import IN_SWEEP
from hp_lightning.common.files import PACKAGE, atomic_write_text
from hp_lightning.common.hydra_grammar import quoted
from hp_lightning.common.run_dir import COMPLETE
from hp_lightning.sweeps.plan import Job, clear, has_started, settings_of_hydra

SETTLED = (*COMPLETE, "pruned")  # a job that is not started again
ELSEWHERE = "running in another process"
REFUSAL = re.compile(r"hp-lightning train: error\[[a-z_.]+\]: ")


def status_of(job: Job) -> str | None:
    """Its status: completed, stopped early, pruned, failed, interrupted; None where nothing is known."""
    status = job.run_dir.read_summary().get("status")
    return None if status is None else str(status)


def is_settled(job: Job) -> bool:
    """Whether there is nothing left to do."""
    return status_of(job) in SETTLED


class JobProcess:
    """`hp-lightning train`, starting the job's run or resuming it.

    Args:
        job: what to train
        sweep_dir: tells the process that it is part of a sweep, and where that lies
        environment: variables of its own, such as the GPU that it may use
    """

    def __init__(self, job: Job, sweep_dir: Path, environment: Mapping[str, str]) -> None:
        self.job = job
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  closed with the outcome
        # Not everybody installs it.
        path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hp_lightning", "train", *settings_of_hydra(sweep_dir), *_arguments(job)],
            env={**os.environ, "PYTHONPATH": path, **environment, IN_SWEEP: str(sweep_dir)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            errors="replace",
        )

    def lines(self) -> Iterator[str]:
        """What it says, as it says it, until it has ended."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.rstrip()

    def stop(self) -> None:
        """Ask the job to save and to leave; asked again a second later, it leaves at once."""
        if self._process.poll() is None:
            self._process.terminate()

    def outcome(self) -> str:
        """Wait for its end; return the status, which is in the job's summary.json from then on."""
        code = self._process.wait()
        self._stderr.seek(0)
        errors = self._stderr.read()
        self._stderr.close()
        status = status_of(self.job)
        if code == 0 and status in COMPLETE:
            return str(status)
        if -code in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) or code - 128 in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
        ):
            return "interrupted"
        record(self.job, "failed", self._reason(code, errors))
        return "failed"

    def _reason(self, code: int, errors: str) -> str:
        if code < 0:
            return (
                f"killed by {signal.Signals(-code).name}; a system that runs out of memory does that: then lower "
                "data.batch_size or sweep.jobs"
            )
        lines = errors.strip().splitlines() or [f"it ended with status {code} and said nothing"]
        if refusal := REFUSAL.match(lines[-1]):
            return lines[-1][refusal.end() :]
        self.job.folder.mkdir(parents=True, exist_ok=True)
        self.job.run_dir.errors.write_text(errors, encoding="utf-8")
        return f"{lines[-1]} (the whole of it is in {self.job.run_dir.errors})"


def record(job: Job, status: str, reason: str | None) -> None:
    """Record how a job ended, with the metrics that its run has left; on a full disk nothing."""
    run_dir = job.run_dir
    with suppress(OSError):
        if not has_started(job):  # for the summary of the sweep to tell which job it was
            run_dir.overrides.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_text(run_dir.overrides, OmegaConf.to_yaml(OmegaConf.create(list(job.overrides))))
        run_dir.write_summary({**run_dir.read_summary(), "status": status, "reason": reason})


def _arguments(job: Job) -> list[str]:
    if has_started(job):
        return [f"resume={quoted(str(job.folder))}"]
    clear(job)
    return [*job.overrides, f"run_dir={quoted(str(job.folder))}"]
