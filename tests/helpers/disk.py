"""What a power cut would leave of files that are written beside their place and renamed."""

import os
from pathlib import Path

import pytest


def expect_flushed_before_renamed(patch: pytest.MonkeyPatch) -> list[int]:
    """From now on a file may only be renamed when all of it was flushed to the disk.

    Returns:
        the inodes of what is flushed, in this order; it grows
    """
    flushed: list[int] = []
    sizes: dict[int, int] = {}
    flush, rename = os.fsync, os.replace

    def noted(descriptor: int) -> None:
        flush(descriptor)
        found = os.fstat(descriptor)
        flushed.append(found.st_ino)
        sizes[found.st_ino] = found.st_size

    def checked(source: str | Path, target: str | Path) -> None:
        found = os.stat(source)
        assert sizes.get(found.st_ino) == found.st_size, f"{target} may be an empty file after a power cut"
        rename(source, target)

    patch.setattr(os, "fsync", noted)
    patch.setattr(os, "replace", checked)
    return flushed
