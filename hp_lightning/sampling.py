"""Which tokens may come next: functions of (B, V) logits, each to (B, V) logits.

A token that may not come has the logit -inf. The likeliest token always stays possible.
"""

import math

import torch
from torch import Tensor


def penalize_repetition(logits: Tensor, repeated: Tensor, penalty: float) -> Tensor:
    """Makes tokens less likely that have been there already (Keskar et al. 2019, arXiv:1909.05858, section 4.1).

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
    ordered, order = logits.sort(descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    outside = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= p)
    return logits.masked_fill(outside, -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Only tokens that are at least p times as likely as the likeliest stay possible.

    Min-p sampling (Nguyen et al. 2024, arXiv:2407.01082).
    """
    bound = logits.amax(dim=-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < bound, -torch.inf)
