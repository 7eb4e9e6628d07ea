"""The metrics of a run, step by step: metrics.csv and the loggers."""

import csv
import io
import math
import os
import time
from typing import Any

import lightning as L

from hp_lightning.common.console import log
from hp_lightning.common.failpoints import failpoint
from hp_lightning.common.files import atomic_write_text, naming
from hp_lightning.common.run_dir import RunDir
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.training.callbacks.resumable_checkpoint import one_error
from hp_lightning.training.loggers.tensorboard import TensorBoardLogger
from hp_lightning.training.module import GPTModule

COLUMNS = (
    "step", "tokens", "seconds", "train/loss", "grad_norm", "lr", "tokens_per_second", "mfu",
    "val/loss", "val/perplexity", "val/bits_per_char", "val/gap",
)  # fmt: skip
FIRST_METRIC = COLUMNS.index("train/loss")
VALIDATED = ("val/loss", "val/perplexity", "val/bits_per_char")


class MetricsCSV(L.Callback):
    """Writes every metric under the number of optimizer steps that had been taken.

    Lightning's own logging counts batches and loses count when a run is resumed; here a resumed run removes the rows
    after its checkpoint and writes on in the same files.

    Args:
        run_dir: the run's folder; of several processes the first one alone writes there
        every_steps: optimizer steps between two rows
        kept_until: the last step whose metrics a resumed run keeps; -1 for a new run
        flops_share: times tokens per second it is the model FLOP/s utilisation (Chowdhery et al. 2022, PaLM,
            arXiv:2204.02311, appendix B), here of the rate at which the machine multiplies large matrices
    """

    def __init__(self, run_dir: RunDir, every_steps: int, kept_until: int, flops_share: float) -> None:
        self._path, self._summary = run_dir.metrics, run_dir.summary
        self._every = every_steps
        self._kept_until = kept_until
        self._flops_share = flops_share
        self.has_started = False  # whether a step was taken up; until then nothing of an older session is touched
        self._loss_sum, self._losses = 0.0, 0  # of the rows with a training loss since the last validation
        self._paused: float | None = None  # since when a validation stops the clock
        self.seconds = 0.0  # of training, without validation, over all sessions
        self.latest: dict[str, float] = {}  # the newest value of every metric
        self.best: dict[str, float] = {}  # step and metrics of the validation with the lowest loss

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open metrics.csv, without the rows that a resumed run will write again."""
        self._step = self._logged_step = trainer.global_step
        self.has_started = True
        self._clock = self._logged_clock = time.monotonic()
        with one_error(trainer):
            if trainer.is_global_zero:
                self._open(trainer)

    def _open(self, trainer: L.Trainer) -> None:
        rows = []
        if self._path.exists():
            try:
                with self._path.open(newline="") as file:
                    rows = [row for row in csv.DictReader(file) if _is_whole(row) and self._is_kept(row)]
            except (ValueError, KeyError, csv.Error) as error:
                aside = self._path.with_suffix(".damaged")
                log.warning("%s is damaged (%s): moved to %s; starting a new one", self._path, error, aside)
                self._path.replace(aside)
        self._summary.unlink(missing_ok=True)  # of an earlier end
        content = io.StringIO()
        writer = csv.DictWriter(content, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        atomic_write_text(self._path, content.getvalue())
        if rows and int(rows[-1]["step"]) > self._kept_until:  # of a step whose validation is due
            metrics = {key: float(rows[-1][key]) for key in COLUMNS[FIRST_METRIC:] if rows[-1][key]}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=self._step)

    def _is_kept(self, row: dict[str, str]) -> bool:
        """Whether the checkpoint is of this row's step or later; where its validation is due, of training alone."""
        step = int(row["step"])
        return step <= self._kept_until or (step == self._step and not row["val/loss"])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock again after a validation and what other callbacks do at its end."""
        if self._paused is not None:
            self._clock = time.monotonic()
            self._logged_clock += self._clock - self._paused
            self._paused = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the metrics of training, every so many optimizer steps."""
        step = trainer.global_step
        if step == self._step:  # gradients are being accumulated
            return
        self._step = step
        if step % self._every:
            return
        assert isinstance(pl_module, GPTModule)
        data = _data(trainer)
        loss = pl_module.mean_train_loss()  # waits for the device, so the clock is read after it
        now = time.monotonic()
        speed = (step - self._logged_step) * data.tokens_per_step / (now - self._logged_clock)
        self._logged_step, self._logged_clock = step, now
        metrics = {
            "train/loss": loss,
            "grad_norm": pl_module.grad_norm.item(),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "tokens_per_second": speed,
            "mfu": speed * self._flops_share,
        }
        self._loss_sum, self._losses = self._loss_sum + loss, self._losses + 1
        self._write(trainer, metrics, {})

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._count_seconds()
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the metrics of validation, and log those of the best so far, which the HPARAMS tab shows."""
        failpoint("validation.logged")
        logged = trainer.callback_metrics
        metrics = {key: logged[key].item() for key in VALIDATED} | self._gap(logged["val/loss"].item())
        if metrics["val/loss"] < self.best.get("val/loss", math.inf):
            self.best = {"step": trainer.global_step, **metrics}
        self._write(trainer, metrics, {f"best/{key}": value for key, value in self.best.items()})

    def _gap(self, val_loss: float) -> dict[str, float]:
        """The generalization gap: validation loss minus the mean training loss of the rows since the last validation.

        Where there are none, the newest one serves. Dropout makes training losses higher, and the gap
        smaller than between the losses of one network on both splits; it can be below zero.
        """
        if not self._losses and "train/loss" not in self.latest:
            return {}
        train_loss = self._loss_sum / self._losses if self._losses else self.latest["train/loss"]
        self._loss_sum, self._losses = 0.0, 0
        return {"val/gap": val_loss - train_loss}

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Flush to the disk what precedes a checkpoint, before the checkpoint: a resumed run writes on after it."""
        if not trainer.is_global_zero:
            return
        with naming(self._path), self._path.open("ab") as file:
            os.fsync(file.fileno())
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.flush()

    def state_dict(self) -> dict[str, Any]:
        """The seconds spent so far, the newest and the best metrics, and what the next gap is made of."""
        self._count_seconds()
        return {
            "seconds": self.seconds,
            "latest": dict(self.latest),
            "best": dict(self.best),
            "losses": (self._loss_sum, self._losses),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue to count."""
        self.seconds = state_dict["seconds"]
        self.latest, self.best = dict(state_dict["latest"]), dict(state_dict["best"])
        self._loss_sum, self._losses = state_dict["losses"]

    def _count_seconds(self) -> None:
        if self._paused is None:
            now = time.monotonic()
            self.seconds += now - self._clock
            self._clock = now

    def _write(self, trainer: L.Trainer, metrics: dict[str, float], only_logged: dict[str, float]) -> None:
        self._count_seconds()
        self.latest.update(metrics)
        step = trainer.global_step
        row = {"step": step, "tokens": step * _data(trainer).tokens_per_step, "seconds": round(self.seconds, 3)}
        with one_error(trainer):
            if trainer.is_global_zero:
                failpoint("metrics.append")
                with naming(self._path), self._path.open("a", newline="") as file:
                    csv.DictWriter(file, COLUMNS).writerow({**row, **metrics})
                for logger in trainer.loggers:
                    logger.log_metrics({**metrics, **only_logged}, step=step)


def _is_whole(row: dict[str, str | None]) -> bool:
    """Whether a killed run had written the row to its end."""
    return None not in row.values()


def _data(trainer: L.Trainer) -> CorpusDataModule:
    data: CorpusDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data
