"""Files that are written: what they may take the place of."""

import os
from pathlib import Path

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
