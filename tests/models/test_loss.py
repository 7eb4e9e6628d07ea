"""The loss that never holds all logits against PyTorch's own, which does."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hp_lightning.models import loss
from hp_lightning.models.gpt import GPT
from hp_lightning.models.loss import IGNORED, language_model_loss, linear_cross_entropy
from hp_lightning.schema.model import ModelConfig

ROWS, FEATURES, VOCABULARY = 37, 12, 29
# Rows of a chunk: dividing the rows, leaving one over, leaving many over, and all of them at once.
CHUNKS = pytest.mark.parametrize("rows", [3, 4, 9, 36, 37, 1000])
TIED = ModelConfig(
    vocab_size=50,
    d_model=16,
    num_heads=2,
    num_layers=2,
    d_ff=32,
    max_seq_len=12,
    position="rotary",
    norm="rms",
    norm_position="pre",
    activation="relu_squared",
    bias=False,
    tie_embeddings=True,
    qk_norm=True,
)


def problem(
    dtype: torch.dtype = torch.float64, size: float = 1.0, ignored: tuple[int, ...] = (0, 5, 6, 36)
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, the head's weights, and targets of which some do not count."""
    generator = torch.Generator().manual_seed(1)
    hidden = size * torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64)
    weight = torch.randn(VOCABULARY, FEATURES, generator=generator, dtype=torch.float64)
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    targets[list(ignored)] = IGNORED
    return hidden.to(dtype), weight.to(dtype), targets


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(hidden @ weight.T, targets, ignore_index=IGNORED)


def value_and_gradients(function: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Of three times the loss: what comes from behind must be passed on."""
    hidden, weight = (tensor.detach().clone().requires_grad_() for tensor in (hidden, weight))
    value = function(hidden, weight, targets)
    (3 * value).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    return value.detach(), hidden.grad, weight.grad


def chunks_of(monkeypatch: pytest.MonkeyPatch, rows: int, vocabulary: int = VOCABULARY) -> None:
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * vocabulary * rows)


@CHUNKS
def test_float64_is_cross_entropy(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    chunks_of(monkeypatch, rows)
    given = problem()
    for ours, theirs in zip(
        value_and_gradients(linear_cross_entropy, *given), value_and_gradients(plain, *given), strict=True
    ):
        assert ours.dtype == torch.float64
        assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["hidden", "weight"])
def test_gradients_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    chunks_of(monkeypatch, 4)
    hidden, weight, targets = problem()
    if name == "hidden":
        assert torch.autograd.gradcheck(lambda x: linear_cross_entropy(x, weight, targets), hidden.requires_grad_())
    else:
        assert torch.autograd.gradcheck(lambda w: linear_cross_entropy(hidden, w, targets), weight.requires_grad_())


@CHUNKS
def test_float32_is_cross_entropy(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    chunks_of(monkeypatch, rows)
    reference = value_and_gradients(plain, *problem())
    for ours, exact in zip(value_and_gradients(linear_cross_entropy, *problem(torch.float32)), reference, strict=True):
        assert ours.dtype == torch.float32
        assert_close(ours.double(), exact, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("rows", [4, 1000])
def test_bfloat16_is_as_near_as_its_eight_bits(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Against float32 arithmetic on the same rounded inputs: no further off than PyTorch in bfloat16, times two."""
    chunks_of(monkeypatch, rows)
    hidden, weight, targets = problem(torch.bfloat16)
    exact = value_and_gradients(plain, hidden.float(), weight.float(), targets)
    theirs = value_and_gradients(plain, hidden, weight, targets)
    ours = value_and_gradients(linear_cross_entropy, hidden, weight, targets)
    assert ours[0].dtype == torch.float32, "a mean over thousands of tokens has no use for eight bits"
    assert_close(ours[0], exact[0], rtol=5e-3, atol=0)
    for our, their, true in zip(ours[1:], theirs[1:], exact[1:], strict=True):
        assert our.dtype == torch.bfloat16
        error, allowed = ((grad.float() - true).norm() / true.norm() for grad in (our, their))
        assert error <= max(2 * allowed, 2**-8)


def test_ignored_targets_touch_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks_of(monkeypatch, 4)
    hidden, weight, targets = problem()
    value, hidden_grad, weight_grad = value_and_gradients(linear_cross_entropy, hidden, weight, targets)
    counts = targets != IGNORED
    assert not hidden_grad[~counts].any()
    assert hidden_grad[counts].any(dim=1).all()
    alone = value_and_gradients(linear_cross_entropy, hidden[counts], weight, targets[counts])
    for ours, theirs in zip((value, hidden_grad[counts], weight_grad), alone, strict=True):
        assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("ignored", [(0, 1, 2, 3), (4, 5, 6, 7), (33, 34, 35, 36), tuple(range(1, 37))])
def test_a_chunk_without_a_target_adds_nothing(monkeypatch: pytest.MonkeyPatch, ignored: tuple[int, ...]) -> None:
    chunks_of(monkeypatch, 4)
    given = problem(ignored=ignored)
    for ours, theirs in zip(
        value_and_gradients(linear_cross_entropy, *given), value_and_gradients(plain, *given), strict=True
    ):
        assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_where_nothing_counts_the_loss_is_nothing() -> None:
    """A device's last batch of an evaluation may be filled up altogether."""
    given = problem(ignored=tuple(range(ROWS)))
    assert not any(tensor.any() for tensor in value_and_gradients(linear_cross_entropy, *given))
    with torch.no_grad():
        assert linear_cross_entropy(*given) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e3, 1e6])
def test_huge_logits_stay_finite(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, size: float) -> None:
    """Their exponentials would be infinite, or zero."""
    chunks_of(monkeypatch, 4)
    hidden, weight, targets = problem(dtype, size)
    value, *gradients = value_and_gradients(linear_cross_entropy, hidden, weight, targets)
    assert_close(value, plain(hidden.float(), weight.float(), targets), rtol=1e-2, atol=0)
    assert all(gradient.isfinite().all() for gradient in gradients)
    if dtype == torch.float32:
        for ours, theirs in zip(gradients, value_and_gradients(plain, hidden, weight, targets)[1:], strict=True):
            assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@CHUNKS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_evaluation_gives_the_same_loss(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, rows: int) -> None:
    chunks_of(monkeypatch, rows)
    hidden, weight, targets = problem(dtype)
    trained = linear_cross_entropy(hidden.requires_grad_(), weight, targets).detach()
    with torch.no_grad():
        evaluated = linear_cross_entropy(hidden, weight, targets)
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 2e-3}[dtype]
    assert_close(evaluated, trained, rtol=tolerance, atol=0)


class Sizes(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        sizes = [tensor.numel() for tensor in tree_leaves(made) if isinstance(tensor, Tensor)]
        self.largest = max([self.largest, *sizes])
        return made


@pytest.mark.parametrize("autocast", [False, True])
def test_the_logits_are_never_whole(monkeypatch: pytest.MonkeyPatch, autocast: bool) -> None:
    rows, vocabulary = 16 * 12, 3_000
    chunks_of(monkeypatch, rows // 8, vocabulary)
    torch.manual_seed(1)
    net = GPT(ModelConfig(**{**vars(TIED), "vocab_size": vocabulary}))
    token_ids = torch.randint(vocabulary, (16, 12))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        with Sizes() as ours:
            language_model_loss(net, token_ids, token_ids).backward()
        with torch.no_grad(), Sizes() as evaluated:
            language_model_loss(net, token_ids, token_ids)
        with Sizes() as theirs:
            F.cross_entropy(net(token_ids).flatten(0, 1), token_ids.flatten()).backward()
    assert theirs.largest == rows * vocabulary, "or this test would see nothing"
    assert ours.largest <= rows * vocabulary // 8
    assert evaluated.largest <= rows * vocabulary // 8


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_gradients_of_a_network_are_those_of_its_logits(
    monkeypatch: pytest.MonkeyPatch, position: str, tie: bool
) -> None:
    """Tied weights get their gradient from both ends."""
    chunks_of(monkeypatch, 7, 50)
    torch.manual_seed(1)
    net = GPT(ModelConfig(**{**vars(TIED), "position": position, "tie_embeddings": tie})).double()
    token_ids, targets = torch.randint(50, (2, 4, 12))
    targets[0, 7:] = IGNORED

    def gradients(value: Tensor) -> dict[str, Tensor]:
        net.zero_grad()
        value.backward()
        return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}  # type: ignore[union-attr]

    ours = language_model_loss(net, token_ids, targets)
    theirs = F.cross_entropy(net(token_ids).flatten(0, 1), targets.flatten())
    assert_close(ours, theirs, rtol=1e-12, atol=0)
    found, expected = gradients(ours), gradients(theirs)
    assert found.keys() == expected.keys()
    assert ("head.weight" in found) != tie
    for name, gradient in expected.items():
        assert_close(found[name], gradient, rtol=1e-10, atol=1e-14, msg=name)


def test_autocast_computes_in_bfloat16_and_sums_in_float32() -> None:
    torch.manual_seed(1)
    net = GPT(TIED)
    token_ids = torch.randint(50, (4, 12))
    exact = language_model_loss(net, token_ids, token_ids)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = language_model_loss(net, token_ids, token_ids)
        with torch.no_grad():
            evaluated = language_model_loss(net, token_ids, token_ids)
    assert mixed.dtype == evaluated.dtype == torch.float32
    assert mixed != exact
    assert_close(mixed, exact, rtol=1e-2, atol=0)
    assert_close(evaluated, mixed, rtol=2e-3, atol=0)
    mixed.backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in net.parameters())  # type: ignore[union-attr]
