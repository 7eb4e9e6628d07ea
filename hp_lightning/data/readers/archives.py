"""From a source to the files of text in it, unpacked while they are read."""

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from hp_lightning.common.errors import InputError, label, printable, refusals
from hp_lightning.data.sources import Source

READABLE = (".csv", ".tsv", ".txt", ".parquet")
OPENERS: dict[str, Callable[[Path], Any]] = {
    "": lambda path: path.open("rb"),
    ".gz": gzip.GzipFile,
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


@dataclass(frozen=True)
class Part:
    """A file of text: a source, or a member of one that is a zip.

    Args:
        label: the start of messages about it
        name: its name; the ending tells what it is
        open: gives its bytes, unpacked
    """

    label: str
    name: str
    open: Callable[[], IO[bytes]]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def ending(self) -> str:
        """The ending that tells what is in the file, as in ".csv"."""
        return PurePosixPath(self.name).suffix.lower()


def parts_of(source: Source) -> list[Part]:
    """The source itself or, of a zip, every member that can be read, by name.

    Raises:
        InputError: the zip is damaged, encrypted, or holds no such member.
    """
    where = label(source.place)
    if source.compression != ".zip":
        return [Part(where, source.name, partial(OPENERS[source.compression], source.path))]
    with refusals(where), zipfile.ZipFile(source.path) as archive:
        members = sorted(filter(_is_text, archive.infolist()), key=lambda member: member.filename)
    if not members:
        raise InputError(
            "data.empty_archive",
            f"{where} holds no file that can be read: one of {', '.join(READABLE)} was expected in it",
        )
    for member in members:
        if member.flag_bits & 1:
            raise InputError(
                "data.encrypted",
                f"{where}: {printable(member.filename)} is protected by a password: unpack it and name it",
            )
    return [
        Part(
            f"{where}, {printable(member.filename)}",
            PurePosixPath(member.filename).name,
            partial(_open_member, source.path, member),
        )
        for member in members
    ]


def _is_text(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    return not member.is_dir() and "__MACOSX" not in path.parts and path.suffix.lower() in READABLE


def _open_member(path: Path, member: zipfile.ZipInfo) -> IO[bytes]:
    with zipfile.ZipFile(path) as archive:  # the member keeps the file open
        return archive.open(member)
