"""The programs of the project as real processes: started, stopped at a named moment, run to their end."""

import functools
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from .fork_server import ForkedProcess, start_server

PROJECT = Path(__file__).resolve().parents[2]
TIMEOUT = 300  # seconds, of a program that is expected to end
READ_AT_START = ("OMP_", "MKL_", "ATEN_", "DNNL_", "ONEDNN_", "TORCH", "PYTHON", "LC_", "LANG", "TZ")

Process = subprocess.Popen[str]
Finished = subprocess.CompletedProcess[str]

_running: list[Process] = []


def environment(**changes: str) -> dict[str, str]:
    """One thread per process, since the tests run side by side; and nothing that torch has set in this one."""
    own = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))  # what is not installed
    return {**own, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "PYTHONPATH": path, **changes}


def command(program: str, *arguments: str) -> list[str]:
    """The words by which a person starts a script of the project, or a command of hp-lightning."""
    start = [str(PROJECT / program)] if program.endswith(".py") else ["-m", "hp_lightning", program]
    return [sys.executable, *start, *arguments]


def words_of(program: str, *arguments: str) -> list[str]:
    """The same for `program.run`: a file or a module, and its arguments."""
    start = [str(PROJECT / program)] if program.endswith(".py") else ["hp_lightning", program]
    return [*start, *arguments]


def launch(
    cwd: Path,
    program: str,
    *arguments: str,
    stop: tuple[str, str, int] | None = None,
    fresh: bool = False,
    stdin: Any = None,
    stdout: Any = subprocess.PIPE,
    **changes: str,
) -> Process:
    """A program in a process group of its own, so that all that it starts can be killed with it.

    Args:
        cwd: where it runs
        program: a script (train.py), or a command of hp-lightning (corpus)
        arguments: its own
        stop: a signal, the failpoint at which the process sends it to itself, and how often that is reached by then
        fresh: whether Python is started for it, as a person would; else it is forked with the libraries imported
        stdin: as Popen takes it
        stdout: as Popen takes it
        changes: of the environment
    """
    words = words_of(program, *arguments)
    moment = None if stop is None else ":".join(map(str, stop))
    options: dict[str, Any] = {"stdin": stdin, "stdout": stdout, "stderr": subprocess.PIPE, "text": True}
    process: Process
    if fresh or any(name.startswith(READ_AT_START) for name in changes):
        line = command(program, *arguments)
        if moment is not None:
            line = command("tests/helpers/program.py", moment, *words)
        process = subprocess.Popen(line, cwd=cwd, env=environment(**changes), start_new_session=True, **options)
    else:
        request = {"command": words, "cwd": str(cwd), "environment": environment(**changes), "stop": moment}
        process = ForkedProcess(_server(), request, **options)
    _running.append(process)
    return process


@functools.cache
def _server() -> socket.socket:
    return start_server(environment())


def run_program(cwd: Path, program: str, *arguments: str, text: str | None = None, **options: Any) -> Finished:
    """Runs a program to its end, with a text on its standard input; the rest as in `launch`."""
    stdin = subprocess.DEVNULL if text is None else subprocess.PIPE
    process = launch(cwd, program, *arguments, stdin=stdin, **options)
    output, errors = process.communicate(text, timeout=TIMEOUT)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def run_line(line: str, cwd: Path) -> Finished:
    """Runs a command line that a program has printed for a person to type."""
    program, *words = shlex.split(line)
    found = shutil.which(program, path=os.environ["PATH"])
    assert found is not None, line
    if Path(found).name == "hp-lightning":  # where it is installed
        assert Path(cwd / found).parent == Path(sys.executable).parent, line
        return run_program(cwd, *words)
    assert os.path.samefile(cwd / found, sys.executable), line
    assert words[:2] == ["-m", "hp_lightning"], line
    return run_program(cwd, *words[2:])


def killed(process: Process) -> None:
    """Waits for a process, which a SIGKILL must have ended."""
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGKILL, errors


def end_all() -> None:
    """Ends whatever a test that failed has left running."""
    while _running:
        process = _running.pop()
        with suppress(ProcessLookupError):  # what it has started may outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in filter(None, (process.stdin, process.stdout, process.stderr)):
            stream.close()
