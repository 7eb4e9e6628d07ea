"""What `generate` is told: the root of `conf/generate.yaml`."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hp_lightning.common.errors import InputError
from hp_lightning.schema.checks import resolved, validated
from hp_lightning.schema.config_errors import in_our_words
from hp_lightning.schema.setting import PROBABILITY, SEED, Bound, checkpoint, number, one_of, setting

NOT_OF_SAMPLING = {"ckpt", "prompt_file", "interactive", "format"}
TEMPERATURE = Bound(
    "must be 0, for greedy decoding, or from 0.01 to 100",
    lambda temperature: temperature == 0 or 0.01 <= temperature <= 100,
)


@dataclass
class GenerateConfig:
    """Generate text with a trained model."""

    ckpt: Optional[str] = checkpoint()
    prompt: str = setting("", "text to continue; empty: start a document", verbatim=True, may_be_empty=True)
    prompt_file: Optional[str] = setting(None, "a file with a prompt per line; -: standard input", verbatim=True)
    interactive: bool = setting(False, "whether it asks for one prompt after the other")
    format: str = setting(
        "text",
        "text, or json: one object per sample, with tokens and log-probabilities",
        one_of("text", "json"),
    )
    num_samples: int = setting(1, "samples per prompt", number(at_least=1))
    max_new_tokens: int = setting(200, "longest sample, in tokens", number(at_least=1))
    temperature: float = setting(0.8, "what the logits are divided by", TEMPERATURE)
    top_k: Optional[int] = setting(None, "how many of the likeliest tokens may come; null: all", number(at_least=1))
    top_p: Optional[float] = setting(
        0.95, "only the likeliest tokens, which together have this probability, may come; null: all", PROBABILITY
    )
    min_p: Optional[float] = setting(
        None, "only tokens with this share of the likeliest one's probability; null: all", PROBABILITY
    )
    repetition_penalty: float = setting(
        1.0, "above 1: less of what was there before; 1: none", number(at_least=0.01, at_most=100)
    )
    seed: Optional[int] = setting(None, "makes the samples repeatable; null: drawn, and printed", SEED)


def generate_config(cfg: DictConfig) -> GenerateConfig:
    """A composed Hydra config as a checked `GenerateConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(resolved(cfg), GenerateConfig, _rules)


def generate_settings(given: dict[str, Any]) -> GenerateConfig:
    """Some settings of `generate`, checked; the others have their defaults.

    Raises:
        InputError: a key is unknown, or a value is out of its range
    """
    for key in given.keys() & NOT_OF_SAMPLING:
        raise InputError("config.unknown_key", f"{key} is no setting of sampling: leave it out")
    try:
        return validated({**dataclasses.asdict(GenerateConfig()), **given}, GenerateConfig, _rules)
    except OmegaConfBaseException as error:
        raise in_our_words(error, GenerateConfig) from error


def _rules(cfg: GenerateConfig) -> Iterator[InputError]:
    if cfg.prompt_file is not None and (cfg.prompt or cfg.interactive):
        yield InputError(
            "config.conflict",
            f"prompt_file and {'prompt' if cfg.prompt else 'interactive'} are both given: leave one of the two out",
        )
