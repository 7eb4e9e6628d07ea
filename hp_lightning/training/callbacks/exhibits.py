"""What is shown of a network while it learns, and takes time to make."""

from abc import ABC, abstractmethod

import lightning as L

from hp_lightning.models.gpt import GPT
from hp_lightning.training.callbacks.metrics_csv import RunLog
from hp_lightning.training.loggers.tensorboard import Curves
from hp_lightning.training.module import GPTModule


class Exhibit(L.Callback, ABC):
    """Something shown at the first validation, at later ones where the budget affords it, and of the best at the end.

    Args:
        curves: where it is shown
        run_log: knows the seconds of training and what they afford; called before this at a validation
    """

    kind: str  # by which the budget counts

    def __init__(self, curves: Curves, run_log: RunLog) -> None:
        self.curves = curves
        self.run_log = run_log

    @abstractmethod
    def show(self, net: GPT, step: int) -> None:
        """Makes it and writes it down, without a trace in the network or in the random numbers of training."""

    def wanted(self, step: int) -> bool:
        """Whether there is something new to show at this validation."""
        return True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shows what is wanted and affordable."""
        assert isinstance(pl_module, GPTModule)
        step = trainer.global_step
        if self.wanted(step) and self.run_log.budget.affords(self.kind, self.run_log.seconds):
            with self.run_log.budget.spending(self.kind):
                self.show(pl_module.net, step)
