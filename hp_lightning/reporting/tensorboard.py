"""What TensorBoard shows of a run: curves, the config, what the model writes, the hyperparameters."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from hp_lightning.config import LoggerConfig, TrainConfig, to_plain, to_yaml
from hp_lightning.generation import Sampling, continue_text
from hp_lightning.lightning_module import GPTModule
from hp_lightning.progress import log
from hp_lightning.reporting.hyperparameters import hyperparameters
from hp_lightning.tokenization import Tokenizer

Write = Callable[[SummaryWriter], None]


class Curves(Logger):
    """Writes to `tensorboard/` in the run folder; a resumed run takes away what it will do again.

    What is not known to have come to the disk is kept. Where the disk is full the writer, which cannot go on after an
    error, is replaced as soon as there is room, and all that was kept is written anew.

    Args:
        run_dir: the run's folder
        kept_until: the last step whose figures a resumed run keeps; -1 for a new run, which takes away, too, what it
            wrote before it was killed and began again
    """

    name, version = "tensorboard", None

    def __init__(self, run_dir: Path, kept_until: int) -> None:
        super().__init__()
        self._folder = run_dir / "tensorboard"
        self._writer: SummaryWriter | None = None  # none while the disk is full
        self._purge_step: int | None = kept_until + 1
        self._kept: list[tuple[int, Write]] = []
        self._begin()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Scalars under their names."""
        assert step is not None
        for name, value in metrics.items():
            self._add(step, partial(SummaryWriter.add_scalar, tag=name, scalar_value=value, global_step=step))

    def text(self, tag: str, text: str, step: int) -> None:
        """A text, shown as it is: in Markdown indented lines are a code block."""
        indented = "\n".join("    " + line for line in text.split("\n"))
        self._add(step, partial(SummaryWriter.add_text, tag=tag, text_string=indented, global_step=step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: Lightning would log what it takes for the settings of a module."""

    def row(self, settings: dict[str, Any], metrics: dict[str, float], step: int) -> None:
        """A row of the HPARAMS tab."""
        self.log_metrics(metrics, step)
        for summary in hparams(settings, metrics):  # type: ignore[no-untyped-call]
            self._add(step, partial(_add_summary, summary=summary))

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

    def finalize(self, status: str) -> None:
        """Closes the file; what is added later goes into another."""
        self.flush()
        self._try(SummaryWriter.close)

    def _flush(self, writer: SummaryWriter) -> None:
        writer.flush()
        newest = max(self._folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns)
        with newest.open("rb") as file:
            os.fsync(file.fileno())

    def _add(self, step: int, write: Write) -> None:
        self._kept.append((step, write))
        self._try(write)

    def _begin(self) -> None:
        """A new file; what is in older ones from the step `purge_step` on counts no more."""
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
        log.warning("TensorBoard's file cannot be written (%s): the curves wait for room", error.strerror)


def _add_summary(writer: SummaryWriter, summary: Any) -> None:
    writer._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]


def make_curves(run_dir: Path, cfg: TrainConfig, kept_until: int) -> Curves:
    """The curves of a run, with its config as their first text."""
    curves = Curves(run_dir, kept_until)
    if kept_until < 0:
        curves.text("config", to_yaml(cfg), 0)
    return curves


class Samples(L.Callback):
    """At each validation, what the model writes for a fixed prompt and seed, so that one can watch it learn."""

    def __init__(self, cfg: LoggerConfig, tokenizer: Tokenizer, context: int) -> None:
        self._cfg = cfg
        self._tokenizer = tokenizer
        self._context = context

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Samples with a generator of its own."""
        if not self._cfg.sample_tokens:
            return
        assert isinstance(pl_module, GPTModule)
        sampling = Sampling(max_new_tokens=self._cfg.sample_tokens)
        [text] = continue_text(pl_module.net, self._tokenizer, self._cfg.sample_prompt, self._context, sampling)
        for logger in trainer.loggers:
            if isinstance(logger, Curves):
                logger.text("sample", text, trainer.global_step)


def log_hyperparameters(trainer: L.Trainer, cfg: TrainConfig, metrics: dict[str, float]) -> None:
    """A row of the HPARAMS tab: every setting, by the same names in every run, and what was reached.

    It stands one step after the last, so that a run that goes on from there takes it away and writes it anew.
    """
    settings = hyperparameters(to_plain(cfg))
    flat = {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in settings.items()}
    for logger in trainer.loggers:
        if isinstance(logger, Curves):
            logger.row(flat, metrics, trainer.global_step + 1)
            logger.flush()
