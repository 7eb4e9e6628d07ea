"""How configurations, their settings and their figures are named where people read them."""

import math
import re
from collections import Counter
from collections.abc import Iterable

from hp_lightning.sweeps.comparison.configurations import Configuration

NAMES = {"best_val_loss": "validation loss", "bits_per_char": "bits per character"}  # of what is compared
DIGITS = 4  # of a setting that was drawn at random; summary.csv has all


def named(configuration: Configuration) -> str:
    """By the settings in which it differs from others, as one types them; where there are none, by a run."""
    known = [f"{key}={shortened(value)}" for key, value in configuration.settings.items() if value is not None]
    return " ".join(known) or _without_settings(configuration)


def _without_settings(configuration: Configuration) -> str:
    """What there is to call it by where no setting differs: the run, or that they are several."""
    return configuration.runs[0].folder.name if len(configuration.runs) == 1 else f"{len(configuration.runs)} runs"


def cells(configuration: Configuration) -> list[str]:
    """The same without the keys, in their order; nothing where a setting is not known."""
    values = ["" if value is None else shortened(value) for value in configuration.settings.values()]
    return values or [_without_settings(configuration)]


def headings(configuration: Configuration) -> list[str]:
    """What stands above these: the last parts of the keys, as far as they tell them apart."""
    return _last_parts(configuration.settings) or ["run"]


def _last_parts(keys: Iterable[str]) -> list[str]:
    keys = list(keys)
    parts = Counter(key.rpartition(".")[2] for key in keys)
    return [last if parts[last := key.rpartition(".")[2]] == 1 else key for key in keys]


def shortened(value: str) -> str:
    """A setting, a fraction with few digits."""
    return f"{float(value):.{DIGITS}g}" if re.fullmatch(r"-?\d+\.\d{4,}(e-?\d+)?", value) else value


def with_spread(configuration: Configuration, figure: str, form: str) -> str:
    """A figure and its standard deviation over the seeds: 3.980 ± 0.012; nothing where it is not known."""
    spread = configuration.figures[figure]
    if math.isnan(spread.mean):
        return ""
    return format(spread.mean, form) + ("" if spread.std is None else f" ± {format(spread.std, form.lstrip('+'))}")
