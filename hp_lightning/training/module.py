"""The GPT as Lightning trains it: loss, metrics, optimizer and the learning rate's steps."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import lightning as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from hp_lightning.checkpoint import CHECKPOINT_KEY, ValidationHistory, load, load_weights, our_part
from hp_lightning.common.errors import InputError
from hp_lightning.common.failpoints import failpoint
from hp_lightning.common.hardware import device_of
from hp_lightning.data.dataloader import Batch
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.models.gpt import GPT
from hp_lightning.models.loss import IGNORED, language_model_loss, perplexity
from hp_lightning.schema.train import TrainConfig
from hp_lightning.training.compile import compiled
from hp_lightning.training.optim import build_optimizer, clip_gradients
from hp_lightning.training.schedule import Schedule


class GPTModule(L.LightningModule):
    """A GPT with its training.

    Logs, for callbacks, `val/loss` (nats per token, over every validation token), `val/perplexity`, and
    `val/bits_per_char`; the same with `test/`. `train_loss`, the mean of a step's passes, and `grad_norm`, both of the
    last step, are tensors: they cost a wait for the device only when somebody reads them.

    A plain Trainer trains it together with a `CorpusDataModule`, saves it and resumes it; what it saves is a checkpoint
    of hp_lightning, too.

    Args:
        cfg: the run's config; where `cfg.model.vocab_size` is null, it is the data module's and the network is made
            when training starts
        log: whether the metrics go to the Trainer's loggers; a run of hp_lightning writes them itself
    """

    net: GPT
    train_loss: Tensor
    grad_norm: Tensor
    _sums: Tensor  # the loss of all tokens evaluated so far, and how many they are

    def __init__(self, cfg: TrainConfig, log: bool = True) -> None:
        super().__init__()
        self.cfg = cfg
        self._log = log
        if cfg.model.vocab_size is not None:
            self.net = GPT(cfg.model, cfg.regularization)
        # Only training is compiled: its batches always have the same shape.
        self._training_loss = language_model_loss
        if cfg.trainer.compile is True:
            self._training_loss = compiled(language_model_loss, device_of(cfg.trainer.accelerator).type)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, map_location: Any = None, **kwargs: Any) -> Self:  # type: ignore[override]
        """The module with the weights of a checkpoint, whose config is taken from it; nothing in it is executed.

        Args:
            checkpoint_path: of a run, or of a Trainer that trained this module
            map_location: the device of the module; None: the processor
            kwargs: Lightning's others, which have no say here

        Raises:
            InputError: it cannot be read, or is none of hp_lightning's
        """
        trained = load(Path(checkpoint_path))
        module = cls(trained.cfg)
        load_weights(module.net, trained)
        return module.to(map_location)

    def setup(self, stage: str) -> None:
        """Check that the data module cuts and tokenizes as this module's config says.

        Raises:
            InputError: it does not, or there is none to tell the size of the vocabulary
        """
        data = _data(self.trainer)
        if not isinstance(data, CorpusDataModule):
            if not hasattr(self, "net"):
                raise InputError("data.no_module", "model.vocab_size is null: give fit a CorpusDataModule, or set it")
            return
        known, vocab_size = len(data.tokenizer.vocabulary), self.cfg.model.vocab_size
        if data.cfg.seq_len != self.cfg.data.seq_len or known > (vocab_size or known):
            raise InputError(
                "config.conflict",
                f"GPTModule has data.seq_len={self.cfg.data.seq_len} and model.vocab_size={vocab_size}, its "
                f"CorpusDataModule data.seq_len={data.cfg.seq_len} and {known} tokens: make both of one config",
            )

    def configure_model(self) -> None:
        """Make the network, once the data module tells the size of the vocabulary."""
        if not hasattr(self, "net"):
            model = replace(self.cfg.model, vocab_size=len(_data(self.trainer).tokenizer.vocabulary))
            self.cfg = replace(self.cfg, model=model)
            self.net = GPT(model, self.cfg.regularization)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the random numbers of a batch, by (seed, device, step, pass of the step) alone.

        A run that is resumed at any step draws what the unbroken one draws, and no state of them has to be kept.
        """
        pass_of_step = batch_idx % self.trainer.accumulate_grad_batches
        origin = (self.cfg.seed, self.trainer.global_rank, self.trainer.global_step, pass_of_step)
        seed = int(np.random.SeedSequence(origin).generate_state(1)[0])
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` takes 80 times as long
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of the batch, in nats per token."""
        failpoint("training.step")
        loss = self._training_loss(self.net, *batch)
        passes = self.trainer.accumulate_grad_batches
        share = loss.detach() / passes
        self.train_loss = share if batch_idx % passes == 0 else self.train_loss + share
        if self._log and self.trainer.loggers:
            self.log("train/loss", self.train_loss)
        return loss

    def mean_train_loss(self) -> float:
        """`train_loss`, over all devices; every one of them must ask."""
        return float(self.trainer.strategy.reduce(self.train_loss.clone(), reduce_op="mean"))  # in place

    def on_train_batch_end(self, *args: Any) -> None:
        """End the run by asking for a stop, upon which Lightning validates the last step, whatever the interval."""
        if 0 <= self.trainer.max_steps <= self.trainer.global_step:
            self.trainer.should_stop = True

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the mean over all tokens."""
        failpoint("validation.step")
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the mean over all tokens."""
        failpoint("validation.step")
        self._evaluate(batch)

    def on_validation_epoch_start(self) -> None:
        """Reset the sum."""
        self._reset_sums()

    def on_test_epoch_start(self) -> None:
        """Reset the sum."""
        self._reset_sums()

    def on_validation_epoch_end(self) -> None:
        """Step the plateau here, before the checkpoints of this validation are written."""
        loss = self._log_metrics("val")
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self.schedule.after_validation(self.trainer.global_step, loss)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split."""
        self._log_metrics("test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer alone: the schedule is stepped here, see `Schedule`."""
        optim, decay = self.cfg.optim, self.cfg.regularization.weight_decay
        dtype = torch.bfloat16 if str(self.trainer.precision).startswith("bf16") else torch.float32
        optimizer = build_optimizer(self.net, optim, decay, dtype)
        self.schedule = Schedule(optimizer, optim, self.trainer.estimated_stepping_batches)
        if hasattr(self, "_schedule_state"):
            self.schedule.load_state_dict(self._schedule_state)
        return optimizer

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Set the learning rate, then take the step."""
        self.schedule.before_step(self.trainer.global_step)
        super().optimizer_step(*args, **kwargs)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        """Clip the gradients, and keep their norm.

        Lightning's own clipping gives no norm, and refuses fused optimizers in bf16-mixed, where there is no loss
        scale that would stand in the way.
        """
        failpoint("training.gradients")
        self.grad_norm = clip_gradients(optimizer, self.cfg.regularization.gradient_clip_norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the schedule's state, and what makes the file enough by itself, unless a callback has done so."""
        checkpoint["schedule"] = self.schedule.state_dict()
        data = _data(self.trainer)
        if CHECKPOINT_KEY not in checkpoint and isinstance(data, CorpusDataModule):
            checkpoint[CHECKPOINT_KEY] = our_part(self.cfg, data.tokenizer, data.digest, ValidationHistory())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the schedule's state until the schedule is there.

        Raises:
            InputError: it is of a network of another form
        """
        of_checkpoint, model = checkpoint[CHECKPOINT_KEY]["config"]["model"], asdict(self.cfg.model)
        changed = [f"model.{key}={value}" for key, value in model.items() if of_checkpoint[key] != value]
        if changed:
            raise InputError(
                "config.cannot_change", f"{', '.join(changed)}: the checkpoint was trained with other values: use those"
            )
        self._schedule_state = checkpoint["schedule"]

    def _reset_sums(self) -> None:
        precise = torch.float32 if self.device.type == "mps" else torch.float64  # a Mac's GPU has no other
        self._sums = torch.zeros(2, dtype=precise, device=self.device)

    def _evaluate(self, batch: Batch) -> None:
        loss, count = language_model_loss(self.net, *batch), (batch[1] != IGNORED).sum()
        # In place: small tensors kept from every batch would hold all the memory that its logits were in.
        self._sums += torch.stack([loss.to(self._sums.dtype) * count, count.to(self._sums.dtype)])

    def _log_metrics(self, split: str) -> float:
        data = _data(self.trainer)
        # Not by torchmetrics' MeanMetric, which leaves NaN out, and sums in the precision of the network.
        total, count = self.trainer.strategy.reduce(self._sums, reduce_op="sum").tolist()
        loss: float = total / count
        metrics = {
            f"{split}/loss": loss,
            f"{split}/perplexity": perplexity(loss),
            f"{split}/bits_per_char": data.bits_per_char(split, loss),
        }
        self.log_dict(metrics, logger=self._log, sync_dist=True)
        return loss


def _data(trainer: L.Trainer) -> CorpusDataModule:
    data: CorpusDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data
