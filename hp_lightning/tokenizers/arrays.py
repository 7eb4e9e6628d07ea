"""Long sequences of ids: in short rows that other ids stand for, and in blocks."""

from array import array
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

BLOCK = 4_000_000  # numbers that are looked at together


class Table:
    """Rows of numbers, each of its own length; rows can be added."""

    def __init__(self) -> None:
        self._flat = array("i")
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, row: Iterable[int]) -> None:
        """Add a row."""
        self._flat.extend(row)
        self._ends.append(len(self._flat))

    def expand(self, rows: Ids) -> tuple[Ids, npt.NDArray[np.int64]]:
        """The numbers of the given rows behind each other, and where each row begins among them."""
        ends = np.frombuffer(self._ends, np.int64)
        lengths = ends[rows + 1] - ends[rows]
        begins = np.cumsum(lengths) - lengths
        places = np.arange(int(lengths.sum())) + np.repeat(ends[rows] - begins, lengths)
        return np.frombuffer(self._flat, np.int32)[places], begins


def blocks(pieces: Iterable[Counts]) -> Iterator[Counts]:
    """The pieces joined to blocks of about `BLOCK` numbers."""
    waiting: list[Counts] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield np.concatenate(waiting)
            waiting, size = [], 0
    if waiting:
        yield np.concatenate(waiting)
