"""Runs a script or a module as Python would, and sends it a signal when it reaches a named moment.

    python tests/helpers/program.py SIGKILL:checkpoint.rename:3 train.py key=value…

The signal is a real one and comes at the same moment each time: here when that failpoint is reached for the third time.
SIGINT+HOLD in place of SIGKILL sends another one and goes no further, until somebody else ends the process.
"""

import runpy
import signal
import sys
import time
from pathlib import Path

HELD = "held"  # a file in the process's folder, once it holds
PROJECT = Path(__file__).resolve().parents[2]


def main() -> None:
    """The command line of this file."""
    run(sys.argv[2:], sys.argv[1])


def run(command: list[str], stop: str | None) -> None:
    """Runs a program in this process, as its `__main__`.

    Args:
        command: a file, or the name of a module; and its arguments
        stop: SIGNAL+…:FAILPOINT:COUNT
    """
    program, *arguments = command
    is_file = program.endswith(".py")
    sys.path[0] = str(Path(program).parent) if is_file else ""
    sys.argv = [program, *arguments]
    if stop is not None:
        sys.path.insert(1, str(PROJECT))
        _stop_at(stop)
    if is_file:
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def _stop_at(stop: str) -> None:
    from hp_lightning.common import failpoints

    signals, moment, count = stop.split(":")
    left = int(count)

    def count_down(reached: str) -> None:
        nonlocal left
        left -= reached == moment
        if reached == moment and left == 0:
            for name in signals.split("+"):
                _hold() if name == "HOLD" else signal.raise_signal(signal.Signals[name])

    failpoints.on_reached = count_down


def _hold() -> None:
    Path(HELD).touch()
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
