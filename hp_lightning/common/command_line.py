"""Command lines that a person is told, and variables by which a run's or sweep's processes know what they belong to."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

HANDED_OVER = "HP_LIGHTNING_RUN"  # environment variable of the processes that a run starts for its other devices
IN_SWEEP = "HP_LIGHTNING_SWEEP"  # environment variable of the jobs of a sweep: its folder


@contextmanager
def restored_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables; afterwards the environment is as before, without what libraries have set meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def command(program: str, *arguments: str) -> str:
    """A command line that works in the shell this process was started from, its virtual environment active or not."""
    folder = Path(sys.executable).parent
    executable = shutil.which(program)
    if executable is None or Path(executable).parent != folder:
        here = Path.cwd()
        program = str((folder / program).relative_to(here) if folder.is_relative_to(here) else folder / program)
    return shlex.join([program, *arguments])


def own_command(name: str, *arguments: str) -> str:
    """A command line of this project, as in `hp-lightning train resume=...`."""
    if (Path(sys.executable).parent / "hp-lightning").exists():
        return command("hp-lightning", name, *arguments)
    return command("python", "-m", "hp_lightning", name, *arguments)
