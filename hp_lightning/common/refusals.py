"""What reading a file can raise, as one line for the person who named the file."""

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hp_lightning.common.errors import InputError

LONGEST_SHOWN = 200


def label(name: str) -> str:
    """How every message about a file begins."""
    return f"data.path={printable(name)}"


def printable(text: str) -> str:
    """The text fit to stand in a line of a terminal, whatever a file or an error put into it."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= LONGEST_SHOWN else line[:LONGEST_SHOWN] + "…"


def reason(error: BaseException) -> str:
    """What an error says of itself."""
    return printable(" ".join(str(error).split())) or type(error).__name__


@contextmanager
def refusals(where: str) -> Iterator[None]:
    """Turns whatever a file that cannot be read raises into a refusal.

    Args:
        where: the label of the file

    Raises:
        InputError: the file is not there, may not be read, or is damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(
            "data.not_found", f"{where} does not exist: name a CSV file (relative to {Path.cwd()})"
        ) from error
    except IsADirectoryError as error:
        raise InputError(
            "data.is_folder", f"{where} is a folder: name a CSV file, or several as in '{where}/*.csv'"
        ) from error
    except PermissionError as error:
        raise InputError("data.no_permission", f"{where} may not be read: check the file's permissions") from error
    except zipfile.BadZipFile as error:
        raise InputError(
            "data.damaged", f"{where} is no zip file or a damaged one ({reason(error)}): fetch or pack it again"
        ) from error
    except (EOFError, zlib.error, lzma.LZMAError, NotImplementedError) as error:
        raise InputError(
            "data.damaged", f"{where} is damaged or incomplete ({reason(error)}): fetch or pack it again"
        ) from error
    except OSError as error:
        if error.errno is None:  # what gzip and bz2 say of damaged data
            raise InputError(
                "data.damaged", f"{where} is damaged or incomplete ({reason(error)}): fetch or pack it again"
            ) from error
        raise InputError("data.not_readable", f"{where} cannot be read ({error.strerror}): name a CSV file") from error
