"""Which columns are the text and which tell the documents apart: as told, or by their names."""

from hp_lightning.common.errors import InputError, printable
from hp_lightning.schema.data import DataConfig

TEXT_COLUMNS = ("text", "content", "body", "line", "sentence", "paragraph")
GROUP_COLUMNS = ("series", "book", "title", "volume", "part", "chapter", "document")


def has_text_column(cfg: DataConfig, names: list[str]) -> bool:
    """Whether a header names the text, and is likely to be one."""
    if cfg.text_column is not None:
        return cfg.text_column in names
    return any(name.lower() in TEXT_COLUMNS for name in names)


def find_text_column(cfg: DataConfig, names: list[str], where: str) -> int:
    """The position of the column that holds the text.

    Raises:
        InputError: there is no such column, or several.
    """
    if cfg.text_column is not None:
        return _position("data.text_column", cfg.text_column, names, where)
    lowered = [name.lower() for name in names]
    for known in TEXT_COLUMNS:
        if known in lowered:
            return _only("data.text_column", known, lowered, where)
    if len(names) == 1:
        return 0
    raise InputError(
        "data.ambiguous_text_column",
        f"{where}: which column is the text? Set data.text_column to one of {_listed(names)}",
    )


def find_group_columns(cfg: DataConfig, names: list[str], text_column: int, where: str) -> list[int]:
    """The positions of the columns in which the rows of a document agree.

    Raises:
        InputError: there is no such column, or several of the same name.
    """
    if cfg.group_columns is not None:
        return [_position("data.group_columns", column, names, where) for column in cfg.group_columns]
    lowered = [name.lower() for name in names]
    return [
        _only("data.group_columns", name, lowered, where)
        for position, name in enumerate(lowered)
        if name in GROUP_COLUMNS and position != text_column
    ]


def _position(key: str, column: str, names: list[str], where: str) -> int:
    if column in names:
        return _only(key, column, names, where)
    positions = [str(position) for position in range(len(names))]
    if column in positions:
        return positions.index(column)
    raise InputError(
        "data.no_such_column", f"{key}={printable(column)}: {where} has no such column; it has {_listed(names)}"
    )


def _only(key: str, column: str, names: list[str], where: str) -> int:
    if names.count(column) > 1:
        raise InputError(
            "data.ambiguous_column",
            f"{where}: {names.count(column)} columns are called {printable(column)}: rename one, or set {key} to "
            f"positions (from 0) instead of names",
        )
    return names.index(column)


def _listed(names: list[str]) -> str:
    return printable(", ".join(names))
