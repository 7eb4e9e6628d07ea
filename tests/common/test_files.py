"""Files that are written: what they may take the place of, and that they are whole or absent."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.disk import expect_flushed_before_renamed
from helpers.errors import refused
from helpers.processes import environment

from hp_lightning.common.files import SECONDS_UNTIL_ABANDONED, atomic_folder, atomic_write, check_target


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_no_file_keeps_its_place(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with refused("output.not_a_file", "out=pipe "):
        check_target("out=pipe", tmp_path / "pipe")
    with refused("output.is_folder", "out=there "):
        check_target("out=there", tmp_path)


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere" / "scores.csv")
    for content in (b"first", b"second"):
        check_target("out=link.csv", tmp_path / "link.csv")
        with atomic_write(tmp_path / "link.csv") as file:
            file.write(content)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "elsewhere" / "scores.csv").read_bytes() == b"second"
    assert names(tmp_path) == ["elsewhere", "link.csv"], "nothing is left behind"
    assert names(tmp_path / "elsewhere") == ["scores.csv"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = expect_flushed_before_renamed(monkeypatch)
    for content in (b"first", b"second"):
        with atomic_write(tmp_path / "scores.csv") as file:
            file.write(content)
        assert [place.stat().st_ino for place in (tmp_path / "scores.csv", tmp_path)] == flushed[-2:]
        assert (tmp_path / "scores.csv").read_bytes() == content
    with atomic_write(tmp_path / "scores.csv") as file:
        Path(file.name).write_bytes(b"by a library that takes a path")
    assert (tmp_path / "scores.csv").stat().st_ino == flushed[-2]
    assert (tmp_path / "scores.csv").read_bytes() == b"by a library that takes a path"


def test_a_file_that_is_not_finished_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(b"old")
    with suppress(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(OSError, match="No space left"), atomic_write(path) as file:
                file.write(b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["scores.csv"], "nothing is left behind"


WRITE = """
import sys
from pathlib import Path
from hp_lightning.common.files import atomic_write
for _ in range(50):
    with atomic_write(Path("scores.csv")) as file:
        for _ in range(100):
            file.write(sys.argv[1].encode() * 1000)
            file.flush()
"""


def test_two_may_write_the_same_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write(b"1")
        second.write(b"2")
    assert path.read_bytes() == b"1", "what was finished last stays"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE, letter], cwd=tmp_path, env=environment()) for letter in "ab"
    ]
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        assert content == b"1" or (len(content) == 100_000 and len(set(content)) == 1), "it is whole at any time"
    assert [writer.returncode for writer in writers] == [0, 0]
    assert names(tmp_path) == ["scores.csv"], "nothing is left behind"


def test_what_killed_writers_have_left_does_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    old, new, other = (tmp_path / f".scores.csv.{end}.unfinished" for end in ("01234567", "76543210", "gz.01234567"))
    new.touch()
    for left in (old, other):
        left.touch()
        os.utime(left, (time.time() - 2 * SECONDS_UNTIL_ABANDONED,) * 2)
    with atomic_write(path):
        pass
    assert names(tmp_path) == sorted([new.name, other.name, path.name]), "the new one may still be written"
    with atomic_write(path, sole_writer=True):
        pass
    assert names(tmp_path) == sorted([other.name, path.name])


def test_a_folder_is_there_with_all_its_files_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with suppress(KeyboardInterrupt), atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_bytes(b"0")
        raise KeyboardInterrupt
    assert names(tmp_path) == []
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_bytes(b"0")
    assert names(tmp_path) == ["model"]
    written = [*(tmp_path / "model").iterdir(), tmp_path]  # last of all the folder that has the name
    assert [path.stat().st_ino for path in written] == flushed
