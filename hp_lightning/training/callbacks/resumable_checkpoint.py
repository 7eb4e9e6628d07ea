"""Save the state of a run: when, and whole or not at all, whatever happens meanwhile."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from hp_lightning.checkpoint import CHECKPOINT_KEY, LoadedCheckpoint, ValidationHistory, our_part, write_checkpoint
from hp_lightning.common.failpoints import failpoint
from hp_lightning.common.run_dir import RunDir
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.schema.train import TrainConfig
from hp_lightning.training.module import GPTModule

STEPS_BETWEEN_TALKS = 10  # in which several processes tell each other that it is time, for which a GPU has to wait


def wanted_anywhere(trainer: L.Trainer, here: bool, every: int) -> bool:
    """Whether any process of the run wants something that all of them must do at the same step.

    Several processes ask each other every so many steps.
    """
    if trainer.world_size == 1:
        return here
    return trainer.global_step % every == 0 and trainer.strategy.reduce_boolean_decision(here, all=False)


@contextmanager
def one_error(trainer: L.Trainer) -> Iterator[None]:
    """Within it the first process writes: where it cannot, all processes raise its error, and none waits for another.

    Raises:
        OSError: a file cannot be written
    """
    failed: OSError | None = None
    try:
        yield
    except OSError as error:
        failed = error
    failed = trainer.strategy.broadcast(failed)
    if failed is not None:
        raise failed


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a file of another name, flushes it to the disk and renames it: a checkpoint is whole or absent."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace what stood at `path`, the run's `last.ckpt`, in one step, and keep it as the previous checkpoint.

        Args:
            storage_options: the paths of further copies
        """
        write_checkpoint(checkpoint, Path(path), storage_options)


class ResumableCheckpoint(Checkpoint):
    """Saves `last.ckpt` at every validation and between them, `best.ckpt` at the lowest loss.

    The record holds no paths: a run folder can be moved.

    Args:
        run_dir: the run's folder
        data: what is trained on
        cfg: the run's config
        val_every: optimizer steps between two validations
        resumed: the checkpoint that the run resumes from; None for a new run
        check: raises where the run has gone wrong; asked before anything is saved
    """

    def __init__(
        self,
        run_dir: RunDir,
        data: CorpusDataModule,
        cfg: TrainConfig,
        val_every: int,
        resumed: LoadedCheckpoint | None,
        check: Callable[[L.Trainer], None],
    ) -> None:
        self.run_dir = run_dir
        self.record = ValidationHistory() if resumed is None else resumed.record
        self.saved_step = -1 if resumed is None else resumed.step
        self._data = data
        self._cfg = cfg.checkpoint
        self._val_every = val_every
        self._check = check

    def validation_follows(self, trainer: L.Trainer) -> bool:
        """Whether the step that has just been taken is one of those that are validated."""
        return trainer.global_step % self._val_every == 0 or trainer.global_step >= trainer.max_steps

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock; make the validation before which a resumed run was stopped.

        Lightning would continue with the next step; and of an epoch that had no batch left it would take one more, or
        never end.
        """
        self._plan_next()
        epoch_loop = trainer.fit_loop.epoch_loop
        if self.record.validation_due:
            epoch_loop.val_loop.restarting = False  # from its first batch
            trainer.validating = True
            epoch_loop.val_loop.run()
            trainer.training = True
        if epoch_loop.batch_progress.current.completed >= trainer.num_training_batches:
            epoch_loop.batch_progress.reset_on_run()
            epoch_loop.restarting = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time, unless gradients are being accumulated or the validation that follows will save."""
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if between_steps and not self.validation_follows(trainer) and self._is_time(trainer):
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the loss and save; a loss that could not be saved is forgotten."""
        loss, step = trainer.callback_metrics["val/loss"].item(), trainer.global_step
        best = sorted([*self.record.best, (loss, step)])[: self._cfg.top_k]
        since = 0 if loss < self.record.best_loss else self.record.validations_since_best + 1
        names = [self.run_dir.best_checkpoint] if since == 0 else []
        if self._cfg.top_k > 1 and (loss, step) in best:
            names.append(self.run_dir.top_checkpoint(loss, step))
        before, self.record = self.record, ValidationHistory(best, since)
        try:
            self.save(trainer, names)
        except OSError:
            self.record = before
            raise
        if trainer.is_global_zero:
            self._remove_surpassed()

    def save(self, trainer: L.Trainer, names: Sequence[Path] = (), validation_due: bool = False) -> None:
        """Write the checkpoint to resume from.

        Args:
            trainer: between two steps
            names: of further copies
            validation_due: whether the step is one that is validated, and was not yet

        Raises:
            OSError: it cannot be written, and the one before is still there
        """
        failpoint("checkpoint.save")
        self._check(trainer)
        self.record.validation_due = validation_due
        with one_error(trainer):
            try:
                trainer.save_checkpoint(self.run_dir.last_checkpoint, storage_options=names)
            except OSError:
                trainer.strategy.barrier()  # where the other processes wait
                raise
        self.saved_step = trainer.global_step
        self._plan_next()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what makes the file enough by itself."""
        assert isinstance(pl_module, GPTModule)
        checkpoint[CHECKPOINT_KEY] = our_part(pl_module.cfg, self._data.tokenizer, self._data.digest, self.record)

    def _plan_next(self) -> None:
        minutes = self._cfg.every_minutes
        self._next = float("inf") if minutes is None else time.monotonic() + 60 * minutes

    def _is_time(self, trainer: L.Trainer) -> bool:
        every = self._cfg.every_steps
        if every is not None and trainer.global_step % every == 0:
            return True
        if self._cfg.every_minutes is None:
            return False
        return wanted_anywhere(trainer, time.monotonic() >= self._next, STEPS_BETWEEN_TALKS)

    def _remove_surpassed(self) -> None:
        """Remove checkpoints that are no longer among the best `top_k`, or that a killed run had written too soon."""
        kept = {self.run_dir.top_checkpoint(loss, step) for loss, step in self.record.best}
        for path in self.run_dir.top_checkpoints():
            if path not in kept or self._cfg.top_k == 1:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
