"""The model that counts, against its formulas written out with dictionaries, a token after the other."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hp_lightning.common import failpoints
from hp_lightning.data.dataset import TokenizedCorpus, tokenize_corpus
from hp_lightning.data.ngram_baseline import KneserNey, counted_loss, kneser_ney_loss
from hp_lightning.schema.train import TrainConfig

NGram = tuple[int, ...]


class Reference:
    """Chen & Goodman 1999: p(w | h) = (c(hw) - D(c(hw))) / c(h) + left(h) p(w | h without its first token)."""

    def __init__(self, stream: list[int], vocab_size: int, order: int) -> None:
        self.vocab_size = vocab_size
        self.order = min(order, len(stream))
        self.followers: dict[NGram, Counter[int]] = defaultdict(Counter)
        self.discounts: list[list[float]] = []
        for n in range(1, self.order + 1):
            counts = Counter(tuple(stream[i : i + n]) for i in range(len(stream) - n + 1))
            if n < self.order:
                longer = {tuple(stream[i : i + n + 1]) for i in range(len(stream) - n)}
                counts = Counter(n_gram[1:] for n_gram in longer)
            for n_gram, count in counts.items():
                self.followers[n_gram[:-1]][n_gram[-1]] = count
            self.discounts.append(self.estimated(Counter(counts.values())))

    @staticmethod
    def estimated(n: Counter[int]) -> list[float]:
        if n[1] and n[2] and n[3]:
            y = n[1] / (n[1] + 2 * n[2])
            found = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            if 0 < found[0] <= 1 and 0 < found[1] <= 2 and 0 < found[2] <= 3:
                return found
        return [0.5, 1, 1.5]

    def probability(self, history: NGram, token: int) -> float:
        lower = self.probability(history[1:], token) if history else 1 / self.vocab_size
        followers = self.followers.get(history)
        if not followers:
            return lower
        discounts = self.discounts[len(history)]
        total = sum(followers.values())
        left = sum(discounts[min(count, 3) - 1] for count in followers.values()) / total
        count = followers.get(token, 0)
        return (count - discounts[min(count, 3) - 1] if count else 0) / total + left * lower

    def probabilities(self, stream: list[int]) -> list[float]:
        """Of each token after as many before it as the order looks back to."""
        before = self.order - 1
        return [self.probability(tuple(stream[max(i - before, 0) : i]), token) for i, token in enumerate(stream)]


def zipf(tokens: int, vocab_size: int, seed: int) -> np.ndarray:
    """A few tokens are frequent, most are rare."""
    shares = 1 / np.arange(1, vocab_size + 1)
    return np.random.default_rng(seed).choice(vocab_size, tokens, p=shares / shares.sum()).astype(np.int32)


@pytest.fixture(scope="module")
def book(make_config: Callable[..., TrainConfig], first_book: Path) -> TokenizedCorpus:
    cfg = make_config("experiment=smoke", f"data.path={first_book}")
    return tokenize_corpus(cfg.data, cfg.tokenizer)


def expect_as_reference(training: np.ndarray, other: np.ndarray, vocab_size: int, order: int) -> None:
    found = KneserNey(training, vocab_size, order).probabilities(other)
    wanted = Reference(training.tolist(), vocab_size, order).probabilities(other.tolist())
    assert found == pytest.approx(wanted, rel=1e-9, abs=0)


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("tokens", [400, 3_000])
def test_random_tokens(tokens: int, order: int) -> None:
    """The other stream has tokens, and begins with n-grams, that the counted one lacks."""
    expect_as_reference(zipf(tokens, 30, seed=order), zipf(300, 40, seed=9), 40, order)


def test_a_book(
    book: TokenizedCorpus, make_config: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted once, and from then on in the cache."""
    vocab_size = len(book.tokenizer.vocabulary)
    training, validation = book.streams["train"], book.streams["val"]
    expect_as_reference(training, validation, vocab_size, 5)
    reference = Reference(training.tolist(), vocab_size, 5)
    losses = [-math.log(probability) for probability in reference.probabilities(validation.tolist())[1:]]
    cfg = make_config(f"data.cache_dir={tmp_path}").data
    loss = counted_loss(cfg, book)
    assert loss == pytest.approx(math.fsum(losses) / len(losses), rel=1e-9)
    moments: list[str] = []
    monkeypatch.setattr(failpoints, "on_reached", moments.append)
    assert counted_loss(cfg, book) == loss
    assert "ngrams.count" not in moments
    assert reference.estimated(Counter()) not in reference.discounts, "a real text has the counts to estimate them from"


# The counted stream, beside the size of the vocabulary.
TINY = {
    "one token": ([3], 5),
    "two tokens": ([3, 1], 5),
    "shorter than the order": ([0, 1, 2], 3),
    "one token again and again": ([2] * 50, 4),
    "two by turns": ([0, 1] * 30, 2),
    "each token once": (list(range(20)), 20),
    "a vocabulary of one": ([0] * 10, 1),
}


@pytest.mark.parametrize("stream", TINY)
def test_tiny_streams(stream: str) -> None:
    counted, vocab_size = TINY[stream]
    other = np.array([*counted, *range(vocab_size), *reversed(range(vocab_size))], np.int32)
    expect_as_reference(np.array(counted, np.int32), other, vocab_size, 5)


@pytest.mark.parametrize("stream", [*TINY, "zipf"])
def test_probabilities_of_all_tokens_sum_to_one(stream: str) -> None:
    """After every history of the counted stream, seen and unseen, and none of them is zero."""
    counted, vocab_size = TINY.get(stream, (zipf(500, 12, seed=1).tolist(), 15))
    model = KneserNey(np.array(counted, np.int32), vocab_size, 4)
    for history in ([], counted[-1:], counted[:3], counted[-3:], [vocab_size - 1] * 3, [*counted[:2], vocab_size - 1]):
        found = [model.probabilities(np.array([*history, token]))[-1] for token in range(vocab_size)]
        assert min(found) > 0
        assert math.fsum(found) == pytest.approx(1, abs=1e-12)


def test_nothing_to_predict_and_too_much_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = zipf(100, 5, seed=2)
    assert kneser_ney_loss(stream, stream[:1], 5) is None
    assert kneser_ney_loss(stream, stream, 5) is not None
    monkeypatch.setattr("hp_lightning.data.ngram_baseline.MOST_TOKENS", 99)
    assert kneser_ney_loss(stream, stream, 5) is None


def test_it_beats_the_guess_by_frequency_and_uses_what_stands_before(book: TokenizedCorpus) -> None:
    vocab_size = len(book.tokenizer.vocabulary)
    losses = [
        -np.log(KneserNey(book.streams["train"], vocab_size, order).probabilities(book.streams["val"])[1:]).mean()
        for order in (1, 2, 3)
    ]
    loss = kneser_ney_loss(book.streams["train"], book.streams["val"], vocab_size)
    assert loss is not None
    assert loss < losses[2] + 0.02
    assert losses[0] > losses[1] + 0.3
