"""Ending a run on a signal, with nothing lost."""

import signal
from types import FrameType
from typing import Any

import lightning as L

from hp_lightning.checkpoint import Checkpoints
from hp_lightning.errors import Interrupted
from hp_lightning.runs import command, last_checkpoint, script

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STEPS_BETWEEN_TALKS = 10  # in which several processes tell each other of a signal, for which a GPU has to wait


class StopOnSignal(L.Callback):
    """On Ctrl-C or SIGTERM the step that is under way is finished, `last.ckpt` is written, and the run ends.

    A second signal ends the process at once.

    Args:
        checkpoints: writes the checkpoint
        val_every: optimizer steps between validations; one that is due is still made, since Lightning would not make up
            for it after resuming
    """

    def __init__(self, checkpoints: Checkpoints, val_every: int) -> None:
        self._checkpoints = checkpoints
        self._val_every = val_every
        self._received: int | None = None
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes the signals over from Lightning, which ends without a checkpoint and, on SIGTERM, with status 0."""
        self._handlers = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves and leaves, unless gradients are being accumulated or a validation is due."""
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        validates = trainer.global_step % self._val_every == 0 or trainer.global_step >= trainer.max_steps
        if between_steps and not validates and self._stop_is_wanted(trainer):
            self._checkpoints.save_last(trainer)
            self._leave()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Leaves after a validation, which has saved."""
        if self._checkpoints.last_step == trainer.global_step and self._stop_is_wanted(trainer):
            self._leave()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gives the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            # KeyboardInterrupt, unlike the default of other signals, lets the terminal be put in order.
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.raise_signal(number)
        self._received = number

    def _stop_is_wanted(self, trainer: L.Trainer) -> bool:
        """Whether this process, or one beside it, has received a signal: all of them must leave at the same step."""
        received = self._received is not None
        if trainer.world_size > 1 and trainer.global_step % STEPS_BETWEEN_TALKS == 0:
            return trainer.strategy.reduce_boolean_decision(received, all=False)
        return received and trainer.world_size == 1

    def _leave(self) -> None:
        run_dir = self._checkpoints.run_dir
        received = self._received or signal.SIGTERM  # where another process received it
        raise Interrupted(
            f"stopped by {signal.Signals(received).name}, saved in {last_checkpoint(run_dir)}; "
            f"go on with: {command('python', script('train.py'), f'resume={run_dir}')}",
            received,
        )
