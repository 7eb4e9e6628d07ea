"""The results of a sweep: summary.csv and summary.png, and the table and the verdict in the terminal."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from hp_lightning.common.console import log
from hp_lightning.common.errors import RunError
from hp_lightning.common.files import atomic_write, atomic_write_text
from hp_lightning.sweeps.comparison.compare import METRICS, Comparison, compare
from hp_lightning.sweeps.comparison.runs import RunRecord, read_run
from hp_lightning.sweeps.comparison.table import log_comparison
from hp_lightning.sweeps.comparison.verdict import verdict


def summarize(folders: Sequence[Path], to: Path) -> None:
    """Read run folders, compare them, and write the results into the folder `to`.

    Raises:
        RunError: none of the folders is there any more, or `to` cannot be written
    """
    from hp_lightning.sweeps.comparison.plot import draw  # Matplotlib is imported only where something is drawn

    records = [record for record in map(read_run, folders) if record is not None]
    if not records:
        raise RunError("compare.no_runs", "the run folders are gone: there is nothing to summarize")
    comparison = compare(records)
    log_comparison(comparison)
    for line in ["", *verdict(comparison), *_remarks(comparison, records, len(folders))]:
        log.info("%s", line)
    try:
        atomic_write_text(to / "summary.csv", _csv(comparison))
        with atomic_write(to / "summary.png") as file:
            draw(comparison, file)
    except OSError as error:
        raise RunError(
            "output.not_writable", f"{to} cannot be written ({error.strerror}): the summary is shown above only"
        ) from error
    log.info("\nsummary    %s, %s", to / "summary.csv", to / "summary.png")


def _remarks(comparison: Comparison, records: list[RunRecord], wanted: int) -> list[str]:
    """Every run that did not end well, is not counted or cannot be read, and why."""
    endings = [
        f"{record.status}: {record.folder}" + (f": {' '.join(record.reason.split())}" if record.reason else "")
        for record in records
        if not record.is_complete
    ]
    again = [f"skipped (duplicate of the same configuration and seed): {run.folder}" for run in comparison.repeated]
    gone = [f"run folders that are gone: {wanted - len(records)}"] if wanted > len(records) else []
    remarks = [*endings, *again, *gone, *(line for record in records for line in record.damage)]
    return ["", *remarks] if remarks else []


def _csv(comparison: Comparison) -> str:
    """One row per configuration, every metric to its last digit."""
    written = io.StringIO()
    keys = list(comparison.configurations[0].settings)
    spreads = [f"{name}_{statistic}" for name in METRICS for statistic in ("mean", "std")]
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow([*keys, *spreads, "seeds", "status", "reasons", "runs"])
    for each in comparison.configurations:
        numbers = [value for name in METRICS for value in (each.metrics[name].mean, each.metrics[name].std)]
        rows.writerow([
            *(each.settings[key] for key in keys),
            *("" if value is None or math.isnan(value) else repr(value) for value in numbers),
            each.seeds,
            each.status,
            "; ".join(run.reason for run in each.runs if run.reason),
            "; ".join(str(run.folder) for run in each.runs),
        ])  # fmt: skip
    return written.getvalue()
