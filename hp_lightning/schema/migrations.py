"""How files of earlier versions are read: one pure function per step from a format to the next.

A change of what a checkpoint or a config holds raises `FORMAT`, and adds a step to one of the two tables, so that files
of 0.2.0 and later stay readable: `tests/formats/` has some of each format.
"""

from collections.abc import Callable, Mapping
from typing import Any

FIRST_FORMAT = 12  # of 0.2.0
FORMAT = 12  # of checkpoints and of the config in a run folder

Contents = dict[str, Any]
Migrations = Mapping[int, Callable[[Contents], Contents]]  # by the format that a step starts from

CONFIG_MIGRATIONS: Migrations = {}


def migrated(contents: Contents, of_format: int, steps: Migrations) -> Contents:
    """What a file of an earlier format holds, as this version has it."""
    for number in range(of_format, FORMAT):
        if number in steps:
            contents = steps[number](contents)
    return contents
