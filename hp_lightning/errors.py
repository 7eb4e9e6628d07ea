"""The ways in which a run ends that are no bug: each is told in one line, with its exit status, by `cli.py`."""

import signal

# Ctrl-C, a system that wants the machine back, a terminal that was closed: they stop a run, and nothing is lost.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunError(Exception):
    """A run that cannot go on; the message is one line for the person who started it."""

    exit_status = 1


class InputError(RunError):
    """What the person gave (a file, a row, a key, a value) is not usable; the message says what to do."""

    exit_status = 2


class Interrupted(RunError):
    """The person or the system stopped the run: exit status 128 + the signal's number, as shells have it."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number
