"""The form of the network: `conf/model/`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from hp_lightning.common.errors import InputError
from hp_lightning.schema.setting import number, one_of, setting


@dataclass
class ModelConfig:
    """The form of the network; every choice is defined, with its source, in `models/`."""

    vocab_size: Optional[int] = setting(
        None, "rows of the embedding table; null: as many as the tokenizer has", number(at_least=1)
    )
    d_model: int = setting(128, "features per token", number(at_least=1))
    num_heads: int = setting(4, "attention heads per layer", number(at_least=1))
    num_layers: int = setting(4, "number of transformer blocks", number(at_least=1))
    d_ff: int = setting(512, "features within a feed-forward layer", number(at_least=1))
    max_seq_len: int = setting(64, "longest context, in tokens", number(at_least=1))
    position: str = setting("rotary", "positional embedding", one_of("learned", "sinusoidal", "rotary"))
    norm: str = setting("rms", "LayerNorm or RMSNorm", one_of("layer", "rms"))
    norm_position: str = setting(
        "pre", "whether norms stand before each residual branch, or after each sum", one_of("pre", "post")
    )
    activation: str = setting(
        "relu_squared", "activation of feed-forward layers", one_of("relu", "gelu", "relu_squared")
    )
    bias: bool = setting(False, "whether linear layers and LayerNorm have a bias")
    tie_embeddings: bool = setting(True, "whether the output layer's weights are the embedding table")
    qk_norm: bool = setting(True, "whether queries and keys are normalized")


def model_rules(model: ModelConfig, key: str = "model") -> Iterator[InputError]:
    """What the sizes of a network must be to each other.

    Args:
        key: where in the config it stands
    """
    head_dim = model.d_model // model.num_heads
    if model.d_model % model.num_heads:
        yield InputError(
            "model.indivisible_heads",
            f"{key}.num_heads={model.num_heads} does not divide {key}.d_model={model.d_model}: "
            f"each head takes an equal share; try num_heads={_nearest_divisor(model.d_model, model.num_heads)}",
        )
    elif model.position == "rotary" and head_dim % 2:
        yield InputError(
            "model.odd_features",
            f"{key}.position=rotary turns pairs of features, but a head has {head_dim}: "
            "choose them such that d_model / num_heads is even",
        )
    if model.position == "sinusoidal" and model.d_model % 2:
        yield InputError(
            "model.odd_features",
            f"{key}.position=sinusoidal pairs sines with cosines: {key}.d_model={model.d_model} must be even",
        )


def _nearest_divisor(number: int, wish: int) -> int:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: abs(d - wish))
