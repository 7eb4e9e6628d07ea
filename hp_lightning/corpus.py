"""From a CSV file to documents, and from documents to a training, a validation and a test part.

The text of a document is plain: a line break ends a paragraph (or a line, where lines matter, as in verse).
"""

import csv
import random
import re
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hp_lightning.config import DataConfig
from hp_lightning.errors import InputError

TEXT_COLUMNS = ("text", "content", "body", "line", "sentence", "paragraph")
GROUP_COLUMNS = ("series", "book", "title", "volume", "part", "chapter", "document")
# Two ideographic spaces: how the printed lines of a book mark where a paragraph begins.
PARAGRAPH_MARK = "\u3000\u3000"


@dataclass(frozen=True)
class Document:
    """A text that belongs together, such as a chapter."""

    name: str
    text: str


@dataclass(frozen=True)
class Splits:
    """The documents of each part; `test` may be empty."""

    train: list[Document]
    val: list[Document]
    test: list[Document]


def read_documents(cfg: DataConfig) -> list[Document]:
    """Reads the CSV; rows that agree in the grouping columns are one document, in the order of the file.

    Raises:
        InputError: the file cannot be read, has no such column, or holds no text.
    """
    rows = _read_rows(Path(cfg.path).expanduser())
    while rows and not rows[0][1]:  # empty lines before the header
        rows.pop(0)
    header = [name.strip() for name in rows.pop(0)[1]] if cfg.header and rows else []
    if not rows:
        raise InputError(f"data.path={cfg.path} holds no rows of text: a header line and rows below it were expected")
    names = header or [str(position) for position in range(len(rows[0][1]))]
    # csv gives an empty line as no cells: a blank row where there is one column, else nothing.
    rows = [(line, row or [""]) for line, row in rows if row or len(names) == 1]
    for delimiter, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(header) == 1 and delimiter in header[0]:
            raise InputError(f"data.path={cfg.path} seems to part its columns by {name}: save it with commas")
    text_column = _text_column(cfg, names)
    group_columns = _group_columns(cfg, names)
    cells_of_group: dict[tuple[str, ...], list[str]] = {}
    for line, row in rows:
        if len(row) <= max([text_column, *group_columns]) or any(row[len(names) :]):
            raise InputError(
                f"data.path={cfg.path}, line {line}: {len(row)} cells where the header has {len(names)} columns; "
                "a cell with a comma or a line break in it must stand in quotation marks"
            )
        group = tuple(row[column] for column in group_columns)
        cells_of_group.setdefault(group, []).append(row[text_column])
    separator = _row_separator(cfg, cells_of_group.values())
    documents = [
        Document(" / ".join(group) or Path(cfg.path).stem, _join(cells, separator))
        for group, cells in cells_of_group.items()
    ]
    documents = [document for document in documents if document.text.strip()]
    if not documents:
        raise InputError(f"data.path={cfg.path}: every cell of column {names[text_column]!r} is blank")
    return documents


def split_documents(documents: list[Document], cfg: DataConfig) -> Splits:
    """Parts of about `val_fraction` and `test_fraction` of the characters.

    `documents` puts whole documents, drawn by `split_seed`, into a part, and equal ones into the same part; `tail`
    takes the end of the corpus by position, the test part last; `auto` is `documents` where that comes near to the
    fractions, and else `tail`.

    Raises:
        InputError: there are too few documents to fill every part.
    """
    splits = _split_tail(documents, cfg) if cfg.split == "tail" else _split_by_document(documents, cfg)
    if cfg.split == "auto" and not _near_fractions(splits, cfg):
        splits = _split_tail(documents, cfg)
    for part, found in (("train", splits.train), ("validation", splits.val), ("test", splits.test)):
        if not found and (part != "test" or cfg.test_fraction):
            raise InputError(
                f"data.split={cfg.split} leaves the {part} part empty ({len(documents)} documents): take "
                "data.split=tail, other fractions, or more text"
            )
    return splits


def characters(documents: Iterable[Document]) -> int:
    """How many characters the documents have together."""
    return sum(len(document.text) for document in documents)


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Each row with the number of the line on which it ends."""
    csv.field_size_limit(sys.maxsize)  # a cell may hold a whole book
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            return [(reader.line_num, row) for row in reader]
    except FileNotFoundError as error:
        raise InputError(f"data.path={path} does not exist: name a CSV file (relative to {Path.cwd()})") from error
    except IsADirectoryError as error:
        raise InputError(f"data.path={path} is a folder: name a CSV file") from error
    except PermissionError as error:
        raise InputError(f"data.path={path} may not be read: check the file's permissions") from error
    except OSError as error:
        raise InputError(f"data.path={path} cannot be read ({error.strerror}): name a CSV file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"data.path={path} is not UTF-8 ({error.reason}, byte {error.start}): save it so") from error
    except csv.Error as error:
        raise InputError(f"data.path={path}, line {reader.line_num}: no valid CSV ({error})") from error


def _text_column(cfg: DataConfig, names: list[str]) -> int:
    if cfg.text_column is not None:
        return _position("data.text_column", cfg.text_column, names)
    lowered = [name.lower() for name in names]
    for known in TEXT_COLUMNS:
        if known in lowered:
            return lowered.index(known)
    if len(names) == 1:
        return 0
    raise InputError(f"data.path={cfg.path}: which column is the text? Set data.text_column to one of {_listed(names)}")


def _group_columns(cfg: DataConfig, names: list[str]) -> list[int]:
    if cfg.group_columns is not None:
        return [_position("data.group_columns", column, names) for column in cfg.group_columns]
    return [position for position, name in enumerate(names) if name.lower() in GROUP_COLUMNS]


def _position(key: str, column: str, names: list[str]) -> int:
    if column in names:
        return names.index(column)
    if column.isdecimal() and int(column) < len(names):
        return int(column)
    raise InputError(f"{key}={column}: the CSV has no such column; it has {_listed(names)}")


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def _row_separator(cfg: DataConfig, cells_of_groups: Iterable[list[str]]) -> str:
    if cfg.row_separator is not None:
        return cfg.row_separator.replace("\\n", "\n")  # as one types it in a shell
    marked = any(PARAGRAPH_MARK in cell for cells in cells_of_groups for cell in cells)
    return " " if marked else "\n"


def _join(cells: list[str], separator: str) -> str:
    """The text of a document; with the separator " " printed lines flow together, blank rows ending a paragraph."""
    if separator == " ":
        cells = [cell.strip(" \t\r\n") or "\n" for cell in cells]
    text = unicodedata.normalize("NFC", separator.join(cells)).replace("\r\n", "\n").replace("\r", "\n")
    if separator == " " or PARAGRAPH_MARK in text:
        text = re.sub(rf"[ \t]*{PARAGRAPH_MARK}[ \t\u3000]*", "\n", text)
        text = re.sub(r"[ \t]+", " ", text)
        text = re.sub(r"\s*\n\s*", "\n", text).strip()
    return text


def _split_by_document(documents: list[Document], cfg: DataConfig) -> Splits:
    alike: dict[str, list[Document]] = {}
    for document in documents:
        alike.setdefault(document.text, []).append(document)
    pool = list(alike.values())
    random.Random(cfg.split_seed).shuffle(pool)
    total = characters(documents)
    test = _take(pool, cfg.test_fraction * total) if cfg.test_fraction else []
    val = _take(pool, cfg.val_fraction * total)
    train = [document for group in pool for document in group]
    in_file_order = {id(document): position for position, document in enumerate(documents)}
    for part in (train, val, test):
        part.sort(key=lambda document: in_file_order[id(document)])
    return Splits(train, val, test)


def _near_fractions(splits: Splits, cfg: DataConfig) -> bool:
    """Whether each part has at least half and at most twice what was asked."""
    total = characters([*splits.train, *splits.val, *splits.test])
    parts = ((splits.val, cfg.val_fraction), (splits.test, cfg.test_fraction))
    return bool(splits.train) and all(
        fraction / 2 <= characters(part) / total <= 2 * fraction for part, fraction in parts
    )


def _take(pool: list[list[Document]], wanted: float) -> list[Document]:
    """Moves groups out of the pool, in its order, as long as each brings their length nearer to `wanted`."""
    taken: list[Document] = []
    for group in list(pool):
        length = characters(taken)
        if abs(length + characters(group) - wanted) < abs(length - wanted):
            pool.remove(group)
            taken.extend(group)
    if not taken and pool:  # every group is more than twice too long
        shortest = min(pool, key=characters)
        pool.remove(shortest)
        taken.extend(shortest)
    return taken


def _split_tail(documents: list[Document], cfg: DataConfig) -> Splits:
    total = characters(documents)
    test_begin = int(total * (1 - cfg.test_fraction))
    val_begin = int(total * (1 - cfg.test_fraction - cfg.val_fraction))
    return Splits(
        _cut(documents, 0, val_begin), _cut(documents, val_begin, test_begin), _cut(documents, test_begin, total)
    )


def _cut(documents: list[Document], begin: int, end: int) -> list[Document]:
    """What lies between two positions of the documents laid end to end."""
    found, offset = [], 0
    for document in documents:
        text = document.text[max(begin - offset, 0) : max(end - offset, 0)]
        if text.strip():
            found.append(Document(document.name, text))
        offset += len(document.text)
    return found
