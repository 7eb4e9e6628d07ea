"""Texts to classify, with or without labels: from a CSV file, a file of lines, or standard input."""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, TextIO

from hp_lightning.common.errors import InputError, printable
from hp_lightning.data.normalize import normalized
from hp_lightning.data.readers.archives import Part
from hp_lightning.data.readers.columns import find_text_column
from hp_lightning.data.readers.csv import open_table
from hp_lightning.schema.data import DataConfig

STDIN = "-"
LABELS = {"positive": True, "pos": True, "1": True, "negative": False, "neg": False, "0": False}
LABEL_COLUMNS = ("label", "sentiment", "polarity", "class")


@dataclass(frozen=True)
class Rows:
    """Rows of text as they were read.

    Args:
        names: of the columns; "text" alone where there is no header
        cells: of each row
        texts: of each row, in the form that the corpus has
        lines: on which each row starts
    """

    names: list[str]
    cells: list[Sequence[str]]
    texts: list[str]
    lines: list[int]

    def labels(self, where: str, column: str | None) -> list[bool]:
        """Whether each row is positive.

        Args:
            where: the start of messages about the rows
            column: null: found by its name

        Raises:
            InputError: there is no such column, or a label in it is neither positive nor negative
        """
        column_index = _label_column(self.names, where, column)
        labels = []
        for line, row in zip(self.lines, self.cells, strict=True):
            label = row[column_index].strip().lower()
            if label not in LABELS:
                raise InputError(
                    "sentiment.unknown_label",
                    f"{where}, line {line}: the label {printable(repr(row[column_index]))} is none: take one of "
                    f"{', '.join(LABELS)}",
                )
            labels.append(LABELS[label])
        return labels


def read_rows(key: str, path: str, cfg: DataConfig) -> Rows:
    """Read a CSV file, a file of one text per line, or standard input.

    Args:
        key: the config key by which the file was given
        path: the file; `STDIN` for standard input, a text per line
        cfg: how a CSV is read, and the form of the text

    Raises:
        InputError: it cannot be read, or has no rows
    """
    where = f"{key}={printable(path)}"
    part = Part(where, "stdin.txt" if path == STDIN else path, partial(_opened, path))
    with open_table(part, replace(cfg, header=True)) as table:
        column = find_text_column(cfg, table.names, where) if table.names else 0
        width = max(len(table.names), 1)
        rows = []
        for line, row in table.rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != width:
                raise InputError(
                    "data.ragged_row", f"{where}, line {line}: {len(row)} cells where the header has {width} columns"
                )
            if not row[column].strip():
                name = printable(table.names[column])
                raise InputError(
                    "data.blank",
                    f"{where}, line {line}: no text in the column {name}: fill it, or leave the row out",
                )
            rows.append((line, row))
    if not rows:
        raise InputError("data.no_rows", f"{where} holds no text: a header and rows, or lines of text, were expected")
    return Rows(
        names=table.names or ["text"],
        cells=[row for _, row in rows],
        texts=[as_in_corpus(row[column], cfg) for _, row in rows],
        lines=[line for line, _ in rows],
    )


def _opened(path: str) -> IO[bytes]:
    return io.BytesIO(sys.stdin.buffer.read()) if path == STDIN else Path(path).open("rb")


def as_in_corpus(text: str, cfg: DataConfig) -> str:
    """The text in the form that the corpus was brought into before it was tokenized."""
    return normalized(text.replace("\0", " ").encode(errors="replace"), "\n", cfg.collapse_spaces)


def _label_column(names: list[str], where: str, column: str | None) -> int:
    wanted = LABEL_COLUMNS if column is None else (column.lower(),)
    lowered = [name.lower() for name in names]
    columns = [lowered.index(name) for name in wanted if name in lowered]
    if not columns:
        asked = f"data.label_column={printable(column)}: " if column else ""
        raise InputError(
            "sentiment.no_label_column",
            f"{asked}{where} has no column with labels; it has {printable(', '.join(names))}: "
            "set data.label_column to the one that says positive or negative",
        )
    return columns[0]


def write_scores(rows: Rows, scores: list[dict[str, str]], target: TextIO) -> None:
    """The rows, with the scores in columns of their own behind, also where the rows have one of the same name."""
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow([*rows.names, *(f"{name}_predicted" if name in rows.names else name for name in scores[0])])
    writer.writerows([*row, *score.values()] for row, score in zip(rows.cells, scores, strict=True))
