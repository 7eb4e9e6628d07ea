"""Rows of parquet files, by pyarrow, which is installed by those who have such files."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

from hp_lightning.common.errors import InputError, extra, reason
from hp_lightning.data.readers.archives import Part

BATCH_ROWS = 1024  # one may hold a book


def read_parquet(part: Part, file: IO[bytes]) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The names of the columns that hold strings, and the rows, each with its number.

    Raises:
        InputError: pyarrow is not installed, the file is damaged, or it has no such column; also while rows are read.
    """
    with extra("parquet", f"{part.label}: a parquet file"):
        import pyarrow
        from pyarrow.parquet import ParquetFile
    with _damage_refused(part):
        # Its end is read first: what is packed must be unpacked whole.
        parquet = ParquetFile(file if isinstance(file, io.BufferedReader) else pyarrow.BufferReader(file.read()))
        names = [field.name for field in parquet.schema_arrow if _is_string(field.type)]
    if not names:
        raise InputError(
            "data.no_text_column", f"{part.label} has no columns of text: at least one of strings was expected"
        )
    return names, _rows(part, parquet, names)


def _rows(part: Part, parquet: Any, names: list[str]) -> Iterator[tuple[int, list[str]]]:
    with _damage_refused(part):
        batches = parquet.iter_batches(BATCH_ROWS, columns=names)
        for number, row in enumerate(chain.from_iterable(map(_batch_rows, batches)), 1):
            if any("\0" in cell for cell in row):
                raise InputError("data.nul_byte", f"{part.label}, row {number}: unexpected NUL byte: leave it out")
            yield number, row


def _batch_rows(batch: Any) -> list[list[str]]:
    columns = [column.to_pylist() for column in batch.columns if _is_string(column.type)]
    return [[cell or "" for cell in row] for row in zip(*columns, strict=True)]


@contextmanager
def _damage_refused(part: Part) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(
            "data.damaged",
            f"{part.label} is not a Parquet file, or is damaged ({reason(error)}): fetch or write it again",
        ) from error


def _is_string(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
