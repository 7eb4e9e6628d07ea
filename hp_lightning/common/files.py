"""Files that are written: looked at before the work whose results go there, and whole or not at all."""

import os
from contextlib import suppress
from pathlib import Path

from hp_lightning.common.errors import InputError

PROJECT = Path(__file__).resolve().parents[2]  # the folder with conf/ and train.py


def check_target(named: str, path: Path, *sources: Path) -> None:
    """Finds out whether a file can be written, before anything has been computed for it.

    Args:
        named: how the person knows the place, as in out=scores.csv
        sources: files that are read, and must not be lost

    Raises:
        InputError: it cannot, or it is one of the sources
    """
    if path.is_dir():
        raise InputError("output.is_folder", f"{named} is a folder: name a file")
    if path.exists() and not path.is_file():
        raise InputError(
            "output.not_a_file", f"{named} is a device or a pipe, which a file would take the place of: name a file"
        )
    if not path.parent.is_dir():
        raise InputError(
            "output.no_folder",
            f"{named} cannot be written, there is no folder {path.parent}: make it, or name another place",
        )
    if not os.access(path.parent, os.W_OK):
        raise InputError(
            "output.not_writable", f"{named} cannot be written, nobody may write in {path.parent}: name another place"
        )
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError("output.not_writable", f"{named} is write-protected: name another file")
    if any(path.exists() and source.exists() and path.samefile(source) for source in sources):
        raise InputError("output.is_source", f"{named} would take the place of what is read: name another file")


def write_whole(path: Path, content: bytes) -> None:
    """Puts a file in the place of the one before: whole and on the disk, or not at all; a link stays one.

    Raises:
        OSError: nothing was changed
    """
    path = path.resolve()
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        with suppress(OSError):  # would hide the first error
            unfinished.unlink(missing_ok=True)
