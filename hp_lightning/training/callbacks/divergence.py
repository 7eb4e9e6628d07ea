"""End a run whose loss is not finite, or far above that of guessing."""

import math
from typing import Any

import lightning as L
import torch
from torch import Tensor

from hp_lightning.common.errors import RunError
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.training.module import GPTModule

TIMES_GUESSING = 3  # a loss is beyond hope above so many times ln V, that of guessing blindly among V tokens
NAMED_DOCUMENTS = 5


class DivergenceGuard(L.Callback):
    """Finds the first step with a loss or gradient that is not finite, or with a loss beyond hope.

    The numbers of each step are compared where they are, on the device; a GPU is waited for only every `every_steps`
    steps and before a checkpoint is written: no checkpoint holds weights from after that step.

    Args:
        vocab_size: tokens that the network chooses among
        every_steps: optimizer steps between two looks, where a look costs a wait
        run: its folder, for the advice
    """

    def __init__(self, vocab_size: int, every_steps: int, run: str) -> None:
        self._bound = TIMES_GUESSING * math.log(vocab_size)
        self._every = every_steps
        self._run = run

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the first bad step."""
        self._step = trainer.global_step
        self._first = torch.full((3,), torch.nan, device=pl_module.device)  # step, loss and gradient norm

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the numbers of the first bad step."""
        assert isinstance(pl_module, GPTModule)
        if trainer.global_step == self._step:  # gradients are being accumulated
            return
        self._step = trainer.global_step
        loss, norm = pl_module.train_loss.float(), pl_module.grad_norm
        bad = ~((loss < self._bound) & norm.isfinite())
        numbers = torch.stack([torch.full_like(loss, self._step), loss, norm])
        self._first = torch.where(bad & self._first[0].isnan(), numbers, self._first)
        waits = pl_module.device.type != "cpu" or trainer.world_size > 1
        if not waits or self._step % self._every == 0:
            self.check(trainer)

    def check(self, trainer: L.Trainer) -> None:
        """Compare the numbers of all devices, for which they wait.

        Raises:
            RunError: there was a bad step
        """
        gathered: Tensor = trainer.strategy.all_gather(self._first)
        rows = [row for row in gathered.view(-1, 3).tolist() if not math.isnan(row[0])]
        if not rows:
            return
        step, loss, norm = min(rows)
        data: CorpusDataModule = trainer.datamodule  # type: ignore[attr-defined]
        documents = data.documents_of_step(int(step))
        named = ", ".join(documents[:NAMED_DOCUMENTS])
        others = f" and {len(documents) - NAMED_DOCUMENTS} more" if len(documents) > NAMED_DOCUMENTS else ""
        if loss < self._bound:
            what = f"the gradients are not finite at step {step:.0f}, the training loss is {loss:.4g}"
        else:
            what = f"the training loss is {_described(loss)} at step {step:.0f}, the gradient norm {norm:.4g}"
        raise RunError(
            "run.gradients_not_finite" if loss < self._bound else "run.diverged",
            f"{what}, on a batch from {named}{others}; {self._advice(trainer)}",
        )

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check, before anything is made with bad weights."""
        self.check(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the validation loss, before a checkpoint is written."""
        loss = trainer.callback_metrics["val/loss"].item()
        if not loss < self._bound:
            raise RunError(
                "run.validation_diverged",
                f"the validation loss is {_described(loss)} after step {trainer.global_step}; {self._advice(trainer)}",
            )

    def _advice(self, trainer: L.Trainer) -> str:
        module = trainer.lightning_module
        assert isinstance(module, GPTModule)
        optim, precision = module.cfg.optim, module.cfg.trainer.precision
        muon = f" optim.muon_lr={optim.muon_lr / 4:g}" if optim.name == "muon" else ""
        exact = "" if precision == "32-true" else f" or trainer.precision=32-true (now {precision})"
        return (
            f"training was stopped. Resume from the last good checkpoint with a lower learning rate, "
            f"resume={self._run} optim.lr={optim.lr / 4:g}{muon}, or start over with a longer optim.warmup_steps "
            f"(now {optim.warmup_steps}){exact}"
        )


def _described(loss: float) -> str:
    return f"{loss:.4g}" if not math.isfinite(loss) else f"{loss:.4g}, far above that of guessing,"
