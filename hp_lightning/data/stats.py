"""A look at a corpus before anything is trained on it."""

import re
import unicodedata
from dataclasses import dataclass

from hp_lightning.data.documents import Document, Reading, characters
from hp_lightning.data.splits import Splits

# Control, format, private and unassigned characters, and what stands for bytes that could not be decoded.
ODD_CATEGORIES = {"Cc", "Cf", "Co", "Cn", "Cs"}
REPLACEMENT = "\ufffd"
USUAL = {"\n", "\t"}
# UTF-8 that was once decoded as Windows-1252: "â€™" for an apostrophe, "Ã©" for é.
WRONGLY_DECODED = re.compile("â€|Ã[\u0080-\u00bf]")


@dataclass(frozen=True)
class SplitFacts:
    """How much text a split has."""

    documents: int
    words: int  # between spaces
    characters: int


@dataclass(frozen=True)
class CorpusFacts:
    """What was found in a corpus, and how it was taken."""

    rows: int
    text_column: str
    group_columns: list[str]
    delimiter: str | None
    row_separator: str
    splits: dict[str, SplitFacts]  # train, val, test
    duplicates: list[list[str]]  # names of documents with the same text
    longest: tuple[str, int]  # name and words of a document
    shortest: tuple[str, int]
    odd_characters: dict[str, int]  # by name: how often


def inspect(reading: Reading, splits: Splits) -> CorpusFacts:
    """Measure what was read and how it was split."""
    words = [(document.name, _words(document)) for document in reading.documents]
    return CorpusFacts(
        rows=reading.rows,
        text_column=reading.text_column,
        group_columns=reading.group_columns,
        delimiter=reading.delimiter,
        row_separator=reading.row_separator,
        splits={split: _split(documents) for split, documents in vars(splits).items()},
        duplicates=_duplicates(reading.documents),
        longest=max(words, key=lambda item: item[1]),
        shortest=min(words, key=lambda item: item[1]),
        odd_characters=_odd_characters(reading.documents),
    )


def _split(documents: list[Document]) -> SplitFacts:
    return SplitFacts(len(documents), sum(map(_words, documents)), characters(documents))


def _words(document: Document) -> int:
    return len(document.text.split())


def _duplicates(documents: list[Document]) -> list[list[str]]:
    names: dict[str, list[str]] = {}
    for document in documents:
        names.setdefault(document.text, []).append(document.name)
    return [alike for alike in names.values() if len(alike) > 1]


def _odd_characters(documents: list[Document]) -> dict[str, int]:
    texts = [document.text for document in documents]
    characters_used: set[str] = set().union(*texts)
    odd = sorted(filter(_is_odd, characters_used))
    counts = {_name(character): sum(text.count(character) for text in texts) for character in odd}
    wrong = sum(len(WRONGLY_DECODED.findall(text)) for text in texts)
    return counts | ({"wrongly decoded UTF-8, such as â€™": wrong} if wrong else {})


def _name(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip()


def _is_odd(character: str) -> bool:
    odd = unicodedata.category(character) in ODD_CATEGORIES or character == REPLACEMENT
    return odd and character not in USUAL
