"""What TensorBoard shows of a run: curves over steps and over tokens, texts, images."""

import os
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import Logger
from torch.utils.tensorboard import SummaryWriter

from hp_lightning.common.console import log
from hp_lightning.common.run_dir import RunDir

Write = Callable[[SummaryWriter], None]


class EventFile:
    """One file in a folder, in which there may be older ones of the same run.

    What is not known to have come to the disk is kept. Where the disk is full the writer, which cannot go on after an
    error, is replaced as soon as there is room, and all that was kept is written again.

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


KNESER_NEY = "kneser_ney/val_loss"

# The tab CUSTOM SCALARS: by category and chart, what its tags match.
LAYOUT = {
    "loss": {
        "training and validation": ["Multiline", ["^train/loss$", "^val/loss$", f"^{KNESER_NEY}$"]],
        "training and validation, over tokens": ["Multiline", ["^loss_by_tokens/"]],
        "generalization gap": ["Multiline", ["^val/gap$"]],
    },
    "comparable": {
        "perplexity": ["Multiline", ["^val/perplexity$"]],
        "bits per character": ["Multiline", ["^val/bits_per_char$"]],
    },
}


class TensorBoardLogger(Logger):
    """Writes into the run folder, so that a run has its folder's name; a resumed run takes away what it will do again.

    TensorBoard knows one axis, the step, and takes away by steps: curves over tokens are a file in a folder below.

    Args:
        run_dir: the run's folder
        kept_until: the last step whose figures a resumed run keeps; -1 for a new run, which takes away, too, what it
            wrote before it was killed and began again
        tokens_per_step: that an optimizer step sees
        kneser_ney_loss: of the validation split, drawn as a level line into the charts of the loss; None leaves it out
    """

    name, version = "tensorboard", None

    def __init__(self, run_dir: RunDir, kept_until: int, tokens_per_step: int, kneser_ney_loss: float | None) -> None:
        super().__init__()
        self._tokens_per_step = tokens_per_step
        self._kneser_ney_loss = kneser_ney_loss
        self._by_steps = EventFile(run_dir.path, kept_until + 1)
        self._by_tokens = EventFile(run_dir.by_tokens, max(kept_until * tokens_per_step + 1, 0))
        if kept_until < 0:
            self._level(0)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Scalars under their names; losses of training and validation under the tokens seen, too."""
        assert step is not None
        for name, value in metrics.items():
            self._scalar(self._by_steps, name, value, step)
            part, _, figure = name.partition("/")
            if figure == "loss" and part in ("train", "val"):
                self._scalar(self._by_tokens, f"loss_by_tokens/{part}", value, step * self._tokens_per_step)
            if name == "val/loss":
                self._level(step)

    def _level(self, step: int) -> None:
        """A point of the Kneser-Ney model's line: with each validation, so that a resumed run has it once."""
        if self._kneser_ney_loss is not None:
            self._scalar(self._by_steps, KNESER_NEY, self._kneser_ney_loss, step)
            tokens = step * self._tokens_per_step
            self._scalar(self._by_tokens, "loss_by_tokens/kneser_ney", self._kneser_ney_loss, tokens)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """A text in Markdown."""
        self._by_steps.add(step, partial(SummaryWriter.add_text, tag=tag, text_string=markdown, global_step=step))

    def image(self, tag: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        """An image, (height, width, 3)."""
        write = partial(SummaryWriter.add_image, tag=tag, img_tensor=pixels, global_step=step, dataformats="HWC")
        self._by_steps.add(step, write)

    def layout(self) -> None:
        """Which curves CUSTOM SCALARS has in one chart."""
        self._by_steps.add(0, partial(SummaryWriter.add_custom_scalars, layout=LAYOUT))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: Lightning would log what it takes for the settings of a module."""

    def flush(self) -> None:
        """Brings everything to the disk, if there is room for it."""
        self._by_steps.flush()
        self._by_tokens.flush()

    def finalize(self, status: str) -> None:
        """Closes the files; what is added later goes into others."""
        self._by_steps.close()
        self._by_tokens.close()

    def _scalar(self, file: EventFile, name: str, value: float, step: int) -> None:
        file.add(step, partial(SummaryWriter.add_scalar, tag=name, scalar_value=value, global_step=step))


def code_block(text: str) -> str:
    """Markdown that shows a text as it is: indented lines are a code block."""
    return textwrap.indent(text, "    ", lambda line: True)
