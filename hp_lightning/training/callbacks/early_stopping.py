"""End a run whose validation loss has stopped falling."""

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from hp_lightning.training.callbacks.resumable_checkpoint import ResumableCheckpoint


class EarlyStopping(Checkpoint):
    """Stops training after `patience` validations without a better loss (Prechelt 1998, Early Stopping: But When?).

    The validations are counted in the record that every checkpoint has: a resumed run counts on. It is a
    `Checkpoint` because Lightning calls those after all other callbacks, in their order: this one after the one that
    records the loss.

    Args:
        patience: `regularization.early_stopping_patience`
        checkpoints: has the record
    """

    def __init__(self, patience: int | None, checkpoints: ResumableCheckpoint) -> None:
        self._patience = patience
        self._checkpoints = checkpoints

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take no further step in a run that was out of patience when it was stopped."""
        self._stop_if_due(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the run where this validation was the last that it had patience for."""
        self._stop_if_due(trainer)

    def _stop_if_due(self, trainer: L.Trainer) -> None:
        if self._checkpoints.record.has_stalled(self._patience):
            trainer.should_stop = True
