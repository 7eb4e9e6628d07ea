"""TensorBoard's curves over steps and over tokens, texts and images of a run."""

import os
import textwrap
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import Logger
from torch.utils.tensorboard import SummaryWriter

from hp_lightning.common.files import naming
from hp_lightning.common.run_dir import RunDir

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
    """Writes into the run folder: a run has its folder's name; a resumed run removes what it will write again.

    TensorBoard knows one axis, the step, and purges by steps: curves over tokens are a file in a folder below.
    Lightning's own logger writes hparams.yaml into the run folder, and turns the error of a full disk into one about
    the metric.

    Args:
        run_dir: the run's folder
        kept_until: the last step whose metrics a resumed run keeps; -1 for a new run, which also removes what it wrote
            before it was killed and started over
        tokens_per_step: that an optimizer step sees
        kneser_ney_loss: of the validation split, drawn as a level line into the charts of the loss; None leaves it out
    """

    name, version = "tensorboard", None

    def __init__(self, run_dir: RunDir, kept_until: int, tokens_per_step: int, kneser_ney_loss: float | None) -> None:
        super().__init__()
        self._tokens_per_step = tokens_per_step
        self._kneser_ney_loss = kneser_ney_loss
        self._events = run_dir.events
        with naming(self._events):
            self._by_steps = SummaryWriter(str(run_dir.path), purge_step=kept_until + 1)
            self._by_tokens = SummaryWriter(str(run_dir.by_tokens), purge_step=max(kept_until * tokens_per_step + 1, 0))
            if kept_until < 0:
                self._level(0)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Scalars under their names; losses of training and validation under the tokens seen, too."""
        assert step is not None
        with naming(self._events):
            for name, value in metrics.items():
                self._by_steps.add_scalar(name, value, step)
                split, _, metric = name.partition("/")
                if metric == "loss" and split in ("train", "val"):
                    self._by_tokens.add_scalar(f"loss_by_tokens/{split}", value, step * self._tokens_per_step)
                if name == "val/loss":
                    self._level(step)

    def _level(self, step: int) -> None:
        """Add a point to the line of the n-gram baseline: with each validation, and a resumed run has it once."""
        if self._kneser_ney_loss is not None:
            self._by_steps.add_scalar(KNESER_NEY, self._kneser_ney_loss, step)
            tokens = step * self._tokens_per_step
            self._by_tokens.add_scalar("loss_by_tokens/kneser_ney", self._kneser_ney_loss, tokens)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """A text in Markdown."""
        with naming(self._events):
            self._by_steps.add_text(tag, markdown, step)

    def image(self, tag: str, pixels: npt.NDArray[np.uint8], step: int) -> None:
        """An image, (height, width, 3)."""
        with naming(self._events):
            self._by_steps.add_image(tag, pixels, step, dataformats="HWC")

    def layout(self) -> None:
        """Which curves CUSTOM SCALARS has in one chart."""
        with naming(self._events):
            self._by_steps.add_custom_scalars(LAYOUT)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: Lightning would log what it takes for the settings of a module."""

    def flush(self) -> None:
        """Flush everything to the disk."""
        with naming(self._events):
            for writer in (self._by_steps, self._by_tokens):
                writer.flush()
                newest = max(Path(writer.log_dir).glob(self._events.name), key=lambda path: path.stat().st_mtime_ns)
                with newest.open("rb") as file:
                    os.fsync(file.fileno())

    def finalize(self, status: str) -> None:
        """Close the files; what is added later goes into others."""
        # A run that has failed for want of room would fail of it again, and hide what it failed of.
        with suppress(OSError) if status == "failed" else nullcontext():
            self.flush()
            self._by_steps.close()
            self._by_tokens.close()


def code_block(text: str) -> str:
    """Markdown that shows a text as it is: indented lines are a code block."""
    return textwrap.indent(text, "    ", lambda line: True)
