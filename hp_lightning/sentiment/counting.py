"""What counting alone says: how much each word speaks for a positive sentiment."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def word_evidence(texts: Sequence[Sequence[int]], positive: Sequence[bool], vocab_size: int) -> NDArray[np.float64]:
    """log p(word | positive) - log p(word | negative), (vocab_size,), in nats; their sum is Naive Bayes's log-odds.

    Each word counts once a text (Pang & Lee 2002, Thumbs up?, EMNLP), and once more with each sentiment.
    """
    counts = np.ones((2, vocab_size))
    for ids, label in zip(texts, positive, strict=True):
        counts[int(label), np.unique(np.array(ids, np.int64))] += 1
    negative, of_positive = np.log(counts / counts.sum(axis=1, keepdims=True))
    evidence: NDArray[np.float64] = of_positive - negative
    return evidence
