"""What becomes of the rows of a document when they are joined: plain text in one form.

A line break ends a paragraph (or a line, where lines matter, as in verse).
"""

import re
import unicodedata
from collections.abc import Iterator

ROW_END = "\0"  # between the rows of a text that is not joined yet; no text has it
FLOWING = " "  # the separator with which printed lines flow together
# Two ideographic spaces: how the printed lines of a book mark the start of a paragraph.
PARAGRAPH_MARK = "\u3000\u3000"

BLOCK_BYTES = 2**20  # so much is normalized at a time

LINE_BREAKS = ("\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029")
# Every other character that Unicode calls a space.
SPACES = "\t\x1c\x1d\x1e\x1f\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u202f\u205f\u3000"


def normalized(rows: bytes | bytearray, separator: str, collapse_spaces: bool) -> str:
    """The text of a document, from its rows in UTF-8 with `ROW_END` between them.

    The separator " " makes printed lines flow together, blank rows ending a paragraph. Where they do, or where marks
    tell paragraphs, a paragraph is a line. Characters are in NFC, every line break is "\n".

    Args:
        rows: the text
        separator: what joins the rows
        collapse_spaces: whether runs of spaces of any kind become one " ", and those at the ends of lines go
    """
    separator = _with_line_feeds(separator)
    if separator not in (FLOWING, "\n"):  # joined first: it may make a mark of what stands around it
        rows, separator = rows.replace(ROW_END.encode(), separator.encode()), "\n"
    if separator == FLOWING or PARAGRAPH_MARK.encode() in rows:
        blocks = (
            _in_paragraphs(block, separator, collapse_spaces) for block in _blocks(rows, ROW_END + PARAGRAPH_MARK)
        )
        return "\n".join(filter(None, blocks))
    return "\n".join(_in_lines(block, collapse_spaces) for block in _blocks(rows, ROW_END))


def _blocks(rows: bytes | bytearray, border: str) -> Iterator[str]:
    """Parts that end where a line does for certain: a long text needs little more memory than itself."""
    start = end = 0
    while end >= 0:
        end = rows.find(border.encode(), start + BLOCK_BYTES)
        yield rows[start : end if end >= 0 else None].decode()
        start = end + 1


def _in_paragraphs(rows: str, separator: str, collapse_spaces: bool) -> str:
    rows = _with_line_feeds(rows)
    if separator == FLOWING:
        rows = re.sub(rf"{ROW_END}\s*{ROW_END}", "\n", rows)
    text = _in_nfc(rows.replace(ROW_END, separator).replace(PARAGRAPH_MARK, "\n"))
    stripped = (paragraph.strip() for paragraph in (_single_spaced(text) if collapse_spaces else text).split("\n"))
    return "\n".join(filter(None, stripped))


def _in_lines(rows: str, collapse_spaces: bool) -> str:
    text = _in_nfc(_with_line_feeds(rows).replace(ROW_END, "\n"))
    return _single_spaced(text).replace(" \n", "\n").replace("\n ", "\n").strip(" ") if collapse_spaces else text


def _with_line_feeds(text: str) -> str:
    for line_break in LINE_BREAKS:
        text = text.replace(line_break, "\n")
    return text


def _in_nfc(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _single_spaced(text: str) -> str:
    for space in SPACES:
        text = text.replace(space, " ")
    while "  " in text:  # halves every run: quicker than a regular expression, on a hostile text too
        text = text.replace("  ", " ")
    return text
