"""Python's garbage collector, kept from looking again and again through what is there to stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """For what makes a great many objects that stay: libraries that are imported, a corpus that is read.

    The collector took a sixth of the time of either.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
