"""What a sweep came to: summary.csv, summary.md and summary.png, and the table in the terminal."""

import csv
import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from hp_lightning.errors import RunError
from hp_lightning.messages import log_table
from hp_lightning.progress import console, log
from hp_lightning.reporting import labels
from hp_lightning.reporting.comparison import Comparison, compare
from hp_lightning.reporting.configurations import FIGURES, Configuration
from hp_lightning.reporting.run_folders import RunRecord, read_run
from hp_lightning.reporting.verdict import verdict

# Heading and format of each figure in the tables that people read.
SHOWN = {
    "parameters": ("parameters", ",.0f"),
    "best_val_loss": ("best val loss", ".3f"),
    "perplexity": ("perplexity", ",.1f"),
    "bits_per_char": ("bits per char", ".3f"),
    "unk_rate": ("<UNK>", ".2%"),
    "gap": ("gap", "+.3f"),
    "steps_to_best": ("best at step", ",.0f"),
    "minutes_to_best": ("minutes to best", ",.1f"),
    "tokens_per_second": ("tokens/s", ",.0f"),
}
WITH_SPREAD = {"best_val_loss", "perplexity", "bits_per_char", "gap"}
WIDE = 1000  # characters, enough for any table: in a file nothing has to be folded
REASON_LENGTH = 60  # of a reason in a table; below it stands whole


def summarize(folders: Sequence[Path], to: Path) -> None:
    """Reads run folders, says what they came to, and writes it into the folder `to`.

    Raises:
        RunError: none of the folders is there any more, or `to` cannot be written
    """
    from hp_lightning.reporting.sweep_figure import draw  # Matplotlib is imported only where something is drawn

    records = [record for record in map(read_run, folders) if record is not None]
    if not records:
        raise RunError("the run folders are gone: there is nothing to summarize")
    comparison = compare(records)
    lines = verdict(comparison)
    endings = [*_endings(records), *_gaps(comparison, records, len(folders))]
    _say(comparison, lines, endings)
    try:
        _replace(to / "summary.csv", lambda path: path.write_text(_csv(comparison), encoding="utf-8", newline=""))
        _replace(to / "summary.png", lambda path: draw(comparison, path))
        _replace(to / "summary.md", lambda path: path.write_text(_markdown(to, comparison, lines, endings), "utf-8"))
    except OSError as error:
        raise RunError(f"{to} cannot be written ({error.strerror}): the summary is shown above only") from error
    log.info("\nsummary    %s", ", ".join(str(to / f"summary.{kind}") for kind in ("csv", "md", "png")))


def _say(comparison: Comparison, lines: list[str], endings: list[str]) -> None:
    names, rows = _table(comparison)
    table = Table(show_edge=False)
    for place, name in enumerate(names):
        table.add_column(Text(name), justify="left" if _is_text(comparison, names, place) else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    log_table(table, console.width if console.is_terminal else WIDE)
    for line in ["", *lines, *([""] if endings else []), *endings]:
        log.info("%s", line)


def _table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the tables that people read."""
    shown = [name for name in SHOWN if name != "unk_rate" or comparison.tokenizers_differ]
    seeds = ["seeds"] if any(each.seeds > 1 for each in comparison.configurations) else []
    names = [*labels.headings(comparison.configurations[0]), *(SHOWN[name][0] for name in shown), *seeds, "status"]
    rows = []
    for each in comparison.configurations:
        figures = [_cell(each, name) for name in shown]
        rows.append([*labels.cells(each), *figures, *(str(each.seeds) for _ in seeds), _status(each)])
    return names, rows


def _is_text(comparison: Comparison, names: list[str], place: int) -> bool:
    return place < len(labels.headings(comparison.configurations[0])) or place == len(names) - 1


def _cell(configuration: Configuration, name: str) -> str:
    form = SHOWN[name][1]
    mean = configuration.figures[name].mean
    if name in WITH_SPREAD:
        return labels.with_spread(configuration, name, form)
    return "" if math.isnan(mean) else format(mean, form)


def _status(configuration: Configuration) -> str:
    """How the runs ended, and the beginning of the first reason."""
    reason = next((run.reason for run in configuration.runs if not run.is_complete and run.reason), None)
    return configuration.status + (f": {textwrap.shorten(reason, REASON_LENGTH, placeholder=' …')}" if reason else "")


def _endings(records: list[RunRecord]) -> list[str]:
    """Every run that did not come to its end, and why."""
    return [
        f"{record.status}: {record.folder}" + (f": {' '.join(record.reason.split())}" if record.reason else "")
        for record in records
        if not record.is_complete
    ]


def _gaps(comparison: Comparison, records: list[RunRecord], wanted: int) -> list[str]:
    """What was found and is not counted, or could not be read."""
    again = [f"not counted, a run of the same configuration and seed is: {run.folder}" for run in comparison.repeated]
    gone = [f"run folders that are gone: {wanted - len(records)}"] if wanted > len(records) else []
    return [*again, *gone, *(line for record in records for line in record.damage)]


def _csv(comparison: Comparison) -> str:
    """One row a configuration, every figure to its last digit."""
    written = io.StringIO()
    keys = list(comparison.configurations[0].settings)
    spreads = [f"{name}_{part}" for name in FIGURES for part in ("mean", "std")]
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow([*keys, *spreads, "seeds", "status", "reasons", "runs"])
    for each in comparison.configurations:
        numbers = [value for name in FIGURES for value in (each.figures[name].mean, each.figures[name].std)]
        rows.writerow([
            *(each.settings[key] for key in keys),
            *("" if value is None or math.isnan(value) else repr(value) for value in numbers),
            each.seeds,
            each.status,
            "; ".join(run.reason for run in each.runs if run.reason),
            "; ".join(str(run.folder) for run in each.runs),
        ])  # fmt: skip
    return written.getvalue()


def _markdown(to: Path, comparison: Comparison, lines: list[str], endings: list[str]) -> str:
    names, rows = _table(comparison)
    rules = [":--" if _is_text(comparison, names, place) else "--:" for place in range(len(names))]
    cells = [[*map(_escaped, names)], rules, *([*map(_escaped, row)] for row in rows)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    listed = "\n".join(f"- {_escaped(line)}" for line in endings)
    parts = [f"# {_escaped(to.absolute().name)}", table, *map(_escaped, lines), "![](summary.png)", listed]
    return "\n\n".join(part for part in parts if part) + "\n"


def _escaped(text: str) -> str:
    """What Markdown takes for no sign of its own."""
    return re.sub(r"([\\`*<|])", r"\\\1", " ".join(text.split()))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """The file is whole, or as it was before."""
    unfinished = path.with_name(f".{path.name}")
    write(unfinished)
    unfinished.replace(path)
