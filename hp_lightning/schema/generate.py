"""What generate and export can be told: their dataclasses, and the checks that a type cannot make."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from hp_lightning.common.errors import InputError
from hp_lightning.schema.checks import (
    at_least,
    between,
    not_empty,
    one_of,
    probability,
    resolved,
    sampling,
    seed,
    validated,
)


@dataclass
class GenerateConfig:
    """Writing with a trained model: the root of `conf/generate.yaml`."""

    ckpt: Optional[str]  # checkpoint file or run folder; null: the newest run below outputs/
    prompt: str
    prompt_file: Optional[str]  # a prompt in each line; -: standard input
    interactive: bool  # asks for one prompt after the other
    format: str  # text | json: an object a line for each sample
    num_samples: int  # of each prompt
    max_new_tokens: int
    temperature: float  # 0: always the likeliest token
    top_k: Optional[int]
    top_p: Optional[float]
    min_p: Optional[float]
    repetition_penalty: float  # 1: none
    seed: Optional[int]  # null: drawn


@dataclass
class ExportConfig:
    """Taking a trained model along: the root of `conf/export.yaml`."""

    ckpt: Optional[str]  # checkpoint file or run folder; null: the newest run below outputs/
    to: str  # the folder that is made


def register() -> None:
    """Makes the dataclasses known to Hydra as the schemas of `conf/*.yaml`."""
    store = ConfigStore.instance()
    store.store(name="generate_schema", node=GenerateConfig)
    store.store(name="export_schema", node=ExportConfig)


def generate_config(cfg: DictConfig) -> GenerateConfig:
    """A composed Hydra config as a checked `GenerateConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(resolved(cfg), GenerateConfig, _generate_problems)


def export_config(cfg: DictConfig) -> ExportConfig:
    """A composed Hydra config as a checked `ExportConfig`.

    Raises:
        InputError: a value is missing
    """
    return validated(resolved(cfg), ExportConfig, _export_problems)


def _generate_problems(cfg: GenerateConfig) -> Iterator[InputError]:
    yield from not_empty("ckpt", cfg.ckpt)
    yield from not_empty("prompt_file", cfg.prompt_file)
    if cfg.prompt_file is not None and (cfg.prompt or cfg.interactive):
        yield InputError(
            "config.conflict",
            f"prompt_file and {'prompt' if cfg.prompt else 'interactive'} are both given: leave one of the two out",
        )
    yield from one_of("format", cfg.format, "text", "json")
    yield from at_least("num_samples", cfg.num_samples, 1)
    yield from sampling(cfg.max_new_tokens, cfg.temperature, cfg.top_k, cfg.top_p)
    yield from between("repetition_penalty", cfg.repetition_penalty, 0.01, 100)
    yield from probability("min_p", cfg.min_p)
    if cfg.seed is not None:
        yield from seed("seed", cfg.seed)


def _export_problems(cfg: ExportConfig) -> Iterator[InputError]:
    yield from not_empty("ckpt", cfg.ckpt)
    yield from not_empty("to", cfg.to)
