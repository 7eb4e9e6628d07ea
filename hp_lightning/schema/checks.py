"""Checks of a config that a type cannot make; each yields an error for what is wrong."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Optional, TypeVar, cast

from omegaconf import DictConfig, OmegaConf

from hp_lightning.common.errors import InputError

Schema = TypeVar("Schema")


def resolved(cfg: DictConfig) -> Any:
    """Plain values: a typed config would be taken as it is, keys added by +key=value included."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def escaped(value: Any) -> Any:
    """The same value, in which OmegaConf sees no interpolation any more: ${ is text that somebody typed."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def validated(plain: Any, schema: type[Schema], problems: Callable[[Schema], Iterator[InputError]]) -> Schema:
    """Plain values as the dataclass that they are of.

    Raises:
        InputError: a value is out of its range; names every such key, and has the code of the first.
    """
    typed = cast(Schema, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), escaped(plain))))
    found = list(problems(typed))
    if found:
        raise InputError(found[0].code, "; ".join(map(str, found)))
    return typed


def one_of(key: str, value: str, *choices: str) -> Iterator[InputError]:
    """A value that is none of the choices."""
    if value not in choices:
        yield InputError("config.unknown_choice", f"{key}={value} is not a choice: take one of {', '.join(choices)}")


def not_empty(key: str, value: Optional[str]) -> Iterator[InputError]:
    """An empty string."""
    if value == "":
        yield InputError("config.empty", f"{key} is empty: give it a value, or leave it out")


def at_least(key: str, value: Optional[float], bound: float) -> Iterator[InputError]:
    """A number below the bound, or none at all."""
    if value is not None and not bound <= value < math.inf:
        yield InputError(
            "config.out_of_range", f"{key}={value} is out of range: it must be a number of at least {bound}"
        )


def above(key: str, value: Optional[float], bound: float) -> Iterator[InputError]:
    """A number at the bound or below, or none at all."""
    if value is not None and not bound < value < math.inf:
        yield InputError("config.out_of_range", f"{key}={value} is out of range: it must be a number above {bound}")


def seed(key: str, value: int) -> Iterator[InputError]:
    """A number that no random generator takes."""
    if not 0 <= value < 2**32:
        yield InputError("config.out_of_range", f"{key}={value} is out of range: it must be at least 0 and below 2**32")


def fraction(key: str, value: float) -> Iterator[InputError]:
    """A number that is no share of something."""
    if not 0 <= value <= 1:
        yield InputError("config.out_of_range", f"{key}={value} is not a fraction: it must be at least 0 and at most 1")


def probability(key: str, value: Optional[float]) -> Iterator[InputError]:
    """A number that is no probability that something may have."""
    if value is not None and not 0 < value <= 1:
        yield InputError("config.out_of_range", f"{key}={value} is not a probability: it must be above 0 and at most 1")


def between(key: str, value: float, lowest: float, highest: float) -> Iterator[InputError]:
    """A number outside of two bounds, or none at all."""
    if not lowest <= value <= highest:
        yield InputError(
            "config.out_of_range", f"{key}={value} is out of range: it must be a number from {lowest} to {highest}"
        )


def sampling(
    max_new_tokens: int, temperature: float, top_k: Optional[int], top_p: Optional[float]
) -> Iterator[InputError]:
    """What decoding does not take."""
    yield from at_least("max_new_tokens", max_new_tokens, 1)
    yield from between("temperature", temperature, 0, 100)
    if 0 < temperature < 0.01:
        yield InputError(
            "config.out_of_range",
            f"temperature={temperature} is too small: take 0 for always the likeliest token, or at least 0.01",
        )
    yield from at_least("top_k", top_k, 1)
    yield from probability("top_p", top_p)
