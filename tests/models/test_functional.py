"""What the modules compute: positions, norms, activations and attention, their values and their derivatives."""

import math
from collections.abc import Callable

import pytest
import torch
from helpers.networks import inputs, turned
from torch import Tensor, nn
from torch.testing import assert_close

from hp_lightning.models.functional import attend, relu_squared, rms_norm, rotary_table, rotate, sinusoidal_table

# Positions


def test_sinusoidal_table_is_its_closed_form() -> None:
    table = sinusoidal_table(50, 6)
    assert table.shape == (50, 6)
    for t in range(50):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_rotary_turns_complex_numbers() -> None:
    x = inputs(2, 3, 20, 8)
    assert_close(rotate(x, rotary_table(20, 8)), turned(x), rtol=0, atol=1e-5)


def test_rotary_product_depends_on_distance_alone() -> None:
    query, key = inputs(2, 8)
    table = rotary_table(30, 8)
    queries, keys = (rotate(x.expand(1, 1, 30, 8), table)[0, 0] for x in (query, key))
    products = queries @ keys.T
    for distance in range(-29, 30):
        of_distance = products.diagonal(distance)
        assert_close(of_distance, of_distance[0].expand_as(of_distance), rtol=0, atol=1e-5)
    # Neither is it the same at every distance, nor does it take past for future.
    assert (products[0, 0] - products[0, 1]).abs() > 1e-2
    assert (products[0, 1] - products[1, 0]).abs() > 1e-2


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_rotary_and_its_gradient_in_either_precision(dtype: torch.dtype, tolerance: float) -> None:
    x = inputs(2, 3, 20, 8).to(dtype).requires_grad_()
    out = rotate(x, rotary_table(20, 8))
    assert out.dtype == dtype
    assert_close(out, turned(x), rtol=0, atol=tolerance)
    upstream = inputs(3, 2, 20, 8).transpose(0, 1).to(dtype)
    [gradient] = torch.autograd.grad(out, x, upstream)
    # A turn keeps lengths, so that its derivative turns back.
    assert_close(rotate(gradient, rotary_table(20, 8)).double(), upstream.double(), rtol=0, atol=10 * tolerance)


# Norms and activations


WEIGHTS = pytest.mark.parametrize("has_weight", [False, True])


@WEIGHTS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("shape", [(2, 5, 8), (4096, 64), (1, 1, 300)])
def test_rms_norm_is_the_library_s(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, has_weight: bool
) -> None:
    """Value and gradients."""
    size = shape[-1]
    given = [inputs(*shape).to(dtype), (3 + inputs(size)).to(dtype)][: 1 + has_weight]

    def value_and_gradients(norm: Callable[..., Tensor], *given: Tensor) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in given]
        out = norm(*leaves)
        return [out, *torch.autograd.grad((out * inputs(*shape).flip(-1)).sum(), leaves)]

    ours = value_and_gradients(rms_norm, *given)
    theirs = value_and_gradients(
        lambda x, *weight: nn.functional.rms_norm(x, (size,), *weight, eps=torch.finfo().eps),
        *(x.double() for x in given),
    )
    with torch.no_grad():
        assert_close(rms_norm(*given), ours[0])
    for our, their in zip(ours, theirs, strict=True):
        assert our.dtype == dtype
        assert_close(our.double(), their, rtol=tolerance, atol=tolerance * max(1, their.abs().max().item()))


@WEIGHTS
def test_rms_norm_of_zeros_is_zero_and_its_gradient_finite(has_weight: bool) -> None:
    x = torch.zeros(3, 8, requires_grad=True)
    out = rms_norm(x, torch.ones(8) if has_weight else None)
    out.sum().backward()
    assert not out.any()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_squared_relu_without_a_gradient_leaves_its_input_alone() -> None:
    x = inputs(50)
    before = x.clone()
    with torch.no_grad():
        assert_close(relu_squared(x), before.clamp(min=0) ** 2)
    assert torch.equal(x, before)


# Attention


def by_formula(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √D) V, in float64."""
    query, key, value = query.double(), key.double(), value.double()
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    visible = torch.ones(scores.shape[-2:]).tril().bool()
    return scores.masked_fill(~visible, -math.inf).softmax(-1) @ value


def queries_keys_values(length: int = 33, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = inputs(3, 2, 3, length, 8).to(dtype)
    return query, key, value


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("length", [1, 2, 33, 300])
def test_attention_is_the_library_s(length: int, dtype: torch.dtype, tolerance: float, training: bool) -> None:
    """Value and gradients, whichever way it is computed."""
    given = [x.requires_grad_() for x in queries_keys_values(length, dtype)]
    weights = inputs(2, 3, length, 8)

    def value_and_gradients(mixed: Tensor) -> list[Tensor]:
        return [mixed, *torch.autograd.grad((mixed * weights).sum(), given)]

    ours = value_and_gradients(attend(*given, 0.0, training))
    theirs = value_and_gradients(nn.functional.scaled_dot_product_attention(*given, is_causal=True))
    exact = value_and_gradients(by_formula(*given))
    for our, their, true in zip(ours, theirs, exact, strict=True):
        assert our.dtype == dtype
        assert_close(our, their, rtol=tolerance, atol=tolerance)
        assert_close(our.double(), true.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_attention_sees_nothing_later(rate: float, dtype: torch.dtype) -> None:
    query, key, value = queries_keys_values(20, dtype)
    torch.manual_seed(1)
    before = attend(query, key, value, rate, True)
    for place in (0, 7, 19):
        other_key, other_value = key.clone(), value.clone()
        other_key[..., place, :] = other_value[..., place, :] = 5.0
        torch.manual_seed(1)
        after = attend(query, other_key, other_value, rate, True)
        assert torch.equal(after[..., :place, :], before[..., :place, :])
        assert not torch.equal(after[..., place:, :], before[..., place:, :])


@pytest.mark.parametrize("autocast", [False, True])
def test_attention_s_dropout_keeps_the_mean(autocast: bool) -> None:
    query, key, value = queries_keys_values(9)
    torch.manual_seed(1)
    draws = 4000
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = torch.stack([attend(query, key, value, 0.3, True) for _ in range(draws)]).double()
    assert found.std(0).min() > 0.01, "each number is drawn"
    error = (found.mean(0) - by_formula(query, key, value)).abs()
    rounding = 0.02 if autocast else 1e-5
    assert (error < 5 * found.std(0) / math.sqrt(draws) + rounding).all()
