"""The ways in which a run ends that are no bug: each is told in one line, with its exit status, by the commands."""

import lzma
import signal
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Ctrl-C, a system that wants the machine back, a terminal that was closed: they stop a run, and nothing is lost.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunError(Exception):
    """A run that cannot continue.

    Args:
        code: names the cause, as in `data.not_found`: it stays the same however the message is worded
        message: one line for the person who started the run
    """

    exit_status = 1

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # both, or no process could hand the error to another
        self.code = code

    def __str__(self) -> str:
        """The message alone."""
        return str(self.args[1])

    def line(self, program: str) -> str:
        """What the person sees: `hp-lightning train: error[data.not_found]: data.path=a.csv does not exist: ...`."""
        return f"{program}: error[{self.code}]: {' '.join(str(self).split())}"


class InputError(RunError):
    """What the person gave (a file, a row, a key, a value) is not usable; the message says what to do."""

    exit_status = 2


class Interrupted(RunError):
    """The person or the system stopped the run: exit status 128 + the signal's number, as shells have it."""

    def __init__(self, code: str, message: str, signal_number: int) -> None:
        super().__init__(code, message)
        self.args = (code, message, signal_number)
        self.exit_status = 128 + signal_number


LONGEST_SHOWN = 200


def label(name: str) -> str:
    """The start of every message about a file."""
    return f"data.path={printable(name)}"


def printable(text: str) -> str:
    """The text fit to stand in a line of a terminal, whatever a file or an error put into it."""
    line = "".join(character if character.isprintable() else " " for character in text)
    return line if len(line) <= LONGEST_SHOWN else line[:LONGEST_SHOWN] + "…"


def reason(error: BaseException) -> str:
    """What an error says of itself."""
    return printable(" ".join(str(error).split())) or type(error).__name__


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Within it packages are imported that only an extra of the project installs.

    Args:
        name: of the extra, as in hp_lightning[search]
        purpose: what they are needed for, as in `hydra/sweeper=optuna`

    Raises:
        InputError: one is not installed
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(
            "install.missing_extra",
            f"{purpose} needs {error.name}, which is not installed: pip install 'hp_lightning[{name}]'",
        ) from error


@contextmanager
def refusals(where: str) -> Iterator[None]:
    """Turn whatever a file that cannot be read raises into a refusal.

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
            "data.damaged", f"{where} is not a valid zip file ({reason(error)}): fetch or pack it again"
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
