"""Steps 4 to 11: the parts of the network, each at work on the passage."""

from dataclasses import dataclass

import torch
from markupsafe import Markup
from torch import Tensor
from torch.nn import functional as F

from hp_lightning.checkpoint import blank_network
from hp_lightning.common.plots import attention_figure
from hp_lightning.models.functional import sinusoidal_table
from hp_lightning.models.gpt import GPT, Dropout, make_activation
from hp_lightning.schema.model import ModelConfig
from hp_lightning.tasks.course.plots import activation_figure, norm_figure, position_figure, svg
from hp_lightning.tasks.course.subject import Inside, Subject
from hp_lightning.tokenizers.base import labels

POSITIONS = {
    "learned": "learned: the embedding of each position",
    "sinusoidal": "sinusoidal: what is added at each position",
    "rotary": "rotary: cosine and sine of each pair of features",
}
LOOKING = 10  # tokens whose attention is drawn
POSITIONS_DRAWN = 128  # at most
DROPPED = 16  # features that are shown before and after dropout
COURSE_DROPOUT = 0.1
REACH = 3.0  # of the activations' picture to both sides
MEASURED_TOKENS = 4
PARTS = {
    "token_embedding": "token embeddings",
    "position_embedding": "position embeddings",
    "attention": "attention",
    "feed_forward": "feed-forward layers",
    "norm": "normalization",
    "head": "output head",
}
ACTIVATIONS = {"relu": "ReLU", "gelu": "GELU", "relu_squared": "ReLU²"}


@dataclass(frozen=True)
class Spread:
    """The features of a token, before and after normalization."""

    label: str
    mean: float
    std: float
    mean_after: float
    std_after: float
    rms_after: float


@dataclass(frozen=True)
class Norms:
    """Step 5."""

    figure: Markup
    label: str  # of the token that is drawn
    spreads: list[Spread]
    gain: tuple[float, float] | None  # the smallest and the largest; None: nothing is learned there


@dataclass(frozen=True)
class Layer:
    """A block at work on the passage."""

    active: float  # share of the hidden units above zero before the activation
    change: float  # length of what the block adds, relative to what it is added to; the mean over the tokens
    guess: str  # what its output, read by the model's head, takes for the next token
    probability: float


@dataclass(frozen=True)
class Network:
    """What steps 4 to 11 show."""

    positions: Markup
    course_positions: Markup | None  # where they are others
    norms: Norms
    attention: list[Markup]  # by layer
    to_first: float  # share of the later tokens' attention that goes to the first, in all heads
    activations: Markup
    dropout_rate: float
    dropout: list[tuple[float, float]]  # features before and after
    layers: list[Layer]
    parts: list[tuple[str, int]]  # with their parameters
    parameters: int
    course_parameters: int


def look_at_network(subject: Subject, course: ModelConfig, seed: int) -> Network:
    """Every part, with pictures.

    Args:
        course: the network that the course builds
        seed: of what dropout leaves out
    """
    net, inside = subject.net, subject.inside
    rate = subject.trained.cfg.regularization.rate("embedding") or COURSE_DROPOUT
    return Network(
        positions=_positions(_position_table(net)[:POSITIONS_DRAWN], net.cfg.position),
        course_positions=None if net.cfg.position == "sinusoidal" else _course_positions(net.cfg),
        norms=_norms(net, inside),
        attention=_attention(inside),
        to_first=float(inside.attention[:, :, 1:, 0].mean()) if len(inside.token_ids) > 1 else 1.0,
        activations=_activations(net.cfg.activation, torch.stack(inside.hidden)),
        dropout_rate=rate,
        dropout=_dropped(inside.embedded[-1], rate, seed),
        layers=_layers(subject),
        parts=_parts(net),
        parameters=net.num_parameters(),
        course_parameters=blank_network(course).num_parameters(),
    )


def _position_table(net: GPT) -> Tensor:
    """What tells positions apart, as `POSITIONS` says: (max_seq_len, F)."""
    if net.cfg.position == "learned":
        return net.position_embedding.weight
    if net.cfg.position == "sinusoidal":
        return net.position_table
    rotation: Tensor = net.blocks[0].attention.rotation  # type: ignore[union-attr, assignment]
    return rotation.flatten(1)


def _positions(table: Tensor, kind: str) -> Markup:
    figure = position_figure(table.detach().float().numpy(), POSITIONS[kind])
    alt = f"Above, {POSITIONS[kind]}, over {len(table)} positions; below, how alike any two positions are."
    return svg(figure, alt)


def _course_positions(cfg: ModelConfig) -> Markup:
    table = sinusoidal_table(min(cfg.max_seq_len, POSITIONS_DRAWN), 2 * (cfg.d_model // 2) or 2)
    return _positions(table, "sinusoidal")


def _norms(net: GPT, inside: Inside) -> Norms:
    before = inside.before_norm
    centred, scaled = F.layer_norm(before, before.shape[-1:]), F.rms_norm(before, before.shape[-1:], eps=1e-5)
    yours = centred if net.cfg.norm == "layer" else scaled
    drawn = [
        ("before", before[-1]),
        (f"after LayerNorm{_whose(net.cfg.norm == 'layer')}", centred[-1]),
        (f"after RMSNorm{_whose(net.cfg.norm != 'layer')}", scaled[-1]),
    ]
    alt = "Histograms of one token's features: before normalization, after LayerNorm, and after RMSNorm."
    last_norm = net.blocks[-1].feed_forward_norm
    gain: Tensor | None = last_norm.weight  # type: ignore[union-attr, assignment]
    places = range(max(len(before) - MEASURED_TOKENS, 0), len(before))
    return Norms(
        figure=svg(norm_figure([(title, values.numpy()) for title, values in drawn]), alt),
        label=inside.labels[-1],
        spreads=[_spread(inside.labels[position], before[position], yours[position]) for position in places],
        gain=None if gain is None else (gain.min().item(), gain.max().item()),
    )


def _whose(is_yours: bool) -> str:
    return " (your model's)" if is_yours else ""


def _spread(label: str, before: Tensor, after: Tensor) -> Spread:
    return Spread(
        label,
        float(before.mean()),
        float(before.std(correction=0)),
        float(after.mean()),
        float(after.std(correction=0)),
        float(after.square().mean().sqrt()),
    )


def _attention(inside: Inside) -> list[Markup]:
    names = inside.labels[:LOOKING]
    layers = inside.attention[:, :, : len(names), : len(names)].numpy()  # nothing later is looked at
    drawn = []
    for number, weights in enumerate(layers, start=1):
        figure = attention_figure(weights, names, f"layer {number} of {len(layers)}: row looks at column")
        alt = f"Attention of layer {number}, a square of {len(names)} by {len(names)} tokens for each head."
        drawn.append(svg(figure, alt))
    return drawn


def _activations(name: str, inputs: Tensor) -> Markup:
    shown = list(dict.fromkeys(["relu", "gelu", name]))
    x = torch.linspace(-REACH, REACH, 121)
    curves = [(ACTIVATIONS[other] + _whose(other == name), make_activation(other)(x).numpy()) for other in shown]
    alt = f"{', '.join(ACTIVATIONS[other] for other in shown)} from -{REACH:g} to {REACH:g}, and a histogram of inputs."
    return svg(activation_figure(curves, x.numpy(), inputs.numpy()), alt)


def _dropped(features: Tensor, rate: float, seed: int) -> list[tuple[float, float]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        after = Dropout(rate).train()(features)
    return list(zip(features[:DROPPED].tolist(), after[:DROPPED].tolist(), strict=True))


@torch.no_grad()
def _layers(subject: Subject) -> list[Layer]:
    net, inside, tokenizer = subject.net, subject.inside, subject.tokenizer
    parts = []
    for before, after, hidden in zip([inside.embedded, *inside.blocks], inside.blocks, inside.hidden, strict=False):
        logits = net.logits(net.final_norm(after[-1]))[: len(tokenizer.vocabulary)]
        best = int(logits.argmax())
        change = (after - before).norm(dim=1) / before.norm(dim=1).clamp(min=1e-12)
        parts.append(
            Layer(
                active=float((hidden > 0).float().mean()),
                change=float(change.mean()),
                guess=labels(tokenizer, [best])[0],
                probability=float(logits.softmax(dim=0)[best]),
            )
        )
    return parts


def _parts(net: GPT) -> list[tuple[str, int]]:
    """Tied weights count with the embeddings."""
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in net.named_parameters():
        words = name.split(".")
        part = next((part for part in PARTS if part in words), "norm")
        counts[part] += parameter.numel()
    return [(PARTS[part], count) for part, count in counts.items() if count]
