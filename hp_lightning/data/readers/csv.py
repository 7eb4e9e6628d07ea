"""From a file of text to the names of its columns and its rows, read one at a time."""

import csv
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import IO

from hp_lightning.common.errors import InputError, reason, refusals
from hp_lightning.data.readers.archives import Part
from hp_lightning.data.readers.decoding import text_lines, undecodable
from hp_lightning.data.readers.delimiters import find_delimiter
from hp_lightning.data.readers.parquet import read_parquet
from hp_lightning.schema.data import DataConfig

LONGEST_CELL = 2 ** (8 * struct.calcsize("l") - 1) - 1  # a C long: all that csv can be told; a cell may hold a book
SAMPLE_CHARACTERS = 2**16

# What spreadsheets write above the header, to tell each other what parts the columns.
SPREADSHEET_LINE = re.compile(r'"?sep=([^"\r\n])"?\s*')

Rows = Iterator[tuple[int, Sequence[str]]]


@dataclass(frozen=True)
class Table:
    """What is in a file.

    Args:
        names: of the columns; none where the file is plain text, whose lines are rows of one cell
        rows: each with the line on which it starts
        delimiter: what parts the columns of a CSV file
    """

    names: list[str]
    rows: Rows
    delimiter: str | None = None


@contextmanager
def open_table(part: Part, cfg: DataConfig) -> Iterator[Table]:
    """Open a file to be read row by row.

    Raises:
        InputError: what is in it cannot be read; also while its rows are read.
    """
    try:
        with refusals(part.label), part.open() as file:
            if part.ending == ".parquet":
                names, rows = read_parquet(part, file)
                yield Table(names, rows)
            elif part.ending == ".txt":
                yield Table([], _text_rows(text_lines(part, file, cfg.encoding)))
            else:
                yield _csv_table(part, file, cfg)
    except UnicodeDecodeError as error:
        raise InputError("data.wrong_encoding", undecodable(part, cfg.encoding, error)) from error
    except UnicodeError as error:
        raise InputError(
            "data.wrong_encoding", f"{part.label} is not text in {cfg.encoding} ({reason(error)}): set data.encoding"
        ) from error


def _csv_table(part: Part, file: IO[bytes], cfg: DataConfig) -> Table:
    lines = text_lines(part, file, cfg.encoding)
    sample = _sample(lines)
    first_line, separator = 1, SPREADSHEET_LINE.fullmatch(sample[0]) if sample else None
    if separator:
        first_line, sample = 2, sample[1:]
    delimiter = separator[1] if separator and cfg.delimiter is None else find_delimiter(cfg, sample)
    rows = _csv_rows(part, chain(sample, lines), delimiter, first_line)
    line, first = next((row for row in rows if row[1]), (0, []))  # empty lines may come before the header
    if cfg.header:
        return Table([name.strip() for name in first], rows, delimiter)
    names = [str(position) for position in range(len(first))]
    return Table(names, chain([(line, first)], rows) if first else rows, delimiter)


def _csv_rows(part: Part, lines: Iterator[str], delimiter: str, first_line: int) -> Rows:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = first_line
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + first_line
    except csv.Error as error:
        raise InputError(
            "data.invalid_csv",
            f"{part.label}, line {line}: invalid CSV in the row that starts here ({reason(error)}): a quotation mark "
            "is missing, or one inside a cell is not doubled",
        ) from error


def _text_rows(lines: Iterator[str]) -> Rows:
    number, line = 0, ""
    for number, line in enumerate(lines, 1):
        yield number, [line.rstrip("\r\n")]
    if line.endswith(("\n", "\r")):  # the last line is the empty one behind the last line break
        yield number + 1, [""]


def _sample(lines: Iterator[str]) -> list[str]:
    sample: list[str] = []
    length = 0
    for line in lines:
        sample.append(line)
        length += len(line)
        if length >= SAMPLE_CHARACTERS:
            break
    return sample
