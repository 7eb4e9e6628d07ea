"""From `data.path` to local files, downloaded where they are not."""

import glob
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hp_lightning.common.errors import InputError, label, printable, refusals
from hp_lightning.data.downloads import cached_path, download, is_remote, local_path, remote_name
from hp_lightning.schema.data import DataConfig

COMPRESSED = (".gz", ".zip", ".bz2", ".xz")


@dataclass(frozen=True)
class Source:
    """A file that the corpus is read from.

    Args:
        place: what the person typed, or what a glob found
        path: where the file lies
        name: the file's own name, without the ending of a compression
    """

    place: str
    path: Path
    name: str

    @property
    def compression(self) -> str:
        """How the file is packed, by its ending; "" where it is not."""
        return _compression(self.path.name)


def find_sources(cfg: DataConfig) -> list[Source]:
    """The files that `data.path` names, in the order given, those of a glob by name; downloads what is remote.

    Raises:
        InputError: a file cannot be had or read, or is not the one that `data.sha256` tells.
    """
    places = _all_places(cfg)
    sha256 = _sha256(cfg, len(places))
    return [_remote(place, cfg, sha256) if is_remote(place) else _local(place, sha256) for place in places]


def check_local_sources(cfg: DataConfig) -> None:
    """What `find_sources` would refuse of the files on this machine, at once and without reading them.

    Raises:
        InputError: a file does not exist or may not be read
    """
    for place in _all_places(cfg):
        if not is_remote(place):
            _local(place, sha256=None)


def absolute_path(path: Any) -> Any:
    """What `data.path` would be in any other folder: URLs stay as they are."""
    if isinstance(path, list):
        return [absolute_path(entry) for entry in path]
    place = local_path(path)
    return place if is_remote(place) else os.path.abspath(os.path.expanduser(place))


def content_digest(sources: list[Source]) -> str:
    """A digest that tells files of other content, of other endings, or with other names for documents, from these."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(bytes.fromhex(_file_digest(source.path, label(source.place))))
        digest.update(os.fsencode(source.name + source.compression) + b"\0")
    return digest.hexdigest()


def _all_places(cfg: DataConfig) -> list[str]:
    return list(dict.fromkeys(place for entry in _entries(cfg.path) for place in _places(entry)))


def _entries(path: Any) -> list[str]:
    entries = path if isinstance(path, list) else [path]
    for entry in entries:
        if not isinstance(entry, str) or not entry.strip() or "\0" in entry:
            raise InputError(
                "data.not_a_path",
                f"data.path={printable(str(path))}: {printable(repr(entry))} is not a file: name a file, a glob or a "
                "URL, or a list of them",
            )
    if not entries:
        raise InputError("data.not_a_path", "data.path is an empty list: name at least one file")
    return entries


def _places(entry: str) -> list[str]:
    """The files that a glob stands for, or the entry itself."""
    place = local_path(entry)
    path = os.path.expanduser(place)
    if is_remote(place) or os.path.lexists(path) or not glob.has_magic(path):
        return [place]
    files = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
    if not files:
        raise InputError(
            "data.no_match", f"{label(entry)} matches no file (relative to {Path.cwd()}): check the pattern"
        )
    return files


def _sha256(cfg: DataConfig, files: int) -> str | None:
    if cfg.sha256 is None:
        return None
    wanted = cfg.sha256.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", wanted):
        raise InputError(
            "data.invalid_checksum",
            f"data.sha256={printable(cfg.sha256)} is not a SHA-256: it must be 64 hexadecimal digits",
        )
    if files != 1:
        raise InputError(
            "config.conflict",
            f"data.sha256 is of one file, but data.path names {files}: name one, or leave data.sha256 out",
        )
    return wanted


def _local(place: str, sha256: str | None) -> Source:
    path = Path(os.path.expanduser(place))
    where = label(place)
    with refusals(where):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InputError("data.not_a_file", f"{where} is a pipe or a device: save the text to a file and name that")
        path.open("rb").close()
    if sha256 is not None:
        _check(_file_digest(path, where), sha256, where)
    return Source(place, path, _without_compression(path.name))


def _remote(url: str, cfg: DataConfig, sha256: str | None) -> Source:
    where = label(url)
    path = cached_path(url, cfg)
    if not path.exists() or (sha256 is not None and _file_digest(path, where) != sha256):
        with download(url, path) as downloaded:  # what is there already stays until something better is
            if sha256 is not None:
                _check(_file_digest(downloaded, where), sha256, where)
    return Source(url, path, _without_compression(remote_name(url)))


def _check(digest: str, sha256: str, where: str) -> None:
    if digest != sha256:
        raise InputError(
            "data.checksum_mismatch",
            f"{where} is not the file that data.sha256 tells: expected {sha256}, found {digest}; check both, "
            "or leave data.sha256 out",
        )


def _file_digest(path: Path, where: str) -> str:
    with refusals(where), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compression(name: str) -> str:
    ending = Path(name).suffix.lower()
    return ending if ending in COMPRESSED else ""


def _without_compression(name: str) -> str:
    return name[: -len(_compression(name))] if _compression(name) else name
