"""Runs train.py and sends itself a signal at one place of the program: a real signal, and the same moment each time.

    python tests/kill_at.py KILL hp_lightning.optim:WarmupPlateau.after_validation 3 ARGUMENTS

sends SIGKILL when that function is called for the third time.
"""

import functools
import importlib
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent


def main() -> None:
    name, place, count, *arguments = sys.argv[1:]
    sys.path.insert(0, str(PROJECT))
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, last = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), 0

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == int(count):
            os.kill(os.getpid(), signal.Signals[f"SIG{name}"])
        return original(*args, **kwargs)

    setattr(owner, last, watched)
    sys.argv = [str(PROJECT / "train.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
