"""Messages to the person, and how far long work is: a bar in a terminal, a line now and then in a log file."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class _Console(Console):
    """Goes on where nobody reads any more: that is no reason for a run to end."""

    def on_broken_pipe(self) -> None:
        """Rich would exit."""
        with suppress(SystemExit):
            super().on_broken_pipe()


console = _Console(highlight=False)
log = logging.getLogger("hp_lightning")
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # while Lightning imports it, it may tell of its list of fonts

SECONDS_BETWEEN_LINES = 10
SECONDS_BEFORE_LINES = 3  # work that is done sooner is not worth a line


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Gives a function to be told how much has been done since it was last called, in the unit of `total`.

    Where the whole is not known (`total` is None) no time is estimated.
    """
    if console.is_terminal:
        columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda amount: bar.advance(task, amount)
    else:
        yield _Lines(what, total).advance


class _Lines:
    """Tells of the progress in lines, for a log file."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        self._begin = time.monotonic()
        self._next = self._begin + SECONDS_BEFORE_LINES

    def advance(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SECONDS_BETWEEN_LINES
        if self._total and self._done:
            left = (now - self._begin) * max(self._total - self._done, 0) / self._done
            log.info("%s  %.0f %%  %s left", self._what, 100 * self._done / self._total, clock(left))
        else:
            log.info("%s  %s", self._what, f"{self._done:,}")


def watched(what: str, texts: list[str]) -> Iterator[str]:
    """The texts, one after the other, with the progress shown in characters."""
    with progress(what, sum(map(len, texts))) as advance:
        for text in texts:
            yield text
            advance(len(text))
