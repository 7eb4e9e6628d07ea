"""Messages to the person, and how far long work is: a bar in a terminal, a line now and then in a log file."""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hp_lightning.common.errors import RunError


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


def lost_output(text: str) -> RunError | SystemExit | None:
    """Print a text and all that waits to be printed; return how a program ends whose output nobody takes."""
    try:
        print(end=text, flush=True)
    except BrokenPipeError:  # whoever reads, as in `| head`, may have read enough
        _give_output_up()
        return SystemExit(128 + signal.SIGPIPE)
    except OSError as error:
        _give_output_up()
        return RunError("output.stdout", f"cannot write to stdout ({error.strerror})")
    return None


def _give_output_up() -> None:
    """Python, too, would write what is left of it, in the end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_help(text: str, program: str) -> None:
    """Print the help of a program, which ends in one line or silently where nobody takes it."""
    ending = lost_output(f"{text}\n")
    if isinstance(ending, RunError):
        print(ending.line(program), file=sys.stderr)
        raise SystemExit(ending.exit_status)
    if ending is not None:
        raise ending


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Give a function to be told how much has been done since it was last called, in the unit of `total`.

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
        self._start = time.monotonic()
        self._next = self._start + SECONDS_BEFORE_LINES

    def advance(self, amount: int) -> None:
        self._done += amount
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SECONDS_BETWEEN_LINES
        if self._total and self._done:
            left = (now - self._start) * max(self._total - self._done, 0) / self._done
            log.info("%s  %.0f %%  %s left", self._what, 100 * self._done / self._total, clock(left))
        else:
            log.info("%s  %s", self._what, f"{self._done:,}")


def watched(what: str, texts: list[str]) -> Iterator[str]:
    """The texts, one after the other, with the progress shown in characters."""
    with progress(what, sum(map(len, texts))) as advance:
        for text in texts:
            yield text
            advance(len(text))


LIBRARY_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning", "py.warnings")


def log_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    text_columns: Container[int] = (0,),
    width: int = 100,
) -> None:
    """Say a table of so many characters at most, without the codes of a terminal: it is also read in a file.

    Args:
        columns: their headings
        rows: a cell for each column
        title: stands above
        text_columns: by place; the others hold numbers, which are aligned to the right and not folded
        width: characters in a line
    """
    table = Table(title=None if title is None else Text(title), title_justify="left", show_edge=False)
    for index, heading in enumerate(columns):
        is_text = index in text_columns
        table.add_column(Text(heading), justify="left" if is_text else "right", no_wrap=not is_text)
    for row in rows:
        table.add_row(*map(Text, row))
    plain = Console(color_system=None, force_terminal=False, width=width)
    with plain.capture() as capture:
        plain.print(table)
    log.info("\n%s", "\n".join(line.rstrip() for line in capture.get().splitlines()))


class _ConsoleHandler(logging.Handler):
    """Prints above a live display, unwrapped; nobody who reads any more is no reason for a run to end."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            console.print(self.format(record), soft_wrap=True, markup=False, emoji=False)


class _LogFile(logging.FileHandler):
    """A file that may stay behind where the disk is full: the terminal has the message."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class Messages:
    """Where messages go: to the terminal at once, to train.log as soon as there is a run folder."""

    def __init__(self) -> None:
        self._held = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
        self._file: _LogFile | None = None

    def keep_in(self, path: Path) -> None:
        """Write what was said so far, and from now on is said, into a file."""
        self._file = _LogFile(path, encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
        self._held.setTarget(self._file)
        self._held.flush()
        self._held.capacity = 0  # from now on each message is passed on at once

    def close(self) -> None:
        """Close the file."""
        self._held.close()
        if self._file is not None:
            self._file.close()


def _without_disk_errors(failed: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer has a thread, which would print a traceback before we see the error."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


@contextmanager
def messages() -> Iterator[Messages]:
    """Within it, the messages of a run, and the libraries' warnings, go where the run's messages go."""
    kept = Messages()
    handlers = [_ConsoleHandler(), kept._held]
    loggers = [log, *(logging.getLogger(name) for name in LIBRARY_LOGGERS)]
    excepthook, filters = threading.excepthook, list(warnings.filters)
    logging.captureWarnings(True)
    threading.excepthook = _without_disk_errors
    for lightnings_own in (".*LeafSpec.*", ".*broadcast_buffers.*", ".*barrier.*device.*"):  # use of torch
        warnings.filterwarnings("ignore", message=lightnings_own)
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = list(handlers), False
        logger.setLevel(logging.INFO if logger is log else logging.WARNING)
    try:
        yield kept
    finally:
        for logger, (own_handlers, level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = own_handlers, propagate
            logger.setLevel(level)
        logging.captureWarnings(False)
        threading.excepthook, warnings.filters[:] = excepthook, filters  # type: ignore[index]
        kept.close()
