"""What only a GPU can show: that it computes what the processor does. Whole runs on one: `benchmarks/gpu.sh`."""

from collections.abc import Callable

import pytest
import torch
from helpers.networks import inputs
from torch import Tensor
from torch.testing import assert_close

from hp_lightning.common.hardware import missing_for_compile
from hp_lightning.inference.generate import Sampling, generate
from hp_lightning.models.functional import rms_norm
from hp_lightning.models.gpt import GPT
from hp_lightning.models.loss import IGNORED, language_model_loss, linear_cross_entropy
from hp_lightning.schema.train import TrainConfig
from hp_lightning.training.compile import compiled
from hp_lightning.training.muon import orthogonalize
from hp_lightning.training.optim import build_optimizer, clip_gradients

GPU = torch.device("cuda")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]

SMALL = ("model.vocab_size=50", "model.d_model=64", "model.num_layers=2", "model.d_ff=128", "model.max_seq_len=32")
NEAR = {"rtol": 1e-3, "atol": 1e-4}  # float32, in which a GPU sums in another order


@pytest.fixture
def cfg(make_config: Callable[..., TrainConfig]) -> TrainConfig:
    return make_config(*SMALL, "regularization.dropout=0")


def network(cfg: TrainConfig) -> GPT:
    """On the processor, the same each time."""
    torch.manual_seed(1)
    return GPT(cfg.model)


def batch() -> tuple[Tensor, Tensor]:
    token_ids = torch.randint(50, (4, 33), generator=torch.Generator().manual_seed(1))
    return token_ids[:, :-1], token_ids[:, 1:]


def value_and_gradients(function: Callable[..., Tensor], *tensors: Tensor) -> list[Tensor]:
    """Of the sum of squares of what a function gives, on the processor."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    value = function(*leaves)
    value.square().sum().backward()
    return [value.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves if leaf.grad is not None)]


def loss_and_gradients(function: Callable[..., Tensor], net: GPT) -> list[Tensor]:
    """Of a network where it is, on the processor."""
    net.zero_grad()
    device = next(net.parameters()).device
    loss = function(net, *(ids.to(device) for ids in batch()))
    loss.backward()
    return [loss.detach().cpu(), *(parameter.grad.cpu() for parameter in net.parameters())]  # type: ignore[union-attr]


def test_the_loss_and_its_own_derivative() -> None:
    hidden, weight = inputs(40, 16), inputs(30, 16)
    targets = torch.arange(40) % 30
    targets[3] = IGNORED

    def on(device: torch.device | str) -> list[Tensor]:
        def loss(hidden: Tensor, weight: Tensor) -> Tensor:
            return linear_cross_entropy(hidden, weight, targets.to(device))

        return value_and_gradients(loss, hidden.to(device), weight.to(device))

    assert_close(on(GPU), on("cpu"), **NEAR)


def test_the_norm_whose_derivative_is_written_by_hand_on_a_processor() -> None:
    x, weight = inputs(3, 5, 64), inputs(64)
    on_processor = value_and_gradients(rms_norm, x, weight)
    assert_close(value_and_gradients(rms_norm, x.to(GPU), weight.to(GPU)), on_processor, **NEAR)


def test_the_network(cfg: TrainConfig) -> None:
    on_processor = loss_and_gradients(language_model_loss, network(cfg))
    assert_close(loss_and_gradients(language_model_loss, network(cfg).to(GPU)), on_processor, **NEAR)


@pytest.mark.skipif(missing_for_compile(GPU) is not None, reason="what compiling needs is missing")
def test_compiled(cfg: TrainConfig) -> None:
    net = network(cfg).to(GPU)
    uncompiled = loss_and_gradients(language_model_loss, net)
    assert_close(loss_and_gradients(compiled(language_model_loss, "cuda"), net), uncompiled, **NEAR)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_of_the_fused_optimizer_with_clipping(optimizer: str, make_config: Callable[..., TrainConfig]) -> None:
    cfg = make_config(*SMALL, f"optim={optimizer}")

    def after_steps(device: torch.device | str) -> list[Tensor]:
        net = network(cfg).to(device)
        steps = build_optimizer(net, cfg.optim, weight_decay=0.1)
        for _ in range(3):
            loss_and_gradients(language_model_loss, net)
            norm = clip_gradients(steps, 0.1)
            assert norm > 0.1, "there is something to clip"
            steps.step()
        return [parameter.detach().cpu() for parameter in net.parameters()]

    # Adam's first steps have the sign of a gradient, however small: where that is rounding alone, so is the step.
    assert_close(after_steps(GPU), after_steps("cpu"), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 96, 32), (2, 32, 128)])
def test_muons_steps_are_orthogonal(shape: tuple[int, int, int]) -> None:
    matrices = inputs(*shape)
    on_processor = orthogonalize(matrices)
    assert_close(orthogonalize(matrices.to(GPU)).cpu(), on_processor, rtol=1e-3, atol=1e-3)
    in_bfloat16 = orthogonalize(matrices.to(GPU, torch.bfloat16)).float().cpu()
    assert torch.cosine_similarity(in_bfloat16.flatten(), on_processor.flatten(), dim=0) > 0.99
    assert torch.linalg.svdvals(in_bfloat16).max() < 1.4


def test_writing_with_the_cache_is_writing_without(cfg: TrainConfig) -> None:
    net, sampling = network(cfg).to(GPU).eval(), Sampling(temperature=0, max_new_tokens=20, num_samples=2)
    for parameter in net.parameters():  # else the same token would follow itself
        torch.nn.init.normal_(parameter, std=0.2)
    written = [
        step.token_ids for step in generate(net, [1, 2], eos_id=-1, unwritable=[], context=32, sampling=sampling)
    ]
    token_ids = torch.tensor([[1, 2]] * 2, device=GPU)
    with torch.no_grad():
        for _ in range(20):
            following = net.logits(net.features(token_ids)[:, -1]).argmax(dim=-1, keepdim=True)
            token_ids = torch.cat([token_ids, following], dim=1)
    assert torch.tensor(written).T.tolist() == token_ids[:, 2:].tolist()
    assert len(set(token_ids[0].tolist())) > 3
