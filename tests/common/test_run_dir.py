"""Run folders: which one is meant where none is named."""

import os
from pathlib import Path

import pytest

from hp_lightning.common.run_dir import best_checkpoint, find_checkpoint, find_resumable, kept_config, last_checkpoint


def put(path: Path, hour: int) -> None:
    """An empty file that was written then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (3600 * hour, 3600 * hour))


def test_the_newest_run_is_meant_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [Path("outputs", name) for name in ("runs/c", "sweeps/mine/0_a", "runs/b")]
    for folder, begun in zip(folders, (5, 1, 3), strict=True):
        put(kept_config(folder), begun)
        put(last_checkpoint(folder), begun + 1)
        put(best_checkpoint(folder), begun + 1)
    assert find_resumable("latest").run_dir == folders[0]
    assert find_checkpoint(None) == best_checkpoint(folders[0])

    put(best_checkpoint(folders[1]), 7)
    assert find_checkpoint(None) == best_checkpoint(folders[1]), "a sweep's, too"
    put(last_checkpoint(folders[2]), 8)
    assert find_resumable("latest").run_dir == folders[2], "it was saved last, though begun before others"
    put(kept_config(Path("outputs/runs/a")), 9)
    assert find_resumable("latest").run_dir == Path("outputs/runs/a"), "begun last, and not saved yet"
