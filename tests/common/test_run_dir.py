"""Run folders: which one is meant where none is named."""

import math
import os
from pathlib import Path

import pytest
from helpers.errors import refused

from hp_lightning.common.run_dir import RunDir, find_checkpoint, find_resumable


def put(path: Path, hour: int) -> None:
    """An empty file that was written then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (3600 * hour, 3600 * hour))


def test_the_newest_run_is_meant_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [RunDir(Path("outputs", name)) for name in ("runs/c", "sweeps/mine/0_a", "runs/b")]
    for folder, begun in zip(folders, (5, 1, 3), strict=True):
        put(folder.config, begun)
        put(folder.last_checkpoint, begun + 1)
        put(folder.best_checkpoint, begun + 1)
    assert find_resumable("latest").run_dir.path == folders[0].path
    assert find_checkpoint(None) == folders[0].best_checkpoint

    put(folders[1].best_checkpoint, 7)
    assert find_checkpoint(None) == folders[1].best_checkpoint, "a sweep's, too"
    put(folders[2].last_checkpoint, 8)
    assert find_resumable("latest").run_dir.path == folders[2].path, "it was saved last, though begun before others"
    put(RunDir(Path("outputs/runs/a")).config, 9)
    assert find_resumable("latest").run_dir.path == Path("outputs/runs/a"), "begun last, and not saved yet"


def test_a_checkpoint_tells_its_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = RunDir(tmp_path / "run")
    run_dir.checkpoints.mkdir(parents=True)
    run_dir.last_checkpoint.touch()
    monkeypatch.chdir(run_dir.checkpoints)
    for checkpoint in (run_dir.last_checkpoint, Path("last.ckpt")):
        found = RunDir.of_checkpoint(checkpoint)
        assert found is not None
        assert found.path == run_dir.path
    assert find_resumable("last.ckpt").run_dir.path == Path("..")
    assert RunDir.of_checkpoint(tmp_path / "elsewhere" / "last.ckpt") is None
    with refused("run.not_a_run"):
        (tmp_path / "last.ckpt").touch()
        find_resumable(str(tmp_path / "last.ckpt"))


def test_a_summary_is_read_as_it_was_written(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.read_summary() == {}
    run_dir.write_summary({"status": "completed", "steps": 7, "val/loss": 1 / 3, "best/val/loss": math.nan})
    assert run_dir.read_summary() == {"status": "completed", "steps": 7, "val/loss": 1 / 3, "best/val/loss": None}
    assert run_dir.is_complete(7)
    assert not run_dir.is_complete(8)
    for damaged in ("[1]", '{"status": "comp', "\0"):
        run_dir.summary.write_text(damaged)
        assert run_dir.read_summary() == {}
