"""The loss of a language model, without ever holding the logits of a whole batch.

With a vocabulary of 10,000 the float32 logits of a batch are larger than everything else in its step together. Here the
hidden states are multiplied with the head's weights a chunk at a time, and the gradients of a chunk are computed while
its logits are still in the processor's cache.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hp_lightning.models.gpt import GPT

IGNORED = -100  # the target of a position that does not count, as in `torch.nn.functional.cross_entropy`
# Of float32 logits: on a processor what stays in its cache (benchmarks/LOG.md), on a GPU what keeps it busy.
CHUNK_BYTES = 20 * 2**20
GPU_CHUNK_BYTES = 2**30
MOST_CHUNKS = 16  # each is compiled
BLOCK = 128  # rows


def perplexity(loss: float) -> float:
    """exp of a loss in nats per token; a loss beyond what a float can hold gives the largest."""
    return math.exp(min(loss, 700.0))


def language_model_loss(net: GPT, token_ids: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a batch, in nats per token.

    Args:
        token_ids: (B, T)
        targets: (B, T), the tokens that follow; `IGNORED` ones do not count
    """
    hidden = net.features(token_ids).flatten(0, 1)
    weight = net.head.weight
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return linear_cross_entropy(hidden, weight, targets.flatten())


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The mean of `F.cross_entropy(hidden @ weight.T, targets)`, a chunk of rows at a time.

    As in Cut Your Losses (Wijmans et al. 2024, arXiv:2411.09009) and Liger Kernel (Hsu et al. 2024, arXiv:2410.10989).

    Args:
        hidden: (N, C)
        weight: (V, C)
        targets: (N,); `IGNORED` ones do not count; where all are, the loss is 0
    """
    count = (targets != IGNORED).sum().clamp(min=1)
    size = CHUNK_BYTES if hidden.device.type == "cpu" else GPU_CHUNK_BYTES
    chunk = _rows_of_a_chunk(len(hidden), size // (4 * weight.shape[0]))
    if torch.is_grad_enabled():
        total: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, chunk)  # type: ignore[no-untyped-call]
    else:
        pieces = zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True)
        losses = []
        for rows, wanted in pieces:
            logits = F.linear(rows, weight).float()
            losses.append(F.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum"))
        total = torch.stack(losses).sum()
    return total / count


def _rows_of_a_chunk(rows: int, most: int) -> int:
    """Chunks of equal size, without a small rest; large ones in whole blocks of a matrix product."""
    count = min(-(-rows // max(most, 1)), MOST_CHUNKS)
    equal = -(-rows // count)
    return equal if equal <= BLOCK else -(-equal // BLOCK) * BLOCK


class _LinearCrossEntropy(torch.autograd.Function):
    """The sum over all rows; the gradients are made together with it, and scaled on the way back.

    With p = softmax(z) and z = W h, the loss of a row is lse(z) - z_t, its gradient p - onehot(t) by z. Since p is
    exp(z - max) times a factor of the row, the factor is left to the small matrices, and the large one is written once.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        """(N, C), (V, C), (N,) to a scalar, in float32 at least."""
        precise = torch.promote_types(weight.dtype, torch.float32)
        total = hidden.new_zeros((), dtype=precise)
        weight_grad = torch.zeros_like(weight, dtype=precise)
        hidden_grads = []
        for rows, wanted in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
            counts = (wanted != IGNORED)[:, None]
            wanted = wanted.clamp(min=0)
            logits = rows @ weight.T
            largest = logits.amax(dim=1, keepdim=True)
            powers = (logits - largest).to(precise).exp()
            sums = powers.sum(dim=1, keepdim=True)
            of_target = logits.gather(1, wanted[:, None])
            total = total + ((sums.log() + largest.to(precise) - of_target.to(precise)) * counts).sum()
            scale = counts / sums
            powers = powers.to(weight.dtype)
            hidden_grads.append(((powers @ weight) * scale - weight[wanted] * counts).to(hidden.dtype))
            weight_grad += powers.T @ (rows * scale).to(weight.dtype)
            weight_grad.index_add_(0, wanted, (rows * counts).to(precise), alpha=-1)
        ctx.save_for_backward(torch.cat(hidden_grads), weight_grad)
        ctx.weight_dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The two gradients, times that of the sum."""
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * grad, (weight_grad * grad).to(ctx.weight_dtype), None, None
