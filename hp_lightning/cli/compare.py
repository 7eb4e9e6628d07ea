"""The summary of a sweep, or of any runs: one row per configuration, the curves together, and which one won.

    hp-lightning compare DIR... [to=DIR]

DIR is a run folder, or a folder with run folders anywhere below it, as in

    hp-lightning compare outputs/sweeps/2026-11-23_10-00-00
    hp-lightning compare outputs/runs to=docs

summary.csv and summary.png are written into the folder that to= names; without it into the one named
folder, or into the one that holds all the named ones.
"""

import os
import sys
from pathlib import Path

from hp_lightning.cli import app
from hp_lightning.common.console import messages, print_help
from hp_lightning.common.errors import InputError
from hp_lightning.sweeps.comparison.runs import find_run_folders
from hp_lightning.sweeps.comparison.write import summarize


def main() -> None:
    """Find the runs, and write and show their summary."""
    folders, to = _given(sys.argv[1:])
    run_folders = find_run_folders(folders)
    to = to or _shared(folders)
    if not to.is_dir():
        raise InputError("output.no_folder", f"to={to} is not a folder: make it, or name another")
    with messages():
        summarize(run_folders, to)


def run() -> None:
    """The command."""
    if {"-h", "--help"} & set(sys.argv):
        print_help(str(__doc__), app.program())
        return
    app.run(main, None)


def _given(words: list[str]) -> tuple[list[Path], Path | None]:
    """The folders, and what `to` says."""
    settings = [word for word in words if "=" in word.partition("/")[0]]
    folders = [word for word in words if word not in settings]
    for word in words:
        if word.startswith("-") or (word in settings and not word.startswith("to=")):
            raise InputError("cli.usage", f"{word} is not known: compare takes folders, and to=DIR")
    if not folders:
        raise InputError("cli.usage", "no folder is named: compare DIR... [to=DIR]")
    if "" in folders or "to=" in settings:
        raise InputError("config.empty", "the name of a folder is empty: name one (outputs/sweeps/...)")
    return [Path(word) for word in folders], Path(settings[-1].removeprefix("to=")) if settings else None


def _shared(folders: list[Path]) -> Path:
    if len(folders) == 1:
        return folders[0]
    return Path(os.path.relpath(os.path.commonpath([folder.absolute().parent for folder in folders])))
