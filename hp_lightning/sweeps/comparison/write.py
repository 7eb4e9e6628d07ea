"""The results of a sweep: summary.csv and summary.png, and the table and the verdict in the terminal."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hp_lightning.common.console import log
from hp_lightning.common.errors import RunError
from hp_lightning.common.files import atomic_write, atomic_write_text
from hp_lightning.sweeps.comparison.compare import Comparison, compare
from hp_lightning.sweeps.comparison.runs import RunRecord, read_run
from hp_lightning.sweeps.comparison.table import log_comparison
from hp_lightning.sweeps.comparison.verdict import verdict


def summarize(folders: Sequence[Path], to: Path) -> None:
    """Read run folders, compare them, and write the results into the folder `to`.

    Raises:
        RunError: none of the folders is there any more, or `to` cannot be written
    """
    from hp_lightning.sweeps.comparison.plot import draw  # Matplotlib is imported only where something is drawn

    comparison, records = compared(folders)
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


def compared(folders: Sequence[Path]) -> tuple[Comparison, list[RunRecord]]:
    """The comparison of the runs in some folders, and the runs that are still there.

    Raises:
        RunError: none is
    """
    records = [record for record in map(read_run, folders) if record is not None]
    if not records:
        raise RunError("compare.no_runs", "the run folders are gone: there is nothing to summarize")
    return compare(records), records


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


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per configuration, the best first, every metric to its last digit; None is not known."""
    return [
        {
            **each.settings,
            **{
                f"{name}_{statistic}": None if value is None or math.isnan(value) else value
                for name, spread in each.metrics.items()
                for statistic, value in vars(spread).items()
            },
            "seeds": each.seeds,
            "status": each.status,
            "reasons": "; ".join(run.reason for run in each.runs if run.reason),
            "runs": "; ".join(str(run.folder) for run in each.runs),
        }
        for each in comparison.configurations
    ]


def _csv(comparison: Comparison) -> str:
    written = io.StringIO()
    table = csv.DictWriter(written, list(rows(comparison)[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows(comparison))
    return written.getvalue()
