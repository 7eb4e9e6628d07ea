"""The table of a sweep, a row per configuration, as people read it: in the terminal and in Markdown."""

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from hp_lightning.common.console import log_table
from hp_lightning.sweeps.comparison.compare import Comparison, Configuration

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


# Heading and format of each figure.
SHOWN = {
    "parameters": ("parameters", ",.0f"),
    "best_val_loss": ("best val loss", ".3f"),
    "perplexity": ("perplexity", ",.1f"),
    "bits_per_char": ("bits per char", ".3f"),
    "unk_rate": ("<UNK>", ".2%"),
    "gap": ("gap", "+.3f"),
    "steps_to_best": ("steps to best", ",.0f"),
    "minutes_to_best": ("minutes to best", ",.1f"),
    "tokens_per_second": ("tokens/s", ",.0f"),
}
WITH_SPREAD = {"best_val_loss", "perplexity", "bits_per_char", "gap"}
REASON, REASON_LENGTH = "reason", 60  # of a failure, its beginning
# What a narrow terminal goes without, the first first.
LEFT_OUT = (
    REASON, "tokens_per_second", "parameters", "minutes_to_best", "perplexity", "bits_per_char", "gap", "steps_to_best",
)  # fmt: skip
WIDEST = 1000  # characters: in a file nothing has to be left out


@dataclass(frozen=True)
class Column:
    """What stands below a heading."""

    heading: str
    cells: list[str]
    is_text: bool = False


def columns(comparison: Comparison, without: Sequence[str] = ()) -> list[Column]:
    """The settings that differ, the figures, and how the runs ended."""
    rows = comparison.configurations
    settings = zip(headings(rows[0]), zip(*map(cells, rows), strict=True), strict=True)
    figures = [name for name in SHOWN if name not in without or name == comparison.figure]
    if not comparison.tokenizers_differ:
        figures.remove("unk_rate")
    seeds = [Column("seeds", [str(each.seeds) for each in rows])] if any(each.seeds > 1 for each in rows) else []
    return [
        *(Column(heading, list(values), is_text=True) for heading, values in settings),
        *(Column(SHOWN[name][0], [_figure(each, name) for each in rows]) for name in figures),
        *seeds,
        Column("status", [_status(each, REASON not in without) for each in rows], is_text=True),
    ]


def _figure(configuration: Configuration, name: str) -> str:
    form = SHOWN[name][1]
    if name in WITH_SPREAD:
        return with_spread(configuration, name, form)
    mean = configuration.figures[name].mean
    return "" if math.isnan(mean) else format(mean, form)


def _status(configuration: Configuration, with_reason: bool) -> str:
    reason = next((run.reason for run in configuration.runs if not run.is_complete and run.reason), None)
    shown = f": {textwrap.shorten(reason, REASON_LENGTH, placeholder=' …')}" if reason and with_reason else ""
    return configuration.status + shown


def log_comparison(comparison: Comparison, width: int) -> None:
    """Say the table to a terminal of so many characters per line, with the columns that fit into it."""
    narrower = (columns(comparison, LEFT_OUT[:count]) for count in range(len(LEFT_OUT) + 1))
    shown = next((shown for shown in narrower if _width(shown) <= width), columns(comparison, LEFT_OUT))
    rows = zip(*(column.cells for column in shown), strict=True)
    text_columns = [place for place, column in enumerate(shown) if column.is_text]
    log_table([column.heading for column in shown], rows, text_columns=text_columns, width=width)


def _width(shown: list[Column]) -> int:
    """Characters a line where nothing has to be folded: each column has a space on either side, and a rule between."""
    return sum(max(map(cell_len, (column.heading, *column.cells))) + 3 for column in shown) - 1


def markdown_table(comparison: Comparison) -> str:
    """The whole table in Markdown."""
    shown = columns(comparison)
    rules = [":--" if column.is_text else "--:" for column in shown]
    rows = zip(*(map(escaped, column.cells) for column in shown), strict=True)
    lines = [[escaped(column.heading) for column in shown], rules, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """A line of text in which Markdown sees none of its own signs."""
    return re.sub(r"([\\`*<|])", r"\\\1", " ".join(text.split()))
