"""A field of a config: its default, its meaning and its bounds, in one place."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bound:
    """What a value must be."""

    predicate: str  # follows key=value in an error, and the meaning in --help: "must be at least 1"
    holds: Callable[[Any], bool]
    code: str = "config.out_of_range"


def setting(default: Any, meaning: str, *bounds: Bound, verbatim: bool = False, may_be_empty: bool = False) -> Any:
    """A dataclass field.

    Args:
        default: a value that OmegaConf takes; an interpolation holds within a composed config alone
        meaning: for --help, with the unit, and what null means
        bounds: all of them must hold for a value that is not null
        verbatim: the value is text or a path, taken as typed, with commas, quotes and all
        may_be_empty: the empty string is a value
    """
    metadata = {"meaning": meaning, "bounds": bounds, "verbatim": verbatim, "may_be_empty": may_be_empty}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def checkpoint() -> Any:
    """The field that names a trained model."""
    return setting(None, "a checkpoint or a run folder; null: the newest run below outputs/", verbatim=True)


def number(
    at_least: float = -math.inf, above: float = -math.inf, at_most: float = math.inf, below: float = math.inf
) -> Bound:
    """A finite number between bounds."""
    ends = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    said = " and ".join(f"{words} {end}" for words, end in ends.items() if math.isfinite(end))
    return Bound(f"must be {said}", lambda value: at_least <= value <= at_most and above < value < below)


def one_of(*choices: str) -> Bound:
    """One of the choices."""
    return Bound(f"must be one of {', '.join(choices)}", choices.__contains__, "config.unknown_choice")


def some_of(*choices: str) -> Bound:
    """A list of at least one of the choices, none twice."""
    return Bound(
        f"must be a list of {', '.join(choices)}",
        lambda values: bool(values) and set(values) <= set(choices) and len(set(values)) == len(values),
        "config.unknown_choice",
    )


POSITIVE = number(above=0)
RATE = number(at_least=0, below=1)
FRACTION = number(at_least=0, at_most=1)
PROPER_FRACTION = number(above=0, below=1)
PROBABILITY = number(above=0, at_most=1)
SEED = Bound("must be at least 0 and below 2**32", lambda value: 0 <= value < 2**32)
NOT_BLANK = Bound("must not be blank", lambda text: bool(text.strip()), "config.empty")
WORDS = Bound(
    "must be a list of words, as in [good,great]",
    lambda words: bool(words) and all(map(str.strip, words)),
    "config.empty",
)
