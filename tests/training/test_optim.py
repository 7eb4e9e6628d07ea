"""Weight decay, the two optimizers, and the learning rate's course, in one run and over a resume."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hp_lightning.models.gpt import GPT
from hp_lightning.schema.optim import OptimConfig, PlateauConfig
from hp_lightning.schema.train import TrainConfig
from hp_lightning.training.muon import orthogonalize
from hp_lightning.training.optim import build_optimizer, clip_gradients, parameter_groups
from hp_lightning.training.schedule import Schedule

PLATEAU = PlateauConfig(factor=0.5, patience=2, min_lr=0.0)
SIZES = (
    "model.vocab_size=7",
    "model.d_model=8",
    "model.num_heads=2",
    "model.num_layers=2",
    "model.d_ff=8",
)


OPTIM = OptimConfig(
    name="adamw", lr=1.0, betas=[0.9, 0.99], eps=1e-8, muon_lr=0.02, muon_momentum=0.95,
    warmup_steps=0, schedule="plateau", decay_fraction=0.5, final_lr_fraction=0.0, plateau=PLATEAU,
)  # fmt: skip


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
    overrides = ("regularization=light", "optim.lr=0.01", "optim.betas=[0.8,0.95]", "optim.eps=0.1")
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
    optim = make_config(f"optim={name}", "optim.lr=0.1", "regularization=light").optim
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


def network(make_config: Callable[..., TrainConfig], *overrides: str) -> tuple[GPT, OptimConfig]:
    torch.manual_seed(1)
    cfg = make_config("optim=muon", *SIZES, *overrides)
    return GPT(cfg.model), cfg.optim


def give_gradients(net: GPT, seed: int, size: float = 1.0) -> None:
    random = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = size * torch.randn(parameter.shape, generator=random)


def test_muon_moves_hidden_matrices_as_the_library_does_and_adamw_the_rest(
    make_config: Callable[..., TrainConfig],
) -> None:
    net, optim = network(make_config)
    twin, _ = network(make_config)
    optimizer = build_optimizer(net, optim, weight_decay=0.1, dtype=torch.bfloat16)  # the library's
    hidden = [p for name, p in twin.named_parameters() if "blocks" in name and p.dim() == 2]
    tables = [twin.token_embedding.weight]
    rest = [p for p in twin.parameters() if p.dim() < 2]
    assert len(hidden) == 8  # four a block
    muon = torch.optim.Muon(hidden, lr=optim.muon_lr, weight_decay=0.1, momentum=optim.muon_momentum)
    groups = [{"params": tables, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=optim.lr, betas=tuple(optim.betas), eps=optim.eps)
    for step, size in enumerate((1.0, 100.0, 0.01)):
        give_gradients(net, step, size)
        give_gradients(twin, step, size)
        norm = clip_gradients(optimizer, 0.5)
        assert_close(norm, nn.utils.clip_grad_norm_(twin.parameters(), 0.5).float())
        optimizer.step()
        muon.step()
        adamw.step()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(3, 8, 24), (2, 24, 8), (1, 16, 16)])
def test_matrices_are_orthogonalized_one_for_one(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    matrices[0] *= 1e-3
    made = orthogonalize(matrices)
    for before, after in zip(matrices, made, strict=True):
        left, _, right = torch.linalg.svd(before, full_matrices=False)
        in_its_directions = left.T @ after @ right.T
        stretched = in_its_directions.diag()
        assert_close(in_its_directions, stretched.diag(), rtol=0, atol=1e-4)  # the directions stay
        assert stretched.min() > 0.6
        assert stretched.max() < 1.3


def test_muon_goes_on_from_its_state_bit_for_bit(make_config: Callable[..., TrainConfig]) -> None:
    net, optim = network(make_config)
    optimizer = build_optimizer(net, optim, weight_decay=0.1)
    for step in range(3):
        give_gradients(net, step)
        optimizer.step()
    other, _ = network(make_config)
    other.load_state_dict(net.state_dict())
    resumed = build_optimizer(other, optim, weight_decay=0.1)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    resumed.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    for group in [*optimizer.param_groups, *resumed.param_groups]:
        group["lr"] *= 0.5  # a schedule's
    for step in range(3, 6):
        for one, its in ((net, optimizer), (other, resumed)):
            give_gradients(one, step)
            clip_gradients(its, 1.0)
            its.step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def course(optim: OptimConfig, steps: int) -> list[float]:
    optimizer = two_groups(lr=1.0)
    schedule = Schedule(optimizer, optim, total_steps=steps)
    rates_of_steps = []
    for step in range(steps):
        schedule.before_step(step)
        first, second = rates(optimizer)
        assert first == second
        rates_of_steps.append(first)
    return rates_of_steps


def test_warmup_is_exactly_linear() -> None:
    assert course(replace(OPTIM, warmup_steps=5), 8) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1], rel=1e-12)


def test_without_warmup_the_first_step_has_the_whole_rate() -> None:
    assert course(OPTIM, 2) == [1.0, 1.0]


def test_cosine_falls_from_the_whole_rate_to_the_final_one() -> None:
    optim = replace(OPTIM, schedule="cosine", warmup_steps=2, final_lr_fraction=0.1)
    falling = course(optim, 10)
    assert falling[:3] == [0.5, 1.0, 1.0]
    assert falling[6] == pytest.approx(0.1 + 0.9 * 0.5)  # half of the way
    assert falling[-1] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 7 / 8)) / 2)


def test_wsd_is_stable_and_falls_linearly_in_the_end() -> None:
    optim = replace(OPTIM, schedule="wsd", warmup_steps=2, decay_fraction=0.4)
    assert course(optim, 10) == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    whole = course(replace(optim, decay_fraction=1.0), 10)  # falls from the warm-up's end on
    assert whole == pytest.approx([0.5, 1, *(1 - step / 8 for step in range(8))])


def test_plateau_has_the_last_word_over_a_schedule() -> None:
    optimizer = two_groups()
    optim = replace(OPTIM, schedule="cosine", plateau=replace(PLATEAU, patience=0))
    schedule = Schedule(optimizer, optim, total_steps=4)
    schedule.after_validation(1, 3.0)
    schedule.after_validation(1, 3.0)
    schedule.before_step(2)
    assert rates(optimizer) == [pytest.approx(0.25)] * 2  # half of the cosine's half


def test_without_patience_the_validation_loss_has_no_say() -> None:
    optimizer = two_groups()
    schedule = Schedule(optimizer, replace(OPTIM, plateau=replace(PLATEAU, patience=None)), total_steps=9)
    for step in range(9):
        schedule.after_validation(step, 3.0)
        schedule.before_step(step)
    assert rates(optimizer) == [1.0, 1.0]


def lowered(schedule: Schedule, optimizer: torch.optim.Optimizer, losses: list[float], first: int = 0) -> list[float]:
    """The rate after each validation, one of them after every step."""
    rates_after = []
    for step, loss in enumerate(losses, start=first):
        schedule.after_validation(step, loss)
        schedule.before_step(step)
        rates_after.append(rates(optimizer)[0])
    return rates_after


def test_plateau_halves_after_one_bad_validation_more_than_its_patience() -> None:
    optimizer = two_groups()
    schedule = Schedule(optimizer, replace(OPTIM, plateau=replace(PLATEAU, min_lr=0.2)), total_steps=99)
    losses = [5.0, 4.0, 4.0, 4.5, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9]
    # A better loss starts the count anew; each third bad one halves; never below min_lr.
    expected = [1, 1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2]
    assert lowered(schedule, optimizer, losses) == expected


def test_validations_of_the_warmup_do_not_count() -> None:
    optimizer = two_groups()
    schedule = Schedule(optimizer, replace(OPTIM, warmup_steps=10), total_steps=99)
    for step in range(10):
        schedule.after_validation(step, 1.0)  # neither as bad ones nor as the best
    assert lowered(schedule, optimizer, [2.0] * 4, first=10) == [1.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_does_not_count(loss: float) -> None:
    optimizer = two_groups()
    schedule = Schedule(optimizer, OPTIM, total_steps=99)
    assert lowered(schedule, optimizer, [3.0, 3.0, 3.0, loss, loss, loss])[-1] == 1.0


@pytest.mark.parametrize("name", ["plateau", "cosine", "wsd"])
@pytest.mark.parametrize("broken_at", range(13))
def test_resumed_schedule_goes_on_as_if_unbroken(broken_at: int, name: str) -> None:
    losses = [9.0, 9.0, 9.0, 5.0, 5.0, 5.0, 5.0, 4.0, 4.1, 4.2, 4.3, 4.4, 4.5]
    optim = replace(OPTIM, schedule=name, warmup_steps=4)

    def course(broken_at: int | None) -> list[float]:
        optimizer = two_groups()
        schedule = Schedule(optimizer, optim, total_steps=13)
        seen = []
        for step, loss in enumerate(losses):
            if step == broken_at:
                saved, memory = optimizer.state_dict(), json.loads(json.dumps(schedule.state_dict()))
                optimizer = two_groups()
                schedule = Schedule(optimizer, optim, total_steps=13)
                optimizer.load_state_dict(saved)
                schedule.load_state_dict(memory)
            schedule.before_step(step)
            seen += rates(optimizer)
            schedule.after_validation(step + 1, loss)
        return seen

    unbroken = course(None)
    assert unbroken[-1] <= 0.25  # both halvings are in it
    assert course(broken_at) == unbroken


def test_factor_and_patience_of_the_new_config_win_over_a_saved_state() -> None:
    old = Schedule(two_groups(), OPTIM, total_steps=99)
    old.after_validation(1, 3.0)
    old.after_validation(2, 3.0)  # one bad validation

    optimizer = two_groups()
    plateau = PlateauConfig(factor=0.1, patience=3, min_lr=0.05)
    new = Schedule(optimizer, replace(OPTIM, plateau=plateau), total_steps=99)
    new.load_state_dict(old.state_dict())
    # Three more bad ones make patience + 1; then four each.
    expected = [1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.05]
    assert lowered(new, optimizer, [3.0] * 7, first=3) == pytest.approx(expected)
