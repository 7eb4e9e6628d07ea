"""The table of a comparison, a row per configuration."""

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable

from hp_lightning.common.console import log_table
from hp_lightning.sweeps.comparison.compare import Comparison, Configuration

NAMES = {"best_val_loss": "validation loss", "bits_per_char": "bits per character"}  # of what is compared
DIGITS = 4  # of a setting that was drawn at random; summary.csv has all
WIDTH = 160  # characters of a line at most
REASON_LENGTH = 60  # characters of why a run failed

# Heading and format of each metric; summary.csv has more.
SHOWN = {
    "best_val_loss": ("best val loss", ".3f"),
    "perplexity": ("perplexity", ",.1f"),
    "bits_per_char": ("bits per char", ".3f"),
    "unk_rate": ("<UNK>", ".2%"),  # where the tokenizers differ
    "gap": ("gap", "+.3f"),
    "steps_to_best": ("steps to best", ",.0f"),
}


def named(configuration: Configuration) -> str:
    """The settings in which it differs from others, as one types them; where there are none, a run."""
    known = [f"{key}={shortened(value)}" for key, value in configuration.settings.items() if value is not None]
    return " ".join(known) or _without_settings(configuration)


def cells(configuration: Configuration) -> list[str]:
    """The values of these settings; nothing where one is not known."""
    values = ["" if value is None else shortened(value) for value in configuration.settings.values()]
    return values or [_without_settings(configuration)]


def _without_settings(configuration: Configuration) -> str:
    return configuration.runs[0].folder.name if len(configuration.runs) == 1 else f"{len(configuration.runs)} runs"


def headings(configuration: Configuration) -> list[str]:
    """The last parts of the keys of these settings, as far as they tell them apart."""
    return _last_parts(configuration.settings) or ["run"]


def _last_parts(keys: Iterable[str]) -> list[str]:
    last_parts = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(last_parts.values())
    return [last if counts[last] == 1 else key for key, last in last_parts.items()]


def shortened(value: str) -> str:
    """A setting, a fraction with few digits."""
    return f"{float(value):.{DIGITS}g}" if re.fullmatch(r"-?\d+\.\d{4,}(e-?\d+)?", value) else value


def with_spread(configuration: Configuration, metric: str, form: str) -> str:
    """A metric and its standard deviation over the seeds: 3.980 ± 0.012; nothing where it is not known."""
    spread = configuration.metrics[metric]
    if math.isnan(spread.mean):
        return ""
    return format(spread.mean, form) + ("" if spread.std is None else f" ± {format(spread.std, form.lstrip('+'))}")


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """The headings, and a row per configuration: the settings that differ, the metrics, how the runs ended."""
    metrics = [name for name in SHOWN if name != "unk_rate" or comparison.tokenizers_differ]
    header = headings(comparison.configurations[0]) + [SHOWN[name][0] for name in metrics] + ["seeds", "status"]
    rows = [
        [
            *cells(each),
            *(with_spread(each, name, SHOWN[name][1]) for name in metrics),
            str(each.seeds),
            each.status + _reason(each),
        ]
        for each in comparison.configurations
    ]
    return header, rows


def _reason(configuration: Configuration) -> str:
    """Why one of its runs has failed, shortened."""
    reason = next((run.reason for run in configuration.runs if not run.is_complete and run.reason), None)
    return "" if reason is None else f": {textwrap.shorten(reason, REASON_LENGTH, placeholder=' …')}"


def log_comparison(comparison: Comparison) -> None:
    """Log the table; a narrow terminal folds its lines, and no setting is cut off."""
    header, rows = table(comparison)
    settings = len(headings(comparison.configurations[0]))
    log_table(header, rows, text_columns=[*range(settings), len(header) - 1], width=WIDTH)
