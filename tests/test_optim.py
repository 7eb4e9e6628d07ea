"""Weight decay, the two optimizers, and the learning rate's course, in one run and over a resume."""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hp_lightning.config import PlateauConfig, TrainConfig
from hp_lightning.model import GPT
from hp_lightning.optim import WarmupPlateau, build_optimizer, clip_gradients, parameter_groups

PLATEAU = PlateauConfig(factor=0.5, patience=2, min_lr=0.0)
SIZES = (
    "model.vocab_size=7",
    "model.d_model=8",
    "model.num_heads=2",
    "model.num_layers=2",
    "model.d_ff=8",
)


def two_groups(lr: float = 1.0) -> torch.optim.Optimizer:
    parameters = nn.Linear(2, 2).parameters()
    return torch.optim.SGD([{"params": [parameter]} for parameter in parameters], lr=lr)


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("model", ["gpt2", "roadmap", "base"])
def test_every_parameter_is_in_one_group_and_only_matrices_decay(
    model: str, make_config: Callable[..., TrainConfig]
) -> None:
    net = GPT(make_config(f"model={model}", *SIZES).model)
    decaying, other = parameter_groups(net, 0.3)
    assert (decaying["weight_decay"], other["weight_decay"]) == (0.3, 0.0)

    grouped = [id(parameter) for parameter in [*decaying["params"], *other["params"]]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in net.parameters())  # tied ones once

    matrices = {id(module.weight) for module in net.modules() if isinstance(module, nn.Linear | nn.Embedding)}
    assert {id(parameter) for parameter in decaying["params"]} == matrices
    assert other["params"]  # norms at least; biases, where the form has them


def test_frozen_parameters_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    decaying, other = parameter_groups(layer, 0.3)
    assert decaying["params"] == []
    assert len(other["params"]) == 1


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_first_step_by_hand(name: str, make_config: Callable[..., TrainConfig]) -> None:
    overrides = ("optim.lr=0.01", "optim.betas=[0.8,0.95]", "optim.eps=0.1")
    cfg = make_config(f"optim={name}", *overrides).optim
    torch.manual_seed(1)
    layer = nn.Linear(3, 4)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = build_optimizer(layer, cfg, weight_decay=0.5)
    layer(torch.ones(2, 3)).square().sum().backward()
    gradient = layer.weight.grad.clone()
    optimizer.step()

    # After one step the bias-corrected moments are the gradient and its square.
    if name == "adamw":
        weight = weight * (1 - 0.01 * 0.5) - 0.01 * gradient / (gradient.abs() + 0.1)
    else:  # weight decay as part of the gradient
        gradient = gradient + 0.5 * weight
        weight = weight - 0.01 * gradient / (gradient.abs() + 0.1)
    assert_close(layer.weight.detach(), weight)
    assert_close(layer.bias.detach(), bias - 0.01 * layer.bias.grad / (layer.bias.grad.abs() + 0.1))
    assert all(group["betas"] == (0.8, 0.95) for group in optimizer.param_groups)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bound", [None, 0.5, 1e9])
@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_clipped_steps_are_those_of_the_library(
    name: str, bound: float | None, dtype: torch.dtype, make_config: Callable[..., TrainConfig]
) -> None:
    """Gradients of very different size: Adam's first step alone would not show how they were scaled."""
    optim = make_config(f"optim={name}", "optim.lr=0.1").optim
    torch.manual_seed(1)
    ours = nn.Linear(5, 3).to(dtype)
    theirs = nn.Linear(5, 3).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, optim, weight_decay=0.1)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[name]
    reference = kind(parameter_groups(theirs, 0.1), lr=optim.lr, betas=tuple(optim.betas), eps=optim.eps)
    for size in (1.0, 100.0, 0.01, 3.0):
        for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
            our.grad = size * torch.randn_like(our)
            their.grad = our.grad.clone()
        norm = clip_gradients(optimizer, bound)
        wanted = nn.utils.clip_grad_norm_(theirs.parameters(), math.inf if bound is None else bound)
        assert_close(norm.float(), wanted.float())
        optimizer.step()
        reference.step()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for our, their in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(our, their, rtol=tolerance, atol=tolerance)


def test_warmup_is_exactly_linear() -> None:
    optimizer = two_groups(lr=0.3)
    schedule = WarmupPlateau(optimizer, PLATEAU, lr=0.3, warmup_steps=5)
    course = []
    for step in range(8):
        schedule.before_step(step)
        course.append(rates(optimizer))
    expected = [0.3 * 1 / 5, 0.3 * 2 / 5, 0.3 * 3 / 5, 0.3 * 4 / 5, 0.3, 0.3, 0.3, 0.3]
    assert course == [[pytest.approx(rate, rel=1e-12)] * 2 for rate in expected]
    assert course[-1] == [0.3, 0.3]


def test_without_warmup_the_first_step_has_the_whole_rate() -> None:
    optimizer = two_groups(lr=0.3)
    WarmupPlateau(optimizer, PLATEAU, lr=0.3, warmup_steps=0).before_step(0)
    assert rates(optimizer) == [0.3, 0.3]


def test_plateau_halves_after_one_bad_validation_more_than_its_patience() -> None:
    optimizer = two_groups()
    schedule = WarmupPlateau(optimizer, replace(PLATEAU, min_lr=0.2), lr=1.0, warmup_steps=0)
    losses = [5.0, 4.0, 4.0, 4.5, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9]
    course = []
    for step, loss in enumerate(losses):
        schedule.before_step(step)
        schedule.after_validation(step, loss)
        course.append(rates(optimizer)[0])
    # A better loss starts the count anew; each third bad one halves; never below min_lr.
    assert course == [1, 1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2]
    assert rates(optimizer) == [0.2, 0.2]


def test_validations_of_the_warmup_do_not_count() -> None:
    optimizer = two_groups()
    schedule = WarmupPlateau(optimizer, PLATEAU, lr=1.0, warmup_steps=10)
    for step in range(10):
        schedule.before_step(step)
        schedule.after_validation(step, 1.0)  # neither as bad ones nor as the best
    assert rates(optimizer) == [1.0, 1.0]
    course = []
    for step in range(10, 14):
        schedule.before_step(step)
        schedule.after_validation(step, 2.0)
        course.append(rates(optimizer)[0])
    assert course == [1.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_does_not_count(loss: float) -> None:
    optimizer = two_groups()
    schedule = WarmupPlateau(optimizer, PLATEAU, lr=1.0, warmup_steps=0)
    for step, val_loss in enumerate([3.0, 3.0, 3.0, loss, loss, loss]):
        schedule.after_validation(step, val_loss)
    assert rates(optimizer) == [1.0, 1.0]


@pytest.mark.parametrize("broken_at", range(13))
def test_resumed_schedule_goes_on_as_if_unbroken(broken_at: int) -> None:
    losses = [9.0, 9.0, 9.0, 5.0, 5.0, 5.0, 5.0, 4.0, 4.1, 4.2, 4.3, 4.4, 4.5]

    def course(broken_at: int | None) -> list[list[float]]:
        optimizer = two_groups()
        schedule = WarmupPlateau(optimizer, PLATEAU, lr=1.0, warmup_steps=4)
        seen = []
        for step, loss in enumerate(losses):
            if step == broken_at:
                saved, memory = optimizer.state_dict(), json.loads(json.dumps(schedule.state_dict()))
                optimizer = two_groups()
                schedule = WarmupPlateau(optimizer, PLATEAU, lr=1.0, warmup_steps=4)
                optimizer.load_state_dict(saved)
                schedule.load_state_dict(memory)
            schedule.before_step(step)
            seen.append(rates(optimizer))
            schedule.after_validation(step + 1, loss)
            seen.append(rates(optimizer))
        return seen

    unbroken = course(None)
    assert [rate for rate, _ in unbroken][-1] == 0.25  # both halvings are in it
    assert course(broken_at) == unbroken


def test_factor_and_patience_of_the_new_config_win_over_a_saved_state() -> None:
    old = WarmupPlateau(two_groups(), PLATEAU, lr=1.0, warmup_steps=0)
    old.after_validation(1, 3.0)
    old.after_validation(2, 3.0)  # one bad validation

    optimizer = two_groups()
    new = WarmupPlateau(optimizer, PlateauConfig(factor=0.1, patience=3, min_lr=0.05), lr=1.0, warmup_steps=0)
    new.load_state_dict(old.state_dict())
    course = []
    for step in range(3, 10):
        new.after_validation(step, 3.0)
        course.append(rates(optimizer)[0])
    # Three more bad ones make patience + 1; then four each.
    assert course == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.05])
