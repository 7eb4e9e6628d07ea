"""Which tokens stay possible, and how likely each of them then is."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hp_lightning.inference.generate import Sampling, choose
from hp_lightning.inference.sampling import draw, keep_min_p, keep_top_k, keep_top_p, penalize_repetition

LOGITS = [2.0, 1.2, 0.4, -0.4, -1.2]  # from likely to unlikely
DRAWS = 20_000


def random_logits(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("k", [1, 2, 5, 9, 10, 11, 1000])
def test_top_k_keeps_the_k_likeliest(k: int) -> None:
    logits = random_logits(20, 10)
    for row, kept in zip(logits.tolist(), keep_top_k(logits, k).tolist(), strict=True):
        likeliest = sorted(row, reverse=True)[:k]
        assert kept == [logit if logit in likeliest else -math.inf for logit in row]


@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_top_p_keeps_the_fewest_likeliest_that_reach_p(p: float) -> None:
    logits = random_logits(50, 10)
    for row, kept in zip(logits.tolist(), keep_top_p(logits, p).tolist(), strict=True):
        total = sum(math.exp(logit) for logit in row)
        nucleus: set[float] = set()
        for logit in sorted(row, reverse=True):
            if sum(math.exp(other) for other in nucleus) < p * total:
                nucleus.add(logit)
        assert kept == [logit if logit in nucleus else -math.inf for logit in row]
        assert max(kept) == max(row)  # the likeliest always stays


@pytest.mark.parametrize("p", [0.5, 0.9, 0.999])
def test_top_p_keeps_many_where_many_are_needed(p: float) -> None:
    """A flat distribution in one row, a steep one in the other."""
    logits = random_logits(2, 5000) * torch.tensor([[0.01], [5.0]])
    ordered, order = logits.double().softmax(-1).sort(descending=True)
    for row, kept in enumerate(keep_top_p(logits, p)):
        count = int((ordered[row].cumsum(0) < p - 1e-6).sum()) + 1
        assert abs(int(kept.isfinite().sum()) - count) <= 1  # rounding
        assert kept[order[row, : count - 1]].isfinite().all()


def test_top_p_of_one_keeps_every_token() -> None:
    # However unlikely: in single precision their probabilities vanish beside the first one's.
    logits = torch.tensor([[30.0, 20.0, 10.0, 0.0, 5.0]])
    assert torch.equal(keep_top_p(logits, 1.0), logits)


@pytest.mark.parametrize("p", [1e-9, 0.03, 0.2, 0.7, 1.0])
def test_min_p_keeps_what_is_a_share_as_likely_as_the_likeliest(p: float) -> None:
    logits = random_logits(50, 10)
    for row, kept in zip(logits.tolist(), keep_min_p(logits, p).tolist(), strict=True):
        bound = p * math.exp(max(row))
        assert kept == [logit if math.exp(logit) >= bound * (1 - 1e-6) else -math.inf for logit in row]
        assert max(kept) == max(row)


def test_repetition_penalty_by_hand() -> None:
    logits = torch.tensor([[3.0, -3.0, 3.0, -3.0, 0.0, -math.inf]])
    repeated = torch.tensor([[True, True, False, False, True, True]])
    assert penalize_repetition(logits, repeated, 1.5).tolist() == [[2.0, -4.5, 3.0, -3.0, 0.0, -math.inf]]
    assert torch.equal(penalize_repetition(logits, repeated, 1.0), logits)


@pytest.mark.parametrize(
    "cut", [lambda x: keep_top_k(x, 2), lambda x: keep_top_p(x, 0.9), lambda x: keep_min_p(x, 0.5)]
)
def test_what_was_impossible_stays_so(cut: Callable[[Tensor], Tensor]) -> None:
    logits = torch.tensor([[1.0, -math.inf, 0.9, -math.inf, -5.0]])
    assert torch.equal(cut(logits).isfinite(), torch.tensor([[True, False, True, False, False]]))


# Distributions: what is drawn has the probabilities of the formula


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0, top_p=None), LOGITS),
        (Sampling(0.5, top_p=None), [2 * logit for logit in LOGITS]),
        (Sampling(2.0, top_p=None), [logit / 2 for logit in LOGITS]),
        (Sampling(1.0, top_k=3, top_p=None), LOGITS[:3]),
        (Sampling(1.0, top_p=0.7), LOGITS[:2]),
        (Sampling(2.0, top_p=0.7), [logit / 2 for logit in LOGITS[:3]]),  # flattened first, then cut
        (Sampling(1.0, top_p=None, min_p=0.1), LOGITS[:3]),
        (Sampling(2.0, top_p=None, min_p=0.21), [logit / 2 for logit in LOGITS[:4]]),
        (Sampling(1.0, top_k=4, top_p=0.9, min_p=0.3), LOGITS[:2]),
        # The first and the last have been there.
        (Sampling(1.0, top_p=None, repetition_penalty=2.0), [1.0, 1.2, 0.4, -0.4, -2.4]),
        (Sampling(0.5, top_p=None, repetition_penalty=0.8), [5.0, 2.4, 0.8, -0.8, -1.92]),
        (Sampling(1.0, top_k=1, top_p=None, repetition_penalty=2.0), [-math.inf, 1.2]),
    ],
)
def test_tokens_are_drawn_with_their_probabilities(sampling: Sampling, expected: list[float]) -> None:
    repeated = torch.tensor([True, False, False, False, True]).expand(DRAWS, 5)
    drawn = choose(torch.tensor(LOGITS).expand(DRAWS, 5), repeated, sampling, torch.Generator().manual_seed(3))
    weights = [*map(math.exp, expected), *[0.0] * (5 - len(expected))]
    for token_id, weight in enumerate(weights):
        probability = weight / sum(weights)
        # Four standard deviations are at most 0.0142.
        assert (drawn == token_id).double().mean().item() == pytest.approx(
            probability, abs=4 * math.sqrt(probability * (1 - probability) / DRAWS)
        )


def test_the_impossible_is_never_drawn() -> None:
    logits = torch.full((DRAWS, 9), -math.inf)
    logits[:, [2, 5, 6]] = torch.tensor([0.0, 1.0, -20.0])
    drawn = draw(logits, torch.Generator().manual_seed(1))
    assert set(drawn.tolist()) <= {2, 5, 6}
    # Whatever the number: the ends of its range, too.
    for number in (0.0, 1 - 2**-24):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", lambda *shape, number=number, **_: torch.full(shape, number))
            for row in (random_logits(200, 1000), logits[:1]):
                assert row.gather(1, draw(row, torch.Generator())[:, None]).isfinite().all()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(1.0, top_p=1e-300),
        Sampling(1.0, top_p=None, min_p=1e-300),
        *(Sampling(t, repetition_penalty=penalty) for t in (0.01, 100) for penalty in (0.01, 100)),
    ],
)
def test_the_ends_of_every_range_leave_something_to_draw(sampling: Sampling) -> None:
    logits = random_logits(20, 500).index_fill(1, torch.tensor([3]), -math.inf)
    for repeated in (torch.zeros_like(logits, dtype=torch.bool), torch.ones_like(logits, dtype=torch.bool)):
        drawn = choose(logits, repeated, sampling, torch.Generator().manual_seed(1))
        assert logits.gather(1, drawn[:, None]).isfinite().all()
        if sampling.top_p == 1e-300:
            assert torch.equal(drawn, logits.argmax(1))


@pytest.mark.parametrize("penalty", [1.0, 2.0])
def test_temperature_zero_takes_the_likeliest(penalty: float) -> None:
    repeated = torch.tensor([[True, False, False, False, False]])
    sampling = Sampling(0, top_k=2, top_p=0.1, repetition_penalty=penalty)
    chosen = choose(torch.tensor([LOGITS]), repeated, sampling, torch.Generator())
    assert chosen.tolist() == [0 if penalty == 1 else 1]
