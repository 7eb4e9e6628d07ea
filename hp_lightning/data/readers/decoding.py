"""From bytes to lines of text, and what is said of bytes that are none."""

import codecs
import io
from collections.abc import Iterator
from typing import IO

import charset_normalizer

from hp_lightning.common.errors import InputError, printable, refusals
from hp_lightning.data.readers.archives import Part

# What a file may be in that is not in UTF-8; of others there are too many to tell them apart by a few letters.
USUAL_ENCODINGS = [
    "cp1252", "utf_8", "utf_16", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "mac_roman", "koi8_r",
    "cp932", "euc_jp", "gb18030", "big5", "cp949",
]  # fmt: skip

FEW = 8  # letters that are not ASCII
WEB_PAGE = ("<!doctype html", "<html")
# Put in the place of bytes that cannot be decoded, to find them: half a character, which no text has.
UNDECODABLE = "\udfff"
codecs.register_error("hp_lightning.undecodable", lambda error: (UNDECODABLE, error.end))  # type: ignore[attr-defined]


def text_lines(part: Part, file: IO[bytes], encoding: str) -> Iterator[str]:
    """The lines with their ends, as an editor counts them, without the byte order mark.

    Raises:
        InputError: there is no such encoding, a NUL byte, or a web page.
        UnicodeError: the bytes are of another encoding.
    """
    for number, line in enumerate(_decoded(file, encoding), 1):
        if "\0" in line:
            raise _with_nul(part, number, line)
        if number == 1 and line.lstrip("\ufeff \t").lower().startswith(WEB_PAGE):
            raise InputError(
                "data.web_page", f"{part.label} is a web page, no CSV: name the file itself (on GitHub, the raw one)"
            )
        yield line if number > 1 else line.removeprefix("\ufeff")


def _decoded(file: IO[bytes], encoding: str, errors: str = "strict") -> io.TextIOWrapper:
    try:
        return io.TextIOWrapper(file, encoding, errors, newline="")
    except (LookupError, ValueError) as error:
        raise InputError(
            "data.unknown_encoding",
            f"data.encoding={printable(encoding)} is not an encoding of text: take utf-8, cp1252, utf-16 or another "
            "that Python knows",
        ) from error


def _with_nul(part: Part, number: int, line: str) -> InputError:
    where = f"{part.label}, line {number}"
    if 3 * line.count("\0") > len(line):  # every second byte of Latin letters
        encoding = "utf-16-be" if line.startswith("\0") else "utf-16-le"
        return InputError(
            "data.wrong_encoding",
            f"{where}: NUL bytes, as UTF-16 has them: set data.encoding={encoding}, or save the file as UTF-8",
        )
    return InputError("data.nul_byte", f"{where}: unexpected NUL byte: is this a text file?")


def undecodable(part: Part, encoding: str, error: UnicodeDecodeError) -> str:
    """Say on which line the bytes are, for which the file is read once more, and what they may be."""
    with refusals(part.label), part.open() as file:
        lines = enumerate(_decoded(file, encoding, "hp_lightning.undecodable"), 1)
        try:
            number = next((number for number, line in lines if UNDECODABLE in line), None)
        except UnicodeError:  # UTF-16 without its byte order mark, from Python 3.13 on
            number = 1
    where = part.label if number is None else f"{part.label}, line {number}"
    looks = _looks_like(error.object)
    return (
        f"{where}: bytes that are not {'UTF-8' if encoding == 'utf-8' else encoding}; it looks like {looks}: "
        f"set data.encoding={looks}, or save the file as UTF-8"
    )


def _looks_like(content: bytes) -> str:
    if 3 * content.count(0) > len(content):  # every second byte of Latin letters
        return "utf-16-be" if content.startswith(b"\0") else "utf-16-le"
    if sum(byte >= 0x80 for byte in content) < FEW and content.decode("cp1252", "ignore").encode("cp1252") == content:
        return "cp1252"  # too little to go by: the encoding that most such files have
    guess = charset_normalizer.from_bytes(content, cp_isolation=USUAL_ENCODINGS).best()
    # A few letters are the same in several encodings; the first of these is the likeliest.
    alike = guess.could_be_from_charset if guess else []
    return next((usual for usual in USUAL_ENCODINGS if usual in alike), USUAL_ENCODINGS[0]).replace("_", "-")
