"""The network against the formulas it claims, written out by hand, and against another implementation of GPT-2."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers.networks import inputs, turned
from torch import Tensor, nn
from torch.testing import assert_close

from hp_lightning.models.functional import sinusoidal_table
from hp_lightning.models.gpt import GPT, Block, CausalSelfAttention, Dropout, FeedForward, make_activation, make_norm
from hp_lightning.schema.model import ModelConfig
from hp_lightning.schema.regularization import RegularizationConfig
from hp_lightning.schema.train import TrainConfig

SMALL = ModelConfig(
    vocab_size=11,
    d_model=8,
    num_heads=2,
    num_layers=2,
    d_ff=12,
    max_seq_len=7,
    position="learned",
    norm="layer",
    norm_position="pre",
    activation="gelu",
    bias=True,
    tie_embeddings=False,
    qk_norm=False,
)
NO_DROPOUT = RegularizationConfig(
    dropout=0.0,
    embedding_dropout=0.0,
    attention_dropout=0.0,
    residual_dropout=0.0,
    weight_decay=0.0,
    gradient_clip_norm=None,
    early_stopping_patience=None,
)


def stirred(module: nn.Module, std: float = 0.4) -> nn.Module:
    """Large random weights, biases and gains included: at their initial values much would hide in rounding."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return module


# What a token sees


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu", "relu_squared"])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
def test_tokens_act_on_later_logits_only(
    position: str, norm: str, norm_position: str, activation: str, tie: bool, qk_norm: bool
) -> None:
    cfg = replace(
        SMALL,
        position=position,
        norm=norm,
        norm_position=norm_position,
        activation=activation,
        tie_embeddings=tie,
        qk_norm=qk_norm,
    )
    net = stirred(GPT(cfg))
    token_ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
    with torch.no_grad():
        before = net(token_ids)
        for changed in range(7):
            other = token_ids.clone()
            other[0, changed] = 7
            difference = (net(other) - before).abs().amax(-1)[0]
            assert (difference[:changed] < 1e-6).all()
            assert (difference[changed:] > 1e-6).all()


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
def test_order_of_past_tokens_matters(position: str) -> None:
    # One layer without positions would see a set of tokens.
    net = stirred(GPT(replace(SMALL, num_layers=1, position=position)))
    first, second = net(torch.tensor([[3, 1, 4, 5]])), net(torch.tensor([[1, 4, 3, 5]]))
    assert (first[0, -1] - second[0, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("pieces", [[1] * 7, [7], [3, 4], [2, 1, 3, 1]])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
@torch.no_grad()
def test_a_cache_stands_for_the_tokens_before(position: str, pieces: list[int]) -> None:
    net = stirred(GPT(replace(SMALL, position=position, qk_norm=True)))
    token_ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8, 2, 8, 1]])
    cache = net.new_cache(2, 7)
    for _ in range(2):  # the memory is as good as new
        logits = torch.cat([net(piece, cache) for piece in token_ids.split(pieces, dim=1)], dim=1)
        assert_close(logits, net(token_ids))
        assert cache.length == 7
        cache.clear()


@torch.no_grad()
def test_a_cache_has_an_end() -> None:
    net = GPT(SMALL)
    small, full = net.new_cache(1, 3), net.new_cache(1, 9)
    net(torch.zeros(1, 3, dtype=torch.long), small)
    with pytest.raises(RuntimeError):
        net(torch.zeros(1, 1, dtype=torch.long), small)
    net(torch.zeros(1, 7, dtype=torch.long), full)
    with pytest.raises(ValueError, match=r"8.*max_seq_len=7"):
        net(torch.zeros(1, 1, dtype=torch.long), full)


def test_too_long_an_input_is_refused() -> None:
    net = GPT(SMALL)
    assert net(torch.zeros(1, 7, dtype=torch.long)).shape == (1, 7, 11)
    with pytest.raises(ValueError, match=r"8.*max_seq_len=7"):
        net(torch.zeros(1, 8, dtype=torch.long))


# The layers' formulas


def test_layer_norm_by_hand() -> None:
    norm = stirred(make_norm(SMALL))
    x = inputs(2, 5, 8)
    mean = x.sum(-1, keepdim=True) / 8
    var = ((x - mean) ** 2).sum(-1, keepdim=True) / 8
    assert_close(norm(x), (x - mean) / torch.sqrt(var + 1e-5) * norm.weight + norm.bias)
    # The formula's eps shows where the variance is small.
    assert_close(norm(x * 1e-3), (x - mean) * 1e-3 / torch.sqrt(var * 1e-6 + 1e-5) * norm.weight + norm.bias)


def test_layer_norm_without_bias_has_none() -> None:
    assert [name for name, _ in make_norm(replace(SMALL, bias=False)).named_parameters()] == ["weight"]


def test_rms_norm_by_hand() -> None:
    norm = stirred(make_norm(replace(SMALL, norm="rms")))
    x = inputs(2, 5, 8)
    assert_close(norm(x), x / torch.sqrt((x**2).sum(-1, keepdim=True) / 8 + 1e-5) * norm.weight)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", lambda x: max(0.0, x)),
        ("relu_squared", lambda x: max(0.0, x) ** 2),
        ("gelu", lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    ],
)
def test_activation_by_hand(name: str, formula: Callable[[float], float]) -> None:
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    expected = torch.tensor([formula(value) for value in x.tolist()], dtype=torch.float64)
    assert_close(make_activation(name)(x), expected, rtol=0, atol=1e-9)
    assert torch.autograd.gradcheck(make_activation(name), x[x.abs() > 0.01].requires_grad_()), "a kink is at 0"


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_attention_by_hand(position: str, bias: bool, qk_norm: bool) -> None:
    attention = stirred(CausalSelfAttention(replace(SMALL, position=position, bias=bias, qk_norm=qk_norm)))
    x = inputs(2, 5, 8)
    weights = attention.query_key_value.weight.split(8)  # Q, K, V below each other
    biases = attention.query_key_value.bias.split(8) if bias else (0.0, 0.0, 0.0)
    queries, keys, values = (x @ weight.T + b for weight, b in zip(weights, biases, strict=True))
    visible = torch.ones(5, 5).tril().bool()
    heads = []
    for features in (slice(0, 4), slice(4, 8)):
        q, k, v = queries[..., features], keys[..., features], values[..., features]
        if qk_norm:
            q, k = (y / (y.square().mean(-1, keepdim=True) + torch.finfo().eps).sqrt() for y in (q, k))
        if position == "rotary":
            q, k = turned(q), turned(k)
        scores = (q @ k.transpose(-2, -1) / math.sqrt(4)).exp() * visible
        heads.append(scores / scores.sum(-1, keepdim=True) @ v)
    expected = torch.cat(heads, -1) @ attention.output.weight.T + (attention.output.bias if bias else 0)
    assert_close(attention(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_feed_forward_by_hand(bias: bool) -> None:
    ff = stirred(FeedForward(replace(SMALL, activation="relu", bias=bias)))
    x = inputs(2, 5, 8)
    assert ff.up.weight.shape == (12, 8)
    hidden = (x @ ff.up.weight.T + (ff.up.bias if bias else 0)).clamp(min=0)
    assert_close(ff(x), hidden @ ff.down.weight.T + (ff.down.bias if bias else 0))


def test_pre_norm_block_by_hand() -> None:
    block = stirred(Block(SMALL))
    x = inputs(2, 5, 8)
    middle = x + block.attention(block.attention_norm(x))
    assert_close(block(x), middle + block.feed_forward(block.feed_forward_norm(middle)))


def test_post_norm_block_by_hand() -> None:
    block = stirred(Block(replace(SMALL, norm_position="post")))
    x = inputs(2, 5, 8)
    middle = block.attention_norm(x + block.attention(x))
    assert_close(block(x), block.feed_forward_norm(middle + block.feed_forward(middle)))


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_network_by_hand(norm_position: str, position: str) -> None:
    net = stirred(GPT(replace(SMALL, norm_position=norm_position, position=position)))
    token_ids = torch.tensor([[3, 1, 4], [1, 5, 9]])
    x = net.token_embedding.weight[token_ids]
    if position == "learned":
        x = x + net.position_embedding.weight[[0, 1, 2]]
    elif position == "sinusoidal":
        x = x * math.sqrt(8) + sinusoidal_table(3, 8)
    for block in net.blocks:
        x = block(x)
    if norm_position == "pre":  # post-norm blocks end in a norm of their own
        x = net.final_norm(x)
    assert_close(net(token_ids), x @ net.head.weight.T)


def test_initial_weights_have_the_spread_of_gpt2() -> None:
    """0.02, at the end of each of the two branches of a layer over √(2 · layers) (Radford et al. 2019, section 2.3)."""
    torch.manual_seed(1)
    net = GPT(replace(SMALL, vocab_size=500, d_model=64, d_ff=256, num_layers=3))
    for name, weight in net.named_parameters():
        if weight.dim() == 2:
            spread = 0.02 / math.sqrt(6) if name.endswith(("output.weight", "down.weight")) else 0.02
            assert weight.std().item() == pytest.approx(spread, rel=0.1), name


# The forms of network that the configs promise


def test_gpt2_gives_the_logits_of_transformers(make_config: Callable[..., TrainConfig]) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = ("d_model=32", "num_heads=4", "num_layers=3", "d_ff=128", "max_seq_len=24", "vocab_size=61")
    cfg = make_config("model=gpt2", "data.seq_len=24", *(f"model.{size}" for size in sizes)).model
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=61, n_positions=24, n_embd=32, n_layer=3, n_head=4, n_inner=128)
    )
    ours = GPT(cfg).eval()
    stirred(theirs, std=0.2).eval()

    state = {}
    for name, weight in theirs.named_parameters():
        for their, our in {
            "transformer.": "",
            "wte": "token_embedding",
            "wpe": "position_embedding",
            "h.": "blocks.",
            "attn.c_attn": "attention.query_key_value",
            "attn.c_proj": "attention.output",
            "mlp.c_fc": "feed_forward.up",
            "mlp.c_proj": "feed_forward.down",
            "ln_1": "attention_norm",
            "ln_2": "feed_forward_norm",
            "ln_f": "final_norm",
        }.items():
            name = name.replace(their, our)
        # Their layers keep (in, out), ours (out, in).
        is_linear = weight.dim() == 2 and "embedding" not in name
        state[name] = weight.T if is_linear else weight
    ours.load_state_dict({**state, "head.weight": state["token_embedding.weight"]})

    token_ids = torch.randint(61, (3, 24), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = theirs(token_ids).logits
        assert logits.std() > 0.1  # or 1e-5 would say nothing
        assert_close(ours(token_ids), logits, rtol=0, atol=1e-5)


def test_gpt2_small_has_its_124_million_parameters(make_config: Callable[..., TrainConfig]) -> None:
    with torch.device("meta"):
        net = GPT(make_config("model=gpt2", "model.vocab_size=50257").model)
    assert net.num_parameters() == 124_439_808


def test_roadmap_is_the_course_s_network(make_config: Callable[..., TrainConfig]) -> None:
    cfg = make_config("experiment=roadmap")
    with torch.device("meta"):
        net = GPT(cfg.model, cfg.regularization)
    vocab_size, d_model, num_layers, d_ff, max_seq_len = 10_000, 512, 6, 2048, 1024

    assert net.token_embedding.weight.shape == (vocab_size, d_model)
    assert net.head.weight.shape == (vocab_size, d_model)
    assert net.head.weight is not net.token_embedding.weight
    assert net.position_table.shape == (max_seq_len, d_model)  # sinusoidal
    assert not hasattr(net, "position_embedding")
    assert isinstance(net.final_norm, nn.Identity)
    assert len(net.blocks) == num_layers
    for block in net.blocks:
        assert not block.pre_norm
        assert isinstance(block.attention_norm, nn.LayerNorm)
        assert isinstance(block.feed_forward_norm, nn.LayerNorm)
        assert block.attention.cfg.num_heads == 8
        assert block.attention.head_dim == 64
        assert not block.attention.cfg.qk_norm
        assert block.attention.query_key_value.weight.shape == (3 * d_model, d_model)
        assert block.feed_forward.up.weight.shape == (d_ff, d_model)
        assert isinstance(block.feed_forward.activation, nn.ReLU)

    attention = 4 * (d_model * d_model + d_model)  # Q, K, V and output
    feed_forward = (d_model * d_ff + d_ff) + (d_ff * d_model + d_model)
    norms = 2 * (d_model + d_model)
    tables = 2 * vocab_size * d_model  # embedding and head
    assert net.num_parameters() == tables + num_layers * (attention + feed_forward + norms) == 29_154_304


def test_tied_weights_are_one_tensor_and_count_once() -> None:
    tied, untied = GPT(replace(SMALL, tie_embeddings=True)), GPT(SMALL)
    assert tied.head.weight is tied.token_embedding.weight
    assert untied.head.weight is not untied.token_embedding.weight
    assert untied.num_parameters() - tied.num_parameters() == 11 * 8


# Training


@pytest.mark.parametrize(
    ("rate", "random_parts"),
    [
        ("attention_dropout", {"attention", "block", "net"}),
        ("residual_dropout", {"block", "net"}),
        ("embedding_dropout", {"net"}),
    ],
)
def test_each_dropout_acts_in_its_place_and_in_training_only(rate: str, random_parts: set[str]) -> None:
    torch.manual_seed(1)
    net = GPT(SMALL, replace(NO_DROPOUT, **{rate: 0.5}))
    token_ids, x = torch.arange(7)[None], inputs(1, 7, 8)
    parts = {"attention": (net.blocks[0].attention, x), "block": (net.blocks[0], x), "net": (net, token_ids)}

    net.train()
    assert {name for name, (part, given) in parts.items() if not torch.equal(part(given), part(given))} == random_parts
    net.eval()
    without = GPT(SMALL).train()
    without.load_state_dict(net.state_dict())
    assert_close(net(token_ids), without(token_ids))


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_residual_dropout_acts_on_both_branches(norm_position: str) -> None:
    block = Block(replace(SMALL, norm_position=norm_position)).train()
    block.dropout = nn.Dropout(1.0)  # nothing of a branch is left
    x = inputs(1, 7, 8)
    alone = x if norm_position == "pre" else block.feed_forward_norm(block.attention_norm(x))
    assert_close(block(x), alone)


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary"])
def test_gradients_reach_every_parameter(position: str, norm_position: str, tie: bool) -> None:
    # As initialized, not stirred: a network of zeros would not train.
    torch.manual_seed(1)
    net = GPT(replace(SMALL, position=position, norm_position=norm_position, tie_embeddings=tie, qk_norm=True))
    token_ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2]])
    nn.functional.cross_entropy(net(token_ids)[0], token_ids[0].roll(-1)).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


# Dropout

RATES = pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.999])


def dropped(rate: float, x: Tensor, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return Dropout(rate).train()(x)


@RATES
def test_dropout_keeps_its_rate_and_the_mean(rate: float) -> None:
    count = 4_000_000
    out = dropped(rate, torch.ones(1000, count // 1000))
    share = (out == 0).float().mean().item()
    assert abs(share - rate) < 4 * math.sqrt(rate * (1 - rate) / count)
    assert abs(out.double().mean().item() - 1) < 4 * math.sqrt(rate / (1 - rate) / count)
    [kept] = out[out != 0].unique().tolist()
    assert kept == pytest.approx(1 / (1 - rate), rel=1 / 131072 / (1 - rate))


@RATES
def test_dropout_is_as_even_in_every_place(rate: float) -> None:
    """A drawn number serves four features: the first of four has no other chances than the last."""
    zeros = (dropped(rate, torch.ones(1_000_000, 4)) == 0).double()
    allowed = 4 * math.sqrt(rate * (1 - rate) / 1_000_000)
    assert ((zeros.mean(0) - rate).abs() < allowed).all()
    # Neither do neighbours fall together: the share of pairs is the product.
    together = (zeros[:, :-1] * zeros[:, 1:]).mean(0)
    assert ((together - rate**2).abs() < 4 * math.sqrt(rate**2 * (1 - rate**2) / 1_000_000)).all()


def test_dropout_does_nothing_in_evaluation_or_at_rate_0() -> None:
    x = inputs(3, 5)
    state = torch.get_rng_state()
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0).train()(x), x)
    assert torch.equal(torch.get_rng_state(), state), "no number is drawn for nothing"


def test_the_seed_draws_the_dropout() -> None:
    x = torch.ones(100, 7)
    assert torch.equal(dropped(0.5, x), dropped(0.5, x))
    assert not torch.equal(dropped(0.5, x), dropped(0.5, x, seed=2))
    torch.manual_seed(1)
    one, other = Dropout(0.5), Dropout(0.5)
    assert not torch.equal(one(x), other(x))
    assert not torch.equal(one(x), one(x))


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (5, 7), (3, 3, 3), (2, 1, 5), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_of_any_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x, dropout = torch.ones(shape, dtype=dtype), Dropout(0.5)
    found = torch.stack([dropout(x) for _ in range(100)])
    assert found.dtype == dtype
    assert found[0].shape == shape
    assert set(found.unique().tolist()) <= {0.0, 2.0}
    assert ((found == 0).any(0) & (found == 2).any(0)).all(), "each place is dropped now and kept then"


@pytest.mark.parametrize("rate", [1e-9, 1 - 1e-9])
def test_every_rate_that_a_config_may_have_is_finite(rate: float) -> None:
    assert dropped(rate, torch.ones(1000)).isfinite().all()


def test_dropout_of_a_view_in_another_order() -> None:
    """Heads are transposed views: which feature is dropped must not depend on how they lie in memory."""
    x = inputs(6, 10).T
    assert torch.equal(dropped(0.5, x), dropped(0.5, x.contiguous()))


@RATES
def test_the_gradient_of_dropout_is_its_mask(rate: float) -> None:
    x = inputs(101, 99).requires_grad_()
    out = dropped(rate, x)
    [gradient] = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient == 0, out == 0)
    assert_close(gradient * x, out)


# Operations


@pytest.mark.parametrize("norm_position", ["pre", "post"])
@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_attention_weights_are_those_by_which_the_forward_pass_mixes(position: str, norm_position: str) -> None:
    net = GPT(replace(SMALL, position=position, norm_position=norm_position, qk_norm=True))
    stirred(net).eval()
    mixed: list[Tensor] = []
    for block in net.blocks:
        block.attention.output.register_forward_pre_hook(lambda _, given: mixed.append(given[0]))
    values: list[Tensor] = []
    for block in net.blocks:
        block.attention.query_key_value.register_forward_hook(lambda _, __, given: values.append(given[..., 16:]))
    token_ids = torch.tensor([[1, 5, 3, 3, 0, 10], [2, 2, 7, 4, 9, 8]])
    net(token_ids)
    expected = list(zip(mixed, values, strict=True))
    weights = net.attention_weights(token_ids)
    assert weights.shape == (2, 2, 2, 6, 6)
    assert_close(weights.sum(dim=-1), torch.ones(2, 2, 2, 6))
    assert (weights.triu(1) == 0).all()
    for of_layer, (out, value) in zip(weights, expected, strict=True):
        heads = value.view(2, 6, 2, 4).transpose(1, 2)
        assert_close((of_layer @ heads).transpose(1, 2).flatten(2), out)


def test_flops_of_a_tied_network_by_hand() -> None:
    """Six for each weight of a matrix and each gain; twelve times layers, features and window for attention."""
    cfg = replace(SMALL, position="rotary", norm="rms", bias=False, tie_embeddings=True)
    head = 11 * 8
    layer = 4 * 8 * 8 + 2 * 8 * 12 + 2 * 8
    weights = head + 2 * layer + 8
    for seq_len in (1, 5, 7):
        assert GPT(cfg).flops_per_token(seq_len) == 6 * weights + 12 * 2 * 8 * seq_len


def test_flops_of_an_untied_network_by_hand() -> None:
    """The embedding is looked up, not multiplied with, and positions are added."""
    head = 11 * 8
    layer = (4 * 8 * 8 + 4 * 8) + (2 * 8 * 12 + 12 + 8) + 2 * (8 + 8)
    weights = head + 2 * layer + (8 + 8)
    assert GPT(SMALL).flops_per_token(5) == 6 * weights + 12 * 2 * 8 * 5  # learned positions
    for position in ("sinusoidal", "rotary"):
        assert GPT(replace(SMALL, position=position)).flops_per_token(5) == 6 * weights + 12 * 2 * 8 * 5
    wider = replace(SMALL, max_seq_len=700)
    assert GPT(wider).flops_per_token(5) == GPT(SMALL).flops_per_token(5)


def test_features_are_what_the_head_reads() -> None:
    net = stirred(GPT(SMALL))
    token_ids = torch.tensor([[3, 1, 4, 1, 5]])
    assert net.features(token_ids).shape == (1, 5, 8)
    assert torch.equal(net.head(net.features(token_ids)), net(token_ids))
