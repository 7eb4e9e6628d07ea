"""How tests hold a refusal: by its code and by what it must name, whatever the sentence around that is."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hp_lightning.common.errors import InputError, RunError

from .processes import Finished


@contextmanager
def refused(
    code: str, *mentioned: object, error: type[RunError] = InputError
) -> Iterator[pytest.ExceptionInfo[RunError]]:
    """Within it, a refusal must be raised, with a message of one line.

    Args:
        code: its code
        mentioned: the keys, values and paths that its message must name
        error: of which kind it is
    """
    with pytest.raises(error) as caught:
        yield caught
    assert caught.value.code == code, caught.value
    assert len(str(caught.value).splitlines()) == 1
    _expect_mentioned(str(caught.value), mentioned)


def expect_line(errors: str, code: str, *mentioned: object) -> str:
    """What a program has written on its standard error is one line, of a refusal; gives the line."""
    [line] = errors.splitlines()
    assert re.match(rf"[\w. -]+: error\[{re.escape(code)}\]: .", line), line
    _expect_mentioned(line, mentioned)
    return line


def expect_refusal(done: Finished, code: str, *mentioned: object, status: int = 2) -> str:
    """A program has ended with a status and one line of refusal; gives the line."""
    assert done.returncode == status, done.stderr
    return expect_line(done.stderr, code, *mentioned)


def _expect_mentioned(message: str, mentioned: tuple[object, ...]) -> None:
    for thing in mentioned:
        assert str(thing) in message
