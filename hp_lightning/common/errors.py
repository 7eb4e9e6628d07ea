"""The ways in which a run ends that are no bug: each is told in one line, with its exit status, by `cli.py`."""

import signal

# Ctrl-C, a system that wants the machine back, a terminal that was closed: they stop a run, and nothing is lost.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class RunError(Exception):
    """A run that cannot go on.

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
        """What the person sees: `train.py: error[data.not_found]: data.path=nowhere.csv does not exist: ...`."""
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
