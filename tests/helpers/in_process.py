"""The programs of the project in this process: for refusals, which cost a tenth of what they do in one of their own."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from .processes import Finished, words_of
from .program import run


def run_in_process(cwd: Path, program: str, *arguments: str) -> Finished:
    """Runs a program to its end as `run_program` does, with nothing on its standard input; it must start no other."""
    words = words_of(program, *arguments)
    output, errors, status = _stream(), _stream(), 0
    with (
        _kept_state(),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            run(words, stop=None)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Finished(words, status, _text(output), _text(errors))


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


@contextlib.contextmanager
def _kept_state() -> Iterator[None]:
    """Afterwards the interpreter, logging and Hydra are as before."""
    arguments, path, environment = sys.argv, list(sys.path), dict(os.environ)
    stdin, sys.stdin = sys.stdin, _stream()
    root, raises, of_hydra = logging.getLogger(), logging.raiseExceptions, HydraConfig.instance().cfg
    handlers, level = list(root.handlers), root.level
    try:
        with warnings.catch_warnings():
            yield
    finally:
        sys.argv, sys.path[:], sys.stdin = arguments, path, stdin
        os.environ.clear()
        os.environ.update(environment)
        root.handlers, logging.raiseExceptions = handlers, raises
        root.setLevel(level)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = of_hydra
