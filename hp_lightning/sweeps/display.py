"""The live progress of a sweep: a line for each running job in a terminal, now and then a line in a log file."""

import time
from typing import Any

from rich.progress import Progress, TaskID, TextColumn, TimeElapsedColumn

from hp_lightning.common.console import clock, console, log
from hp_lightning.common.run_dir import short_reason
from hp_lightning.sweeps.plan import Job

SECONDS_BETWEEN_LINES = 30  # of a job, where there is no live display
OF_INTEREST = "step "  # the start of the lines of a run that tell how far it is


class SweepDisplay:
    """Shows what is running and what has ended.

    Args:
        total: jobs
    """

    def __init__(self, total: int) -> None:
        columns = (TimeElapsedColumn(), TextColumn("{task.description}  {task.fields[says]}", markup=False))
        self.live = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._total, self._ended = total, 0
        self._sweep = self.live.add_task("", says="")
        self._running: dict[Job, TaskID] = {}
        self._started: dict[Job, float] = {}
        self._told: dict[Job, float] = {}
        self._count(0)

    def _count(self, ended: int) -> None:
        self._ended += ended
        self.live.update(self._sweep, description=f"{self._ended} of {self._total} jobs")

    def start(self, job: Job) -> None:
        """A job's process was started."""
        self._started[job] = self._told[job] = time.monotonic()
        self._running[job] = self.live.add_task(job.name, says="starting")

    def say(self, job: Job, line: str) -> None:
        """A job has said something."""
        if not line.startswith(OF_INTEREST):
            return
        self.live.update(self._running[job], says=line)
        now = time.monotonic()
        if self.live.disable and now - self._told[job] > SECONDS_BETWEEN_LINES:
            self._told[job] = now
            log.info("%s  %s", job.name, line)

    def end(self, job: Job, status: str, summary: dict[str, Any]) -> None:
        """A job has ended, or had ended before."""
        self._count(1)
        took = ""
        if job in self._running:
            self.live.remove_task(self._running.pop(job))
            took = f", {clock(time.monotonic() - self._started[job])}"
        reason = f": {short_reason(summary)}" if status == "failed" else ""
        loss = summary.get("best/val/loss")
        reached = f", val/loss {loss:.4f} at step {summary.get('best/step')}" if loss is not None and not reason else ""
        log.info("%*d/%d  %s  %s%s%s%s", len(str(self._total)), self._ended, self._total, job.name, status, reached,
                 took, reason)  # fmt: skip
