"""Parameter groups, optimizers, and the clipping of gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hp_lightning.schema.optim import OptimConfig
from hp_lightning.training.muon import Muon

Group = dict[str, Any]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[Group]:
    """Matrices with weight decay; biases and the weights of norms, which only shift and scale, without."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def build_optimizer(
    module: nn.Module, cfg: OptimConfig, weight_decay: float, dtype: torch.dtype = torch.float32
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), Adam (Kingma & Ba 2015, arXiv:1412.6980), or Muon and AdamW.

    Args:
        weight_decay: of matrices
        dtype: in which Muon makes its steps orthogonal
    """
    matrices, other = parameter_groups(module, weight_decay)
    adam: type[torch.optim.Adam] = torch.optim.Adam if cfg.name == "adam" else torch.optim.AdamW

    def build_adam(*groups: Group) -> torch.optim.Adam:
        return adam(groups, lr=cfg.lr, betas=(cfg.betas[0], cfg.betas[1]), eps=cfg.eps, fused=True)

    if cfg.name != "muon":
        return build_adam(matrices, other)
    looked_up, hidden = _split_off(matrices, _tables(module))
    muon = Muon(hidden["params"], cfg.muon_lr, weight_decay, cfg.muon_momentum, dtype)
    return MuonWithAdamW(build_adam(looked_up, other), muon)


def state_bytes(module: nn.Module, cfg: OptimConfig) -> int:
    """Size of the weights and of what the optimizer keeps for each: two averages, of Muon's one; all in float32."""
    numbers = 3 * sum(parameter.numel() for parameter in module.parameters())
    if cfg.name == "muon":
        _, hidden = _split_off(parameter_groups(module, 0.0)[0], _tables(module))
        numbers -= sum(parameter.numel() for parameter in hidden["params"])
    return 4 * numbers


def _tables(module: nn.Module) -> list[nn.Module]:
    """The layers whose matrices have a row per token or position."""
    return [layer for name, layer in module.named_modules() if name == "head" or isinstance(layer, nn.Embedding)]


def _split_off(group: Group, layers: list[nn.Module]) -> tuple[Group, Group]:
    """The weights of some layers, and all others, each with the settings of the group."""
    ids = {id(layer.weight) for layer in layers}
    parameters = group["params"]
    return (
        {**group, "params": [p for p in parameters if id(p) in ids]},
        {**group, "params": [p for p in parameters if id(p) not in ids]},
    )


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the hidden matrices, AdamW for all others, as one optimizer.

    Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) makes the step of a matrix orthogonal. Both parts
    share this one's groups and state: what saves, restores or reads those sees a single optimizer.
    """

    grad_scale: Tensor | None = None  # by which the gradients are divided in the step

    def __init__(self, adamw: torch.optim.Adam, muon: Muon) -> None:
        self._adamw, self._muon = adamw, muon
        super().__init__([*adamw.param_groups, *muon.param_groups], {})
        self._share()

    def _share(self) -> None:
        count = len(self._adamw.param_groups)
        self._adamw.param_groups, self._muon.param_groups = self.param_groups[:count], self.param_groups[count:]
        self._adamw.state = self._muon.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` gave, for both."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """A step of both; `closure` computes the loss and the gradients once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._adamw.grad_scale = self.grad_scale  # type: ignore[attr-defined]
        if self.grad_scale is not None:
            for group in self._muon.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.div_(self.grad_scale)
        self._adamw.step()
        self._muon.step()
        return loss


def clip_gradients(optimizer: torch.optim.Optimizer, bound: float | None) -> Tensor:
    """Clip by the norm over all parameters (Pascanu et al. 2013, arXiv:1211.5063), and return that norm.

    The fused kernels divide the gradients by `grad_scale` while they take the step, which saves a pass over them.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).float()
    if bound is not None:
        optimizer.grad_scale = (norm / bound).clamp(min=1)  # type: ignore[attr-defined]
    return norm
