"""The summary of a sweep, or of any runs: one row a configuration, the curves together, and which one won.

    python -m hp_lightning.reporting DIR... [--to DIR]

DIR is a run folder, or a folder with run folders anywhere below it, as in

    python -m hp_lightning.reporting outputs/sweeps/2026-11-23_10-00-00
    python -m hp_lightning.reporting outputs/runs --to docs

summary.csv, summary.md and summary.png are written into the folder after --to; without it into the one named folder,
or into the one that holds all the named ones.
"""

import argparse
import os
from pathlib import Path
from typing import NoReturn

from hp_lightning.common.console import messages
from hp_lightning.common.errors import InputError, RunError
from hp_lightning.sweeps.comparison.runs import find_run_folders
from hp_lightning.sweeps.comparison.write import summarize


def run() -> None:
    """Finds the runs and sums them up."""
    parser = argparse.ArgumentParser(
        "reporting", argparse.SUPPRESS, __doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--to", metavar="DIR", help=argparse.SUPPRESS)
    parser.error = _refuse  # type: ignore[method-assign]
    try:
        given = parser.parse_args()
        if "" in given.folders or given.to == "":
            raise InputError("config.empty", "the name of a folder is empty: name one (outputs/sweeps/...)")
        folders, into = [Path(name) for name in given.folders], given.to
        found = find_run_folders(folders)
        to = _shared(folders) if into is None else Path(into)
        if not to.is_dir():
            raise InputError("output.no_folder", f"--to {to} is no folder: make it, or name another")
        with messages():
            summarize(found, to)
    except RunError as error:
        parser.exit(error.exit_status, f"{error.line(parser.prog)}\n")


def _refuse(message: str) -> NoReturn:
    raise InputError("cli.usage", message)


def _shared(folders: list[Path]) -> Path:
    if len(folders) == 1:
        return folders[0]
    return Path(os.path.relpath(os.path.commonpath([folder.absolute().parent for folder in folders])))
