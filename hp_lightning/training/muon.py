"""Muon, with the matrices of one shape orthogonalized together, in a number format of choice."""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` (Jordan et al. 2024, kellerjordan.github.io/posts/muon), the same steps in less time.

    The library's orthogonalizes one matrix after the other, in bfloat16 always, which a processor without its
    instructions emulates: benchmarks/LOG.md.

    Args:
        parameters: matrices, (rows, columns) each
        dtype: in which they are orthogonalized
    """

    def __init__(
        self, parameters: list[Tensor], lr: float, weight_decay: float, momentum: float, dtype: torch.dtype
    ) -> None:
        super().__init__(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum)
        self._dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """A step with the gradients that are there."""
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    of_shape[parameter.shape].append(parameter)
            for parameters in of_shape.values():
                self._step(parameters, group)

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        means = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, means, group["momentum"])  # Nesterov's
        moves = orthogonalize(torch.stack(ahead).to(self._dtype)).to(parameters[0].dtype)
        rows, columns = parameters[0].shape
        rate = group["lr"] * math.sqrt(max(1, rows / columns))
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(moves.unbind()), alpha=-rate)


def orthogonalize(matrices: Tensor) -> Tensor:
    """About U Vᵀ for matrices U S Vᵀ, by five Newton-Schulz iterations.

    Singular values end between 0.7 and 1.2; those below a five-hundredth of the norm stay smaller.
    Where the sides differ much, X is multiplied once, in the end, with what the iterations make of the smaller X Xᵀ; it
    is the same but for rounding, which bfloat16 has too much of for that.

    Args:
        matrices: (N, rows, columns)

    Returns:
        (N, rows, columns)
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    long = x.shape[2] >= 2 * x.shape[1] and x.dtype == torch.float32
    x = _by_square(x) if long else _by_whole(x)
    return x.mT if tall else x


def _by_whole(x: Tensor) -> Tensor:
    """X to (a + b X Xᵀ + c (X Xᵀ)²) X, repeatedly."""
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_square(x: Tensor) -> Tensor:
    """The same factors, which commute, multiplied with each other before they are with X."""
    a, b, c = COEFFICIENTS
    gram = x @ x.mT
    product: Tensor | None = None
    for left in reversed(range(ITERATIONS)):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if left:
            gram = factor @ gram @ factor
    assert product is not None
    return product @ x
