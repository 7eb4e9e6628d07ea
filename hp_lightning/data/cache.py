"""What was computed once and need not be computed again: named arrays in files that are whole or absent."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hp_lightning.common.console import log
from hp_lightning.common.files import atomic_write

Arrays = dict[str, npt.NDArray[Any]]

HASH = "sha256"
DIGEST_SIZE = hashlib.new(HASH).digest_size


def digest(*parts: Any) -> str:
    """A digest that tells one tuple of plain JSON values from another."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Cache:
    """A folder with a file for each key; several processes may use it at once.

    A file starts with the SHA-256 of the rest: a damaged one is not used, but written again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_writable = True

    def load(self, key: str) -> Arrays | None:
        """The arrays stored under the key; None where there are none, or none that are whole."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                expected = file.read(DIGEST_SIZE)
                if hashlib.file_digest(file, HASH).digest() == expected:
                    file.seek(DIGEST_SIZE)
                    with np.load(file, allow_pickle=False) as arrays:
                        return dict(arrays)
        except OSError:
            return None
        log.warning("the cache file %s is damaged: it is not used, but made again", path)
        return None

    def store(self, key: str, arrays: Arrays) -> None:
        """Write the arrays; a cache that cannot be written is no reason to stop."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path(key)) as file:
                file.write(bytes(DIGEST_SIZE))
                np.savez(file, allow_pickle=False, **arrays)
                file.seek(DIGEST_SIZE)
                digest = hashlib.file_digest(file, HASH).digest()
                file.seek(0)
                file.write(digest)
        except OSError as error:
            if self._is_writable:
                log.warning("the cache %s cannot be written (%s): the next run tokenizes again", self._folder, error)
            self._is_writable = False  # said once

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.cache"


def to_array(value: Any) -> npt.NDArray[np.uint8]:
    """Plain JSON values as an array of bytes; equal values give equal bytes."""
    return np.frombuffer(json.dumps(value, sort_keys=True).encode(), np.uint8)


def from_array(array: npt.NDArray[np.uint8]) -> Any:
    """What `to_array` made the array of."""
    return json.loads(array.tobytes())
