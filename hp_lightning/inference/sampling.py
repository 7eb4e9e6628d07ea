"""Which token comes next: functions of (B, V) logits.

A token that may not come has the logit -inf; the likeliest always stays possible.
"""

import math

import torch
from torch import Tensor

FEW = 256


def penalize_repetition(logits: Tensor, repeated: Tensor, penalty: float) -> Tensor:
    """Make tokens less likely that have been there already (Keskar et al. 2019, arXiv:1909.05858, section 4.1).

    As usual since, a logit above 0 is divided by the penalty and one below is multiplied with it; the paper divides
    both, which would make the latter likelier.

    Args:
        repeated: (B, V), whether a token has been there
        penalty: 1 changes nothing
    """
    return torch.where(repeated, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Only the k likeliest tokens stay possible (Fan et al. 2018, arXiv:1805.04833)."""
    bound = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < bound, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Only the likeliest tokens that together have probability p stay possible.

    Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751).
    """
    if p >= 1:  # a sum of probabilities may round to 1 before the last token
        return logits
    probabilities, order = _likeliest(logits.softmax(dim=-1), p)
    before = probabilities.cumsum(dim=-1) - probabilities
    kept = logits.gather(1, order).masked_fill((before >= p) & (before > 0), -torch.inf)
    return torch.full_like(logits, -torch.inf).scatter(1, order, kept)


def _likeliest(probabilities: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """The largest, falling, with their places: so many that they are p together, or all.

    Mostly few are enough, and found in a tenth of the time that sorting takes (benchmarks/LOG.md).
    """
    count, size = FEW, probabilities.shape[-1]
    while True:
        largest, order = probabilities.topk(min(count, size))
        if count >= size or bool((largest.sum(dim=-1) >= p).all()):
            return largest, order
        count *= 8


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Only tokens that are at least p times as likely as the likeliest stay possible.

    Min-p sampling (Nguyen et al. 2024, arXiv:2407.01082).
    """
    bound = logits.amax(dim=-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < bound, -torch.inf)


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A token of each sequence, drawn with its probability: (B, V) to (B,).

    By inversion (Devroye 1986, section III.2), an eighth of the time of `torch.multinomial`, which draws a number for
    every token.
    """
    upto = logits.softmax(dim=-1).cumsum(dim=-1)
    point = torch.rand(len(logits), 1, generator=generator, device=logits.device) * upto[:, -1:]
    return torch.searchsorted(upto, point, right=True).squeeze(1)  # the first of a larger sum: none that is impossible
