"""The course of the learning rate: a warm-up, a schedule over the run's length, and the plateau's say."""

import math
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hp_lightning.common.failpoints import failpoint
from hp_lightning.schema.optim import OptimConfig


class Schedule:
    """The rate of every group is what it was built with, times the factor of the step, times that of the plateau.

    The factor rises linearly from 0 to 1 in the warm-up, and then

    - `plateau`: stays 1;
    - `cosine`: falls to `final_lr_fraction`, reached after the last step, as half a cosine (Loshchilov & Hutter 2017,
      SGDR, arXiv:1608.03983, eq. 5);
    - `wsd`, warm-up, stable, decay: stays 1, and falls linearly in the last `decay_fraction` of the steps (Hägele
      et al. 2024, arXiv:2405.18392).

    The plateau's factor falls where the validation loss stands still, whatever the schedule. Lightning steps a plateau
    scheduler after it has written the checkpoints of the same validation, and a resumed run would lose that step;
    this one is stepped by `GPTModule`, before.

    Args:
        optimizer: as it was built; its state may be loaded after this
        total_steps: of the run; infinite where nobody knows
    """

    def __init__(self, optimizer: torch.optim.Optimizer, cfg: OptimConfig, total_steps: float) -> None:
        self._optimizer = optimizer
        self._cfg = cfg
        self._total_steps = total_steps
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        # An optimizer of nothing whose rate is the plateau's factor.
        self._factor = torch.optim.SGD([torch.zeros(0)], lr=1.0)
        plateau = cfg.plateau
        if plateau.patience is not None:
            least = min(plateau.min_lr / cfg.lr, 1.0)
            self._plateau = ReduceLROnPlateau(
                self._factor, factor=plateau.factor, patience=plateau.patience, min_lr=least, eps=0.0
            )

    def before_step(self, step: int) -> None:
        """To be called before optimizer step `step`, counted from 0."""
        factor = self._factor_of(step) * self._factor.param_groups[0]["lr"]
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def after_validation(self, step: int, val_loss: float) -> None:
        """To be called with the validation loss after `step` optimizer steps."""
        failpoint("validation.plateau")
        if self._cfg.plateau.patience is not None and step >= self._cfg.warmup_steps and math.isfinite(val_loss):
            self._plateau.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        """The plateau's memory; all else follows from the step."""
        memory = {"factor": self._factor.param_groups[0]["lr"]}
        if self._cfg.plateau.patience is not None:
            state: dict[str, Any] = self._plateau.state_dict()
            memory |= {key: state[key] for key in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")}
        return memory

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state; factor and patience stay as this run's config has them."""
        memory = dict(state)
        self._factor.param_groups[0]["lr"] = memory.pop("factor")
        if self._cfg.plateau.patience is not None:
            self._plateau.load_state_dict(memory)

    def _factor_of(self, step: int) -> float:
        """Without the plateau's."""
        warmup, total = self._cfg.warmup_steps, self._total_steps
        if step < warmup:
            return (step + 1) / warmup
        if self._cfg.schedule == "plateau" or math.isinf(total):
            return 1.0
        floor = self._cfg.final_lr_fraction
        if self._cfg.schedule == "cosine":
            progress = min((step - warmup) / max(total - warmup, 1), 1.0)
            return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
        decay = max(min(round(self._cfg.decay_fraction * total), total - warmup), 1)
        return floor + (1 - floor) * min(max(total - step, 0) / decay, 1.0)
