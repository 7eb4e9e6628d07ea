"""Parameter groups, optimizers and the learning rate's course."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hp_lightning.config import OptimConfig, PlateauConfig


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay; biases and the weights of norms, which only shift and scale, without."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def build_optimizer(module: nn.Module, cfg: OptimConfig, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) or Adam (Kingma & Ba 2015, arXiv:1412.6980)."""
    optimizers: dict[str, type[torch.optim.Adam]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    groups = parameter_groups(module, weight_decay)
    return optimizers[cfg.name](groups, lr=cfg.lr, betas=(cfg.betas[0], cfg.betas[1]), eps=cfg.eps, fused=True)


def clip_gradients(optimizer: torch.optim.Optimizer, bound: float | None) -> Tensor:
    """Clips by the norm over all parameters (Pascanu et al. 2013, arXiv:1211.5063), and gives that norm.

    The fused kernels divide the gradients by `grad_scale` while they take the step, which saves a pass over them.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).float()
    if bound is not None:
        optimizer.grad_scale = (norm / bound).clamp(min=1)  # type: ignore[attr-defined]
    return norm


class WarmupPlateau:
    """The rate rises linearly over the first steps; from then on it falls where the validation loss stands still.

    Lightning steps a plateau scheduler after it has written the checkpoints of the same validation, so that a resumed
    run would lose that step; this one is stepped by `GPTModule`, before.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, cfg: PlateauConfig, lr: float, warmup_steps: int) -> None:
        self._optimizer = optimizer
        self._lr = lr
        self._warmup_steps = warmup_steps
        self._plateau = ReduceLROnPlateau(optimizer, factor=cfg.factor, patience=cfg.patience, min_lr=cfg.min_lr)

    def before_step(self, step: int) -> None:
        """To be called before optimizer step `step`, counted from 0."""
        if step < self._warmup_steps:
            for group in self._optimizer.param_groups:
                group["lr"] = self._lr * (step + 1) / self._warmup_steps

    def after_validation(self, step: int, val_loss: float) -> None:
        """To be called with the validation loss after `step` optimizer steps."""
        if step >= self._warmup_steps and math.isfinite(val_loss):
            self._plateau.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        """The plateau's memory; the learning rate itself is in the optimizer's state."""
        state: dict[str, Any] = self._plateau.state_dict()
        return {key: state[key] for key in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up a saved memory; factor and patience stay as this run's config has them."""
        self._plateau.load_state_dict(state)
