"""Named moments at which a test can stop the program, without counting the calls of a private function."""

from collections.abc import Callable

on_reached: Callable[[str], None] | None = None  # set by tests alone


def failpoint(name: str) -> None:
    """Mark a moment; nothing happens but in tests."""
    if on_reached is not None:
        on_reached(name)
