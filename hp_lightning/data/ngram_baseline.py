"""The n-gram baseline: a Kneser-Ney model, the best of those that only count n-grams.

Interpolated, with three discounts for each order: Kneser & Ney 1995, "Improved backing-off for m-gram language
modeling"; Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling", where it is called
modified Kneser-Ney.
"""

import numpy as np
import numpy.typing as npt

from hp_lightning.common.console import progress
from hp_lightning.common.failpoints import failpoint
from hp_lightning.data.cache import Cache, digest, from_array, to_array
from hp_lightning.data.dataset import TokenizedCorpus
from hp_lightning.data.downloads import cache_folder
from hp_lightning.schema.data import DataConfig

ORDER = 5
MOST_TOKENS = 10_000_000  # of a training split that is counted
# As in KenLM (Heafield et al. 2013), where there is too little to estimate them from.
USUAL_DISCOUNTS = (0.5, 1.0, 1.5)
UNKNOWN = -1  # the place of an n-gram that was not counted, or would start before the stream

Ids = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def kneser_ney_loss(training: Ids, validation: Ids, vocab_size: int) -> float | None:
    """Cross-entropy, in nats per token, that a model of order 5 has on one stream when it has counted another.

    It predicts what a network is validated on: every token but the first, once. Before each it sees four tokens, or as
    many as there are; it knows no sequences.

    Args:
        training: (N,) token ids
        validation: (M,) token ids
        vocab_size: every id is below it

    Returns:
        None where the training stream is too long to be counted, or there is nothing to predict
    """
    if len(training) > MOST_TOKENS or len(validation) < 2:
        return None
    return float(-np.log(KneserNey(training, vocab_size, ORDER).probabilities(validation)[1:]).mean())


class KneserNey:
    """Gives a token a probability by how often it has followed the tokens before it.

    The highest order has the counts of its n-grams; each lower one counts, in their place, how many different tokens
    its n-grams have followed. Every order is interpolated with the one below, and the lowest with the uniform
    distribution: no token is impossible.

    Args:
        stream: (N,) token ids, which are counted; n-grams go over the ends of documents as sequences do
        vocab_size: every id is below it
        order: the length of the longest n-grams; a shorter stream has none of it
    """

    def __init__(self, stream: Ids, vocab_size: int, order: int) -> None:
        self._vocab_size = vocab_size
        counted: list[tuple[Ids, Ids]] = []  # by order: the n-grams and their counts
        # An n-gram is known by its place among all of its order; here, of those that start at each token.
        places: Ids = np.zeros(len(stream) + 1, np.int64)
        order = min(order, len(stream))
        with progress("counting", order) as advance:
            for n in range(1, order + 1):
                keys, longer, counts = np.unique(
                    places[:-1] * vocab_size + stream[n - 1 :], return_inverse=True, return_counts=True
                )
                if counted:
                    without_first = np.empty(len(keys), np.int64)
                    without_first[longer] = places[1:]
                    shorter, _ = counted[-1]
                    counted[-1] = shorter, np.bincount(without_first, minlength=len(shorter))
                counted.append((keys, counts))
                places = longer
                advance(1)
        contexts = [1, *(len(keys) for keys, _ in counted)]
        self._orders = [_Order(*of_order, size, vocab_size) for of_order, size in zip(counted, contexts, strict=False)]

    def probabilities(self, stream: Ids) -> Floats:
        """Of each token of a stream after those before it: (M,) token ids to (M,)."""
        probabilities = np.full(len(stream), 1 / self._vocab_size)
        contexts: Ids = np.zeros(len(stream), np.int64)
        for order in self._orders:
            probabilities, places = order.interpolated(probabilities, contexts, stream)
            contexts = np.concatenate([[UNKNOWN], places[:-1]])
        return probabilities


class _Order:
    """The n-grams of one length: what each has of its context's probability, and what the context leaves to others.

    Args:
        keys: (K,) an n-gram's context, by its place among those, times the size of the vocabulary, plus its last token
        counts: (K,)
        contexts: how many there are
        vocab_size: every token is below it
    """

    def __init__(self, keys: Ids, counts: Ids, contexts: int, vocab_size: int) -> None:
        self._keys = keys
        self._vocab_size = vocab_size
        of_context = keys // vocab_size
        discounts = np.array([0.0, *_discounts(counts)])[np.minimum(counts, len(USUAL_DISCOUNTS))]
        # Where a context was seen but at the stream's end, or followed by what nothing stands before, nothing is known.
        totals = np.maximum(np.bincount(of_context, counts, contexts), 1)
        self._shares = (counts - discounts) / totals[of_context]
        self._left = 1 - np.bincount(of_context, self._shares, contexts)

    def interpolated(self, lower: Floats, contexts: Ids, tokens: Ids) -> tuple[Floats, Ids]:
        """Probabilities by this order and those below it, and the places of the n-grams: (M,) each.

        Args:
            lower: (M,) the tokens' probabilities by the orders below
            contexts: (M,) the places of what stands before the tokens
            tokens: (M,)
        """
        keys = contexts * self._vocab_size + tokens
        places = np.searchsorted(self._keys, keys)
        places[places == len(self._keys)] = 0
        places = np.where(self._keys[places] == keys, places, UNKNOWN)
        shares = np.where(places == UNKNOWN, 0, self._shares[places])
        return np.where(contexts == UNKNOWN, lower, shares + self._left[contexts] * lower), places


def _discounts(counts: Ids) -> tuple[float, ...]:
    """What is taken from the counts 1, 2, and 3 or more, estimated from how many n-grams have the counts 1 to 4.

    Chen & Goodman 1999, modified Kneser-Ney: D(c) = c - (c + 1) Y n(c+1) / n(c) with Y = n(1) / (n(1) + 2 n(2)).
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if not all(n[:3]):
        return USUAL_DISCOUNTS
    y = n[0] / (n[0] + 2 * n[1])
    discounts = tuple(c - (c + 1) * y * n[c] / n[c - 1] for c in (1, 2, 3))
    return discounts if all(0 < discount <= c for c, discount in enumerate(discounts, start=1)) else USUAL_DISCOUNTS


FORMAT = 1  # of what the cache holds; to be raised with every change of counting


def counted_loss(cfg: DataConfig, corpus: TokenizedCorpus) -> float | None:
    """The loss of a Kneser-Ney model on the validation split, see `kneser_ney_loss`; counted once, and then kept.

    Args:
        cfg: says where the cache is
    """
    cache = Cache(cache_folder(cfg) / "counting")
    vocab_size = len(corpus.tokenizer.vocabulary)
    key = digest(FORMAT, corpus.digest, vocab_size)
    kept = cache.load(key)
    if kept is None:
        failpoint("ngrams.count")
        loss = kneser_ney_loss(corpus.streams["train"], corpus.streams["val"], vocab_size)
        kept = {"loss": to_array(loss)}
        cache.store(key, kept)
    cached: float | None = from_array(kept["loss"])
    return cached
