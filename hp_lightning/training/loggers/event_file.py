"""TensorBoard's event files, as a run that is stopped and resumed, and whose disk may be full, has to write them."""

import os
from collections.abc import Callable
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from hp_lightning.common.console import log

Write = Callable[[SummaryWriter], None]


class EventFile:
    """One file in a folder, in which there may be older ones of the same run.

    What is not known to have come to the disk is kept. Where the disk is full the writer, which cannot go on after an
    error, is replaced as soon as there is room, and all that was kept is written anew.

    Args:
        folder: what TensorBoard takes for a run; made where it is missing
        purge_step: what older files have from this step on counts no more
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None  # none while the disk is full
        self._purge_step: int | None = purge_step
        self._kept: list[tuple[int, Write]] = []
        self._begin()

    def add(self, step: int, write: Write) -> None:
        """Writes, or keeps until there is room."""
        self._kept.append((step, write))
        self._try(write)

    def flush(self) -> None:
        """Brings everything to the disk, if there is room for it."""
        if self._writer is None:
            self._purge_step = min((step for step, _ in self._kept), default=None)
            self._begin()
            for _, write in self._kept:
                self._try(write)
        self._try(self._flush)
        if self._writer is not None:
            self._kept = []

    def close(self) -> None:
        """Closes the file; what is added later goes into another."""
        self.flush()
        self._try(SummaryWriter.close)

    def _flush(self, writer: SummaryWriter) -> None:
        writer.flush()
        newest = max(self._folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns)
        with newest.open("rb") as file:
            os.fsync(file.fileno())

    def _begin(self) -> None:
        try:
            self._writer = SummaryWriter(str(self._folder), purge_step=self._purge_step)
        except OSError as error:
            self._give_up(error)

    def _try(self, write: Write) -> None:
        if self._writer is not None:
            try:
                write(self._writer)
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        log.warning("TensorBoard's file in %s cannot be written (%s): it waits for room", self._folder, error.strerror)
