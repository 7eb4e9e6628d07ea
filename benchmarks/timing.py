"""What the benchmarks share: a clock around the calls of a function."""

import functools
import time
from collections.abc import Callable
from typing import Any


def timed_calls(owner: Any, name: str) -> list[tuple[float, float]]:
    """A list that is given the begin and the end of each call of `owner.name`."""
    times: list[tuple[float, float]] = []
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            times.append((begin, time.perf_counter()))

    setattr(owner, name, timed)
    return times
