"""What a sweep came to: summary.csv, summary.md and summary.png, and the table in the terminal."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from hp_lightning.common.console import console, log
from hp_lightning.common.errors import RunError
from hp_lightning.common.files import atomic_write, atomic_write_text
from hp_lightning.sweeps.comparison.compare import FIGURES, Comparison, compare
from hp_lightning.sweeps.comparison.runs import RunRecord, read_run
from hp_lightning.sweeps.comparison.table import WIDEST, escaped, log_comparison, markdown_table
from hp_lightning.sweeps.comparison.verdict import verdict


def summarize(folders: Sequence[Path], to: Path) -> None:
    """Reads run folders, says what they came to, and writes it into the folder `to`.

    Raises:
        RunError: none of the folders is there any more, or `to` cannot be written
    """
    from hp_lightning.sweeps.comparison.plot import draw  # Matplotlib is imported only where something is drawn

    records = [record for record in map(read_run, folders) if record is not None]
    if not records:
        raise RunError("compare.no_runs", "the run folders are gone: there is nothing to summarize")
    comparison = compare(records)
    lines = verdict(comparison)
    endings = [*_endings(records), *_gaps(comparison, records, len(folders))]
    _say(comparison, lines, endings)
    try:
        atomic_write_text(to / "summary.csv", _csv(comparison))
        with atomic_write(to / "summary.png") as file:
            draw(comparison, file)
        atomic_write_text(to / "summary.md", _markdown(to, comparison, lines, endings))
    except OSError as error:
        raise RunError(
            "output.not_writable", f"{to} cannot be written ({error.strerror}): the summary is shown above only"
        ) from error
    log.info("\nsummary    %s", ", ".join(str(to / f"summary.{kind}") for kind in ("csv", "md", "png")))


def _say(comparison: Comparison, lines: list[str], endings: list[str]) -> None:
    log_comparison(comparison, console.width if console.is_terminal else WIDEST)
    for line in ["", *lines, *([""] if endings else []), *endings]:
        log.info("%s", line)


def _endings(records: list[RunRecord]) -> list[str]:
    """Every run that did not come to its end, and why."""
    return [
        f"{record.status}: {record.folder}" + (f": {' '.join(record.reason.split())}" if record.reason else "")
        for record in records
        if not record.is_complete
    ]


def _gaps(comparison: Comparison, records: list[RunRecord], wanted: int) -> list[str]:
    """What was found and is not counted, or could not be read."""
    again = [f"skipped (duplicate of the same configuration and seed): {run.folder}" for run in comparison.repeated]
    gone = [f"run folders that are gone: {wanted - len(records)}"] if wanted > len(records) else []
    return [*again, *gone, *(line for record in records for line in record.damage)]


def _csv(comparison: Comparison) -> str:
    """One row per configuration, every figure to its last digit."""
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
    listed = "\n".join(f"- {escaped(line)}" for line in endings)
    title = f"# {escaped(to.absolute().name)}"
    parts = [title, markdown_table(comparison), *map(escaped, lines), "![](summary.png)", listed]
    return "\n\n".join(part for part in parts if part) + "\n"
