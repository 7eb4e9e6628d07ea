"""Where the messages of a run go: to the terminal and to train.log."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import MemoryHandler
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hp_lightning.common.console import console, log

LIBRARY_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning", "py.warnings")


def log_table(table: Table, width: int = 100) -> None:
    """Says a table of so many characters at most, without the codes of a terminal: it is also read in a file."""
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
        """Writes what was said so far, and from now on is said, into a file."""
        self._file = _LogFile(path, encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
        self._held.setTarget(self._file)
        self._held.flush()
        self._held.capacity = 0  # from now on each message is passed on at once

    def close(self) -> None:
        """Lets the file go."""
        self._held.close()
        if self._file is not None:
            self._file.close()


def _without_disk_errors(failed: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer has a thread, which would print a traceback before the error comes to us."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


@contextmanager
def messages() -> Iterator[Messages]:
    """Within it, the messages of a run, and the libraries' warnings, go where the run's messages go."""
    kept = Messages()
    handlers = [_ConsoleHandler(), kept._held]
    loggers = [log, *(logging.getLogger(name) for name in LIBRARY_LOGGERS)]
    logging.captureWarnings(True)
    threading.excepthook = _without_disk_errors
    for lightnings_own in (".*LeafSpec.*", ".*broadcast_buffers.*", ".*barrier.*device.*"):  # use of torch
        warnings.filterwarnings("ignore", message=lightnings_own)
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = list(handlers), False
        logger.setLevel(logging.INFO if logger is log else logging.WARNING)
    try:
        yield kept
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = [], propagate
            logger.setLevel(level)
        logging.captureWarnings(False)
        threading.excepthook = threading.__excepthook__
        kept.close()
