"""End a run on a signal, with nothing lost."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import lightning as L

from hp_lightning.common import slurm
from hp_lightning.common.command_line import IN_SWEEP, own_command
from hp_lightning.common.errors import SIGNALS, Interrupted
from hp_lightning.training.callbacks.resumable_checkpoint import (
    STEPS_BETWEEN_TALKS,
    ResumableCheckpoint,
    wanted_anywhere,
)

SECONDS_BETWEEN_SIGNALS = 1  # those that come sooner are one: a terminal and a program around the run may both send it
OF_SLURM = (signal.SIGUSR1, signal.SIGUSR2)  # the second is submitit's


class GracefulShutdown(L.Callback):
    """On a signal the step that is under way is finished, `last.ckpt` is written, and the run ends.

    Between the last step and its validation there is nothing to resume from: that one validation is finished first.
    SIGUSR1 in a job of SLURM means that its time is nearly up: there the job asks to be started again, too. A second
    signal, a second later or more, ends the process at once.
    """

    def __init__(self, checkpoints: ResumableCheckpoint) -> None:
        self._checkpoints = checkpoints
        self._received: int | None = None
        self._received_at = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over from Lightning, which ends without a checkpoint and, on SIGTERM, with status 0."""
        if threading.current_thread() is not threading.main_thread():  # which alone may
            return
        numbers = SIGNALS if slurm.job_id() is None else (*SIGNALS, *OF_SLURM)
        for number in numbers:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, self._handle)  # Lightning puts the old ones back in the end
        if trainer.received_sigterm:  # before
            self._received = signal.SIGTERM

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave, unless gradients are being accumulated."""
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if between_steps and trainer.global_step < trainer.max_steps and self._stop_is_wanted(trainer):
            self._save_and_leave(trainer)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Leave a validation, which is made again later; several processes, which would have to agree, finish it."""
        if self._received is not None and trainer.world_size == 1 and trainer.global_step < trainer.max_steps:
            self._save_and_leave(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Leave after a validation, which has saved."""
        if self._checkpoints.saved_step == trainer.global_step and self._stop_is_wanted(trainer):
            self._leave(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave before the test."""
        if trainer.strategy.reduce_boolean_decision(self._received is not None, all=False):
            self._leave(trainer)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None and time.monotonic() - self._received_at < SECONDS_BETWEEN_SIGNALS:
            return
        if self._received is not None:
            # KeyboardInterrupt, unlike the default of other signals, lets the terminal be put in order.
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.raise_signal(number)
        self._received, self._received_at = number, time.monotonic()

    def _stop_is_wanted(self, trainer: L.Trainer) -> bool:
        """Whether any process of the run has received a signal: all of them must leave at the same step."""
        on_processor = trainer.strategy.root_device.type == "cpu"
        return wanted_anywhere(trainer, self._received is not None, 1 if on_processor else STEPS_BETWEEN_TALKS)

    def _save_and_leave(self, trainer: L.Trainer) -> None:
        if self._checkpoints.saved_step != trainer.global_step:
            self._checkpoints.save(trainer, validation_due=self._checkpoints.validation_follows(trainer))
        self._leave(trainer)

    def _leave(self, trainer: L.Trainer) -> None:
        run_dir = self._checkpoints.run_dir
        received = self._received or signal.SIGTERM  # where another process received it
        saved = f"checkpoint saved to {run_dir.last_checkpoint}"
        if received in OF_SLURM and trainer.is_global_zero and IN_SWEEP not in os.environ:
            saved += f"; {slurm.requeue()}"
        raise Interrupted(
            "run.interrupted",
            f"stopped by {signal.Signals(received).name}, {saved}; "
            f"resume with: {own_command('train', f'resume={run_dir}')}",
            received,
        )
