"""Files that are written: looked at before the work whose results go there, and whole or not at all."""

import errno
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path

from hp_lightning.common.errors import InputError, RunError

PACKAGE = Path(__file__).resolve().parents[1]
SECONDS_UNTIL_ABANDONED = 24 * 3600  # nothing was written into it meanwhile: its writer was killed


def bundled(path: str) -> Path:
    """A file or folder that comes with the project: `conf`, or one below `books`.

    A wheel has both inside the package; in the project's own folder they lie next to it.
    """
    inside = PACKAGE / path
    return inside if inside.exists() else PACKAGE.parent / path


def check_target(named: str, path: Path, *sources: Path) -> None:
    """Find out whether a file can be written, before anything has been computed for it.

    Args:
        named: how the person knows the place, as in out=scores.csv
        sources: files that are read, and must not be lost

    Raises:
        InputError: it cannot, or it is one of the sources
    """
    if path.is_dir():
        raise InputError("output.is_folder", f"{named} is a folder: name a file")
    if path.exists() and not path.is_file():
        raise InputError("output.not_a_file", f"{named} is not a regular file: name a file")
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
        raise InputError("output.is_source", f"{named} would overwrite an input file: name another file")


@contextmanager
def file_refusals(advice: str) -> Iterator[None]:
    """Turn the error of a file that cannot be written into one line.

    Args:
        advice: what to do once there is room

    Raises:
        RunError: a file cannot be written
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RunError(
            "output.no_room",
            f"{error.filename or 'a file'} cannot be written ({error.strerror}): make room, then {advice}",
        ) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give the error of a file its name: that of a write or a flush has none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


@contextmanager
def atomic_write(path: Path, *, sole_writer: bool = False) -> Iterator[BufferedRandom]:
    """Open a file that takes the place of `path` in the end, whole and on the disk; or nothing is changed.

    A link stays one. Several processes may write the same file at once: what was finished last stays.

    Args:
        path: of the file, in a folder that is there
        sole_writer: no other process can be writing it: what a killed one has left is removed now, not after a day

    Returns:
        the file, for writing and reading; its `name` is for libraries that write to a path

    Raises:
        OSError: nothing was changed; it names `path`
    """
    with naming(path), _taking_the_place_of(path, sole_writer) as unfinished, unfinished.open("xb+") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write` of a text, in UTF-8.

    Raises:
        OSError: nothing was changed; it names `path`
    """
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a folder that takes the place of `path`, where an empty one may be, in the end; or nothing is changed.

    Raises:
        OSError: nothing was changed
    """
    with _taking_the_place_of(path) as unfinished:
        unfinished.mkdir(parents=True)
        yield unfinished
        for written in unfinished.iterdir():
            with written.open("rb") as file:
                os.fsync(file.fileno())


@contextmanager
def _taking_the_place_of(path: Path, sole_writer: bool = False) -> Iterator[Path]:
    """A new name next to `path`: what is made there is renamed to `path` in the end, or else removed."""
    path = path.resolve()
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'?' * 8}.unfinished"):
        with suppress(OSError):  # another process may remove it at the same time
            if sole_writer or time.time() - left.stat().st_mtime > SECONDS_UNTIL_ABANDONED:
                _remove(left)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # it has the name
        os.close(folder)
    finally:
        with suppress(OSError):  # would hide the first error
            _remove(unfinished)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
