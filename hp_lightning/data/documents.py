"""From rows to documents: rows that agree in the grouping columns are one, in the order of the file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hp_lightning.common.errors import InputError, label
from hp_lightning.data.downloads import is_remote
from hp_lightning.data.normalize import FLOWING, PARAGRAPH_MARK, ROW_END, normalized
from hp_lightning.data.readers.archives import Part, parts_of
from hp_lightning.data.readers.columns import find_group_columns, find_text_column
from hp_lightning.data.readers.csv import Table, open_table
from hp_lightning.data.sources import Source, find_sources
from hp_lightning.schema.data import DataConfig

ROW_END_BYTES = ROW_END.encode()
# The text of each document while it is read, in UTF-8: strings would take two to four times as much.
Groups = dict[tuple[str, ...], bytearray]


@dataclass(frozen=True)
class Document:
    """A text that belongs together, such as a chapter."""

    name: str
    text: str


@dataclass(frozen=True)
class Reading:
    """The documents, and what was found on the way; where there are several files, the columns are the first's.

    Args:
        documents: those that are not blank
        rows: how many there are, blank ones included
        text_column: the name of the column that is the text; "" in a file of plain text
        group_columns: the names of the columns in which the rows of a document agree
        delimiter: what parts the columns of a CSV file
        row_separator: what joins the rows of a document
    """

    documents: list[Document]
    rows: int
    text_column: str
    group_columns: list[str]
    delimiter: str | None
    row_separator: str


def read_documents(cfg: DataConfig, sources: list[Source] | None = None) -> Reading:
    """Read the files; where there are several, a document's name starts with that of its file.

    Args:
        cfg: how they are read
        sources: the files; `find_sources` is asked for them where they are not given

    Raises:
        InputError: a file cannot be read, has no such column, or holds no text.
    """
    sources = find_sources(cfg) if sources is None else sources
    try:
        return _read_all(sources, cfg)
    except InputError as error:
        raise _naming_the_copy(error, sources) from error


def _naming_the_copy(error: InputError, sources: list[Source]) -> InputError:
    """Say where the local copy of a remote file lies: it may be that, and not the file, which is wrong."""
    for source in sources:
        if is_remote(source.place) and str(error).startswith(label(source.place)):
            return InputError(
                error.code, f"{error}; this was read from the copy {source.path}: delete it to download it again"
            )
    return error


def _read_all(sources: list[Source], cfg: DataConfig) -> Reading:
    parts = [part for source in sources for part in parts_of(source)]
    readings = [_read(part, cfg, part.stem if len(parts) > 1 else "") for part in parts]
    return replace(
        readings[0],
        documents=[document for reading in readings for document in reading.documents],
        rows=sum(reading.rows for reading in readings),
    )


def characters(documents: Iterable[Document]) -> int:
    """How many characters the documents have together."""
    return sum(len(document.text) for document in documents)


def _read(part: Part, cfg: DataConfig, prefix: str) -> Reading:
    with open_table(part, cfg) as table:
        text_column, group_columns = _columns(part, cfg, table)
        groups, rows = _grouped(part, table, text_column, group_columns)
    if not rows:
        raise InputError(
            "data.no_rows", f"{part.label} holds no rows of text: a header line and rows below it were expected"
        )
    separator = _row_separator(cfg, groups)
    names = table.names or [""]
    documents = []
    for group in list(groups):
        text = normalized(groups.pop(group), separator, cfg.collapse_spaces)
        if text and not text.isspace():
            documents.append(Document(" / ".join(filter(None, (prefix, *group))) or part.stem, text))
    if not documents:
        what = f"cell of column {names[text_column]!r}" if table.names else "line"
        raise InputError("data.blank", f"{part.label}: every {what} is blank")
    return Reading(
        documents,
        rows,
        names[text_column],
        [names[column] for column in group_columns],
        table.delimiter,
        separator,
    )


def _columns(part: Part, cfg: DataConfig, table: Table) -> tuple[int, list[int]]:
    if not table.names:
        return 0, []
    text_column = find_text_column(cfg, table.names, part.label)
    return text_column, find_group_columns(cfg, table.names, text_column, part.label)


def _grouped(part: Part, table: Table, text_column: int, group_columns: list[int]) -> tuple[Groups, int]:
    """The rows' text by group, and how many rows there are."""
    groups: Groups = {}
    width = max(len(table.names), 1)
    count = 0
    for line, row in table.rows:
        if len(row) != width:
            if not row and width > 1:  # an empty line; it is a blank row where there is one column
                continue
            row = _fitted(part, line, row, width)
        count += 1
        group = tuple([row[column] for column in group_columns])
        text = groups.get(group)
        if text is None:
            groups[group] = bytearray(row[text_column].encode())
        else:
            text += ROW_END_BYTES
            text += row[text_column].encode()
    return groups, count


def _fitted(part: Part, line: int, row: Sequence[str], width: int) -> Sequence[str]:
    """A row that has empty cells too many, or none where one is expected."""
    if not row:
        return [""]
    if len(row) < width or any(row[width:]):
        raise InputError(
            "data.ragged_row",
            f"{part.label}, line {line}: {len(row)} cells where the header has {width} columns; a cell with a comma "
            "or a line break in it must stand in quotation marks",
        )
    return row


def _row_separator(cfg: DataConfig, groups: Groups) -> str:
    if cfg.row_separator is not None:
        return cfg.row_separator.replace("\\n", "\n")  # as one types it in a shell
    mark = PARAGRAPH_MARK.encode()
    return FLOWING if any(mark in text for text in groups.values()) else "\n"
