"""What counting alone says: how much each word speaks for a positive sentiment."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def word_evidence(
    texts: Sequence[NDArray[np.int64]], positive: Sequence[bool], vocab_size: int
) -> list[NDArray[np.float64]]:
    """log p(word | positive) - log p(word | negative), in nats, for every word of every text, by all texts but its own.

    Their sum over a text is the log-odds of Naive Bayes, which has not seen the text. Each word counts once a text
    (Pang & Lee 2002, Thumbs up?, EMNLP), and once more with each sentiment.

    Args:
        texts: the ids of their words

    Returns:
        as long as the text each
    """
    counts = np.ones((2, vocab_size))
    for ids, label in zip(texts, positive, strict=True):
        counts[int(label), np.unique(ids)] += 1
    totals = counts.sum(axis=1, keepdims=True)
    evidence = []
    for ids, label in zip(texts, positive, strict=True):
        own_count = np.array([[not label], [label]])
        shares = (counts[:, ids] - own_count) / (totals - own_count * len(np.unique(ids)))
        evidence.append(np.log(shares[1] / shares[0]))
    return evidence
