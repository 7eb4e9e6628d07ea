"""What parts the columns of a CSV file: as told, or by the look of its first rows."""

import csv
from itertools import islice

from hp_lightning.common.errors import InputError, printable
from hp_lightning.data.readers.columns import has_text_column
from hp_lightning.schema.data import DataConfig

DELIMITERS = (",", ";", "\t", "|")
TAB = ("\\t", "tab")  # as one types it
SAMPLE_ROWS = 100


def find_delimiter(cfg: DataConfig, sample: list[str]) -> str:
    """The character that parts the columns.

    Args:
        cfg: may tell it
        sample: the file's first lines

    Raises:
        InputError: what was told cannot part columns.
    """
    if cfg.delimiter is not None:
        return _told(cfg.delimiter)
    rows_under = {delimiter: _rows(sample, delimiter) for delimiter in DELIMITERS}
    return min(DELIMITERS, key=lambda delimiter: _unlikeliness(cfg, rows_under[delimiter]))


def _told(delimiter: str) -> str:
    if delimiter.lower() in TAB:
        return "\t"
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise InputError(
            "data.invalid_delimiter",
            f"data.delimiter={printable(delimiter)} cannot part columns: it must be one character, such as ; or \\t",
        )
    return delimiter


def _rows(sample: list[str], delimiter: str) -> list[list[str]]:
    """The sample's rows up to the first that is no CSV, such as one that the sample's end cuts off."""
    rows = []
    try:
        for row in islice(filter(None, csv.reader(sample, delimiter=delimiter, strict=True)), SAMPLE_ROWS):
            rows.append([cell.strip() for cell in row])
    except csv.Error:
        pass
    return rows


def _unlikeliness(cfg: DataConfig, rows: list[list[str]]) -> tuple[bool, ...]:
    """Sort delimiters: columns that every row has, a header's first; then only a header's; then a single column."""
    lengths = {len(row) for row in rows}
    parts_header = bool(rows) and len(rows[0]) > 1
    consistent = len(lengths) == 1
    named = cfg.header and parts_header and has_text_column(cfg, rows[0])
    return (
        not (parts_header and consistent and named),
        not (parts_header and consistent),
        not (parts_header and cfg.header and named),
        not (parts_header and cfg.header),
        not consistent,
    )
