"""Files that are written: what they may take the place of."""

import os
from pathlib import Path

import pytest
from helpers.disk import expect_flushed_before_renamed
from helpers.errors import refused

from hp_lightning.common.files import check_target, write_whole


def test_what_is_no_file_keeps_its_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with refused("output.not_a_file", "out=pipe "):
        check_target("out=pipe", tmp_path / "pipe")
    with refused("output.is_folder", "out=there "):
        check_target("out=there", tmp_path)


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "scores.csv")
    for content in (b"first", b"second"):
        check_target("out=link.csv", tmp_path / "link.csv")
        write_whole(tmp_path / "link.csv", content)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "scores.csv").read_bytes() == b"second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "scores.csv"], "nothing is left behind"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = expect_flushed_before_renamed(monkeypatch)
    for content in (b"first", b"second"):
        write_whole(tmp_path / "scores.csv", content)
        assert (tmp_path / "scores.csv").stat().st_ino == flushed[-1]
        assert (tmp_path / "scores.csv").read_bytes() == content
