"""What the network's modules compute, as functions of tensors.

Where PyTorch's own takes many passes over memory on a processor, the derivative is written by hand, or the formula
chosen, because there are fewer (benchmarks/LOG.md); a GPU and the compiler have no need of it. Shapes: as in gpt.py.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def rms_norm(x: Tensor, weight: Tensor | None = None, eps: float = torch.finfo().eps) -> Tensor:
    """x / √(mean(x²) + eps) over the last dimension, times weights (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4).

    Args:
        x: (..., C)
        weight: (C,), or None for ones

    Returns:
        (..., C)
    """
    if not x.is_cpu or torch.compiler.is_compiling():
        return F.rms_norm(x, x.shape[-1:], weight, eps)
    # Where there is no derivative, that call would take longer than the rest.
    normed: Tensor = _RMSNorm.apply(x, eps) if torch.is_grad_enabled() else _normalized(x, eps)[0]  # type: ignore[no-untyped-call]
    return normed if weight is None else (normed * weight).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        normed, scale = _normalized(x, eps)
        ctx.save_for_backward(normed, scale)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        normed, scale = ctx.saved_tensors
        along = normed * (gradient * normed).mean(dim=-1, keepdim=True, dtype=scale.dtype)
        return torch.sub(gradient, along, out=along).mul_(scale).to(gradient.dtype), None


def _normalized(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x, (..., C), times 1 / √(mean(x²) + eps), and that, (..., 1), in float32 at least."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    scale = norm.square_().mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    return (x * scale).to(x.dtype), scale


def relu_squared(x: Tensor) -> Tensor:
    """max(0, x)² (So et al. 2021, arXiv:2109.08668), of any shape."""
    if not torch.is_grad_enabled():
        return F.relu(x).square_()
    squared: Tensor = _ReLUSquared.apply(x)  # type: ignore[no-untyped-call]
    return squared


class _ReLUSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        twice: Tensor = (gradient * positive).mul_(2)
        return twice


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Set features to zero at random, while training, and scale the others (Srivastava et al. 2014, JMLR 15).

    PyTorch's own draws a number of 64 bits for each feature one after the other on a processor; here a number serves
    four of them, 16 bits each. The rate is kept to within 1/131072.
    """
    if rate == 0 or not training:
        return x
    if not x.is_cpu:
        return F.dropout(x, rate)
    dropped = min(round(rate * 2**16), 2**16 - 1)
    count = x.numel()
    numbers = torch.randint(-(2**63), 2**63 - 1, (-(-count // 4),), device=x.device)
    keep = numbers.view(torch.int16)[:count].view(x.shape) >= dropped - 2**15
    return (x * keep.float().mul_(1 / (1 - dropped / 2**16))).to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, dropout_rate: float, training: bool) -> Tensor:
    """softmax(Q Kᵀ / √D) V with a causal mask: (B, H, T, D), (B, H, S, D) and (B, H, S, D) to (B, H, T, D).

    The queries are those of the last T of S tokens.

    PyTorch's kernel for processors knows no dropout, and its way back is slow in bfloat16 (benchmarks/LOG.md); there
    the (B, H, T, T) weights are written out.
    """
    length, seen = query.shape[-2], key.shape[-2]
    if training and query.is_cpu and (dropout_rate > 0 or _short_in_bf16(query, length)):
        return dropout(attention_weights(query, key), dropout_rate, training).to(value.dtype) @ value
    rate = dropout_rate if training else 0.0
    whole = length == seen
    mask = None if whole or length == 1 else _visible(length, seen, query.device)  # the last token sees all
    return F.scaled_dot_product_attention(query, key, value, mask, rate, whole)


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √D) with a causal mask: (B, H, T, D) and (B, H, S, D) to (B, H, T, S)."""
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)
    length, seen = scores.shape[-2:]
    hidden = torch.full((length, seen), -torch.inf, dtype=scores.dtype, device=scores.device).triu(seen - length + 1)
    return scores.add_(hidden).softmax(dim=-1)  # `masked_fill` would copy, and once more on the way back


def _visible(length: int, seen: int, device: torch.device) -> Tensor:
    """Which of S tokens each of the last T sees: (T, S)."""
    return torch.ones(length, seen, dtype=torch.bool, device=device).tril(seen - length)


def _short_in_bf16(query: Tensor, length: int) -> bool:
    in_bf16 = query.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return in_bf16 and length <= 256


def sinusoidal_table(length: int, d_model: int) -> Tensor:
    """sin(t / 10000^(2i/C)) at feature 2i and its cosine at 2i + 1 (Vaswani et al. 2017, section 3.5): (length, C)."""
    angle = _angles(length, d_model)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def rotary_table(length: int, head_dim: int) -> Tensor:
    """Cosine and sine of each position's angles (Su et al. 2021, arXiv:2104.09864, eq. 15): (length, D / 2, 2)."""
    angle = _angles(length, head_dim)
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn pairs of neighbouring features of each token by the angles of its position (Su et al. 2021, eq. 14).

    A pair is a complex number, and its turn a product with e^(i t θ), where that is one pass: in float32 on its way
    through neither the compiler nor bfloat16, which know no complex numbers.

    Args:
        x: (..., D)
        rotation: (..., D / 2, 2), from `rotary_table`, its dimensions before the last two such that they fit to x

    Returns:
        (..., D); the product of two tokens so turned depends on the distance between them alone
    """
    pairs = x.view(*x.shape[:-1], -1, 2)
    if x.dtype == torch.float32 and not torch.compiler.is_compiling():
        return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation)).flatten(-2)
    first, second = pairs.unbind(-1)
    cos, sin = rotation.to(x.dtype).unbind(-1)
    return torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1).flatten(-2)


def _angles(length: int, features: int) -> Tensor:
    """Position times frequency, the frequencies falling from 1 towards 1/10000: (length, features / 2)."""
    frequencies = 10000 ** (-torch.arange(0, features, 2, dtype=torch.float32) / features)
    return torch.arange(length, dtype=torch.float32)[:, None] * frequencies
