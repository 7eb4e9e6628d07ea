"""The live progress of a sweep: a line for each running job in a terminal, now and then a line in a log file."""

import time
from types import TracebackType
from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from hp_lightning.common.console import clock, console, log
from hp_lightning.common.run_dir import short_reason
from hp_lightning.sweeps.plan import Job

SECONDS_BETWEEN_LINES = 30  # of a job, where there is no live display
OF_INTEREST = "step "  # how the lines of a run begin that tell how far it is


class SweepDisplay:
    """Shows what is running and what has ended.

    Args:
        total: jobs
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._lines: dict[Job, str] = {}
        self._told: dict[Job, float] = {}
        self._started: dict[Job, float] = {}
        self._ended = 0
        self._start = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> "SweepDisplay":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def start(self, job: Job) -> None:
        """A job's process was started."""
        self._started[job] = self._told[job] = time.monotonic()
        self._lines[job] = "starting"

    def say(self, job: Job, line: str) -> None:
        """A job has said something."""
        if not line.startswith(OF_INTEREST):
            return
        self._lines[job] = line
        now = time.monotonic()
        if self._live is None and now - self._told[job] > SECONDS_BETWEEN_LINES:
            self._told[job] = now
            log.info("%s  %s", job.name, line)

    def end(self, job: Job, status: str, summary: dict[str, Any]) -> None:
        """A job has ended, or had ended before."""
        self._ended += 1
        self._lines.pop(job, None)
        took = ""
        if job in self._started:
            took = f", {clock(time.monotonic() - self._started.pop(job))}"
        told = f": {short_reason(summary)}" if status == "failed" else ""
        loss = summary.get("best/val/loss")
        reached = f", val/loss {loss:.4f} at step {summary.get('best/step')}" if loss is not None and not told else ""
        log.info("%*d/%d  %s  %s%s%s%s", len(str(self._total)), self._ended, self._total, job.name, status, reached,
                 took, told)  # fmt: skip

    def refresh(self) -> None:
        """Draw again."""
        if self._live is None:
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for job, line in list(self._lines.items()):
            table.add_row(Text(job.name, style="bold"), Text(line))
        table.add_row(
            Text(f"{self._ended} of {self._total} jobs", style="bold"), Text(clock(time.monotonic() - self._start))
        )
        self._live.update(table, refresh=True)
