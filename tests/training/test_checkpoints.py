"""A checkpoint is whole or absent: damaged files, full disks, files that are meant to do harm."""

import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from helpers.disk import expect_flushed_before_renamed
from helpers.errors import expect_line, expect_refusal, refused
from helpers.processes import launch
from helpers.runs import curves, expect_same_run, finished_run, metrics, wait_for_step, wait_until
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hp_lightning import checkpoint
from hp_lightning.checkpoint import write_checkpoint
from hp_lightning.common.errors import InputError
from hp_lightning.common.run_dir import RunDir
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.train import TrainConfig, from_plain, plain_from_yaml, to_yaml
from hp_lightning.training.optim import build_optimizer, state_bytes

SETTINGS = (
    "experiment=smoke",
    "optim=adamw",  # the quicker steps
    "max_steps=60",
    "max_epochs=25",
    "trainer.val_every_steps=20",
    "checkpoint.every_steps=10",
    "logger.sample_tokens=0",
    "logger.images=false",
    "trainer.precision=32-true",
    "run_dir=run",
)


def from_text(text: str) -> TrainConfig:
    """As a run that starts over reads its config."""
    return from_plain(plain_from_yaml(text))


@pytest.fixture(scope="module")
def settings(first_book: Path) -> list[str]:
    return [*SETTINGS, f"data.path={first_book}"]


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "run"))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    """One bit of a weight is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


# Damaged


@pytest.mark.parametrize("how", [truncated, flipped, emptied])
def test_a_damaged_last_falls_back_to_the_one_before(
    how: Callable[[Path], None], run: Path, small_run: Path, run_script: Callable
) -> None:
    how(run / "checkpoints" / "last.ckpt")
    done = run_script("train.py", "resume=run")
    assert done.returncode == 0, done.stderr
    assert (
        "run/checkpoints/last.ckpt is damaged: resuming from run/checkpoints/previous.ckpt, of step 50" in done.stdout
    )
    assert "resumed at step 50" in done.stdout
    assert (run / "checkpoints" / "last.damaged").exists(), "nothing is thrown away"
    ours, theirs = (torch.load(each / "checkpoints" / "last.ckpt", weights_only=True) for each in (run, small_run))
    assert all(torch.equal(weight, theirs["state_dict"][name]) for name, weight in ours["state_dict"].items())
    assert curves(run)["val/loss"] == curves(small_run)["val/loss"]


def test_a_refused_run_leaves_a_damaged_checkpoint_where_it_is(run: Path, run_script: Callable) -> None:
    truncated(run / "checkpoints" / "last.ckpt")
    expect_refusal(run_script("train.py", "resume=run", "model.d_model=64"), "config.cannot_change", "model.d_model")
    assert not (run / "checkpoints" / "last.damaged").exists()


def test_with_none_left_there_is_one_line(run: Path, run_script: Callable) -> None:
    for path in (run / "checkpoints").iterdir():
        truncated(path)
    done = run_script("train.py", "resume=run")
    all_of_them = "run/checkpoints/last.ckpt and run/checkpoints/previous.ckpt and run/checkpoints/best.ckpt are "
    expect_refusal(done, "checkpoint.damaged", all_of_them)


def test_any_flipped_bit_is_noticed_or_harmless(small_run: Path, tmp_path: Path) -> None:
    """Some bytes of a zip archive, such as a date, mean nothing."""
    content = (small_run / "checkpoints" / "last.ckpt").read_bytes()
    whole = checkpoint.load(small_run / "checkpoints" / "last.ckpt").contents
    draw, noticed = random.Random(1), 0
    for _ in range(100):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        (tmp_path / "changed.ckpt").write_bytes(changed)
        try:
            loaded = checkpoint.load(tmp_path / "changed.ckpt").contents
        except InputError:
            noticed += 1
        else:
            assert repr(loaded) == repr(whole)
            assert all(torch.equal(loaded["state_dict"][name], value) for name, value in whole["state_dict"].items())
    assert noticed > 80


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = expect_flushed_before_renamed(monkeypatch)
    run_dir = RunDir(tmp_path)
    last, best = run_dir.last_checkpoint, run_dir.best_checkpoint
    for step in range(2):
        write_checkpoint({"step": torch.tensor(step)}, last, [best])
        assert flushed[-1] == last.parent.stat().st_ino, "so that the names are there, too"
    files = [last, run_dir.previous_checkpoint, best]
    assert [torch.load(path, weights_only=True)["step"].item() for path in files] == [1, 0, 1]
    assert len({path.stat().st_ino for path in files}) == 3, "one that is damaged leaves the others whole"


def test_the_best_are_kept(small_run: Path) -> None:
    """`top_k` of them, named by step and loss; best.ckpt is the first. None is another name of the same file."""
    losses = sorted((value, step) for step, value in curves(small_run)["val/loss"])
    names = {f"step_{step:07}_loss_{loss:.4f}.ckpt" for loss, step in losses[:2]}
    folder = small_run / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt", *names}
    best = folder / f"step_{losses[0][1]:07}_loss_{losses[0][0]:.4f}.ckpt"
    assert best.read_bytes() == (folder / "best.ckpt").read_bytes()
    assert all(path.stat().st_nlink == 1 for path in folder.iterdir())


def test_a_state_with_a_part_missing_is_damaged(run: Path, run_script: Callable) -> None:
    contents = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    del contents["optimizer_states"]
    torch.save(contents, run / "checkpoints" / "last.ckpt")
    done = run_script("train.py", "resume=run/checkpoints/last.ckpt", "max_steps=70")
    expect_refusal(done, "checkpoint.damaged", "run/checkpoints/last.ckpt ")


def test_a_run_whose_checkpoints_are_gone_does_not_begin_again(run: Path, run_script: Callable) -> None:
    shutil.rmtree(run / "checkpoints")
    figures = (run / "metrics.csv").read_bytes()
    done = run_script("train.py", "resume=run")
    expect_refusal(done, "run.no_checkpoint", "resume=run:")
    assert (run / "metrics.csv").read_bytes() == figures


def test_a_run_that_had_no_checkpoint_begins_again(run: Path, small_run: Path, run_script: Callable) -> None:
    """Though it has a folder for them, which an attempt to save has left, and a summary."""
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "status": "failed", "best/step": 0}))
    done = run_script("train.py", "resume=run")
    assert done.returncode == 0, done.stderr
    expect_same_run(run, small_run)


def test_figures_that_are_damaged_are_put_aside(run: Path, run_script: Callable) -> None:
    (run / "metrics.csv").write_bytes(random.Random(1).randbytes(3000))
    done = run_script("train.py", "resume=run", "max_steps=70")
    assert done.returncode == 0, done.stderr
    assert "metrics.csv is damaged" in done.stdout
    assert [row["step"] for row in metrics(run)] == [65, 70, 70]


# Harmful


class RunsCode:
    """A pickle that would make a file when it is read."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("executed"),))


def test_a_checkpoint_that_runs_code_is_refused_unread(run: Path, run_script: Callable, tmp_path: Path) -> None:
    contents = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save({**contents, "harm": RunsCode()}, tmp_path / "zip.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(RunsCode()))
    for name, code in (("zip.ckpt", "checkpoint.unsafe"), ("plain.ckpt", "checkpoint.damaged")):
        with refused(code, tmp_path / name):
            checkpoint.load(tmp_path / name)
    shutil.copyfile(tmp_path / "zip.ckpt", run / "checkpoints" / "last.ckpt")
    done = run_script("train.py", "resume=run")
    expect_refusal(done, "checkpoint.unsafe", "last.ckpt ")
    assert not (tmp_path / "executed").exists()


def test_no_value_names_what_is_built(run: Path) -> None:
    """Neither in a checkpoint nor in the config of a run that starts over."""
    path = run / "checkpoints" / "last.ckpt"
    contents = torch.load(path, weights_only=True)
    config = contents["hp_lightning"]["config"]
    written = to_yaml(from_plain(config))
    assert from_text(written) == from_plain(config)
    for group, key, value, code in (
        ("model", "_target_", "os.system", "checkpoint.damaged"),
        ("optim", "name", "torch.optim.SGD", "config.unknown_choice"),
    ):
        changed = {**config, group: {**config[group], key: value}}
        torch.save({**contents, "hp_lightning": {**contents["hp_lightning"], "config": changed}}, path)
        with refused(code):
            checkpoint.load(path)
        with pytest.raises((InputError, OmegaConfBaseException, YAMLError)):
            from_text(written.replace(f"{group}:\n", f"{group}:\n  {key}: {value}\n", 1))
    for text in ("3", "- 1", "null: [", "2001-01-01"):
        with pytest.raises((InputError, OmegaConfBaseException, YAMLError)):
            from_text(text)
    with refused("config.interpolation"):
        from_text(written.replace("  path: ", "  path: https://nowhere/${oc.env:HOME} # ", 1))
    literal = replace(from_plain(config), run_dir="${oc.env:HOME}")
    assert from_text(to_yaml(literal)) == literal, "a text that only looks like one stays what it is"


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of 8 MB: enough for a run's first checkpoints."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path, process: subprocess.Popen[str]) -> Path:
    """A file that takes all room there is; that of a checkpoint which was just being replaced, too."""
    filler = disk / "filler"
    process.send_signal(signal.SIGSTOP)  # not a step further until it is full
    with filler.open("wb", buffering=0) as file:
        for _ in range(20):
            with suppress(OSError):
                while True:
                    file.write(bytes(4096))
            process.send_signal(signal.SIGCONT)
            time.sleep(0.05)
    return filler


@pytest.fixture(scope="module")
def unbroken(settings: list[str], once: Callable) -> Path:
    """The same run where there is room."""
    return once("with_room", lambda folder: finished_run(folder, *settings, *LONGER)) / "disk" / "run"


LONGER = ("max_steps=400", "trainer.val_every_steps=100", "checkpoint.every_steps=null", "run_dir=disk/run")


@pytest.mark.parametrize(("step", "kept"), [(10, 0), (110, 100)])
def test_a_full_disk_ends_the_run_and_resumed_it_is_the_unbroken_run(
    step: int, kept: int, settings: list[str], small_disk: Path, unbroken: Path, tmp_path: Path
) -> None:
    """The last checkpoint is whole; before the first one the run starts over."""
    process = launch(tmp_path, "train.py", *settings, *LONGER, stop=("SIGSTOP", "training.step", step))
    run = small_disk / "run"
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    filler = fill(small_disk, process)
    expect_no_room(process, run)
    assert {path.name for path in run.glob("checkpoints/*")} == ({"best.ckpt", "last.ckpt"} if kept else set())
    filler.unlink()
    process = launch(tmp_path, "train.py", "resume=disk/run")
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert ("disk/run was stopped before its first checkpoint" in output) == (kept == 0)
    assert ("resumed at step 100" in output) == (kept == 100)
    expect_same_run(run, unbroken)


def expect_no_room(process: subprocess.Popen[str], run: Path) -> None:
    """It ends with a line that names a file of the run, and how to go on."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    line = expect_line(errors, "output.no_room", "(No space left on device)")
    assert line.partition("]: ")[2].startswith("disk/run/"), line
    assert line.endswith(": make room, then resume with resume=disk/run")
    if (run / "summary.json").exists():
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["status"], summary["reason"]) == ("failed", line.partition("]: ")[2])
    assert not list(run.rglob("*.unfinished"))


def test_a_signal_on_a_full_disk(settings: list[str], small_disk: Path, tmp_path: Path) -> None:
    process = launch(
        tmp_path, "train.py", *settings, "max_steps=100000", "checkpoint.every_steps=null", "run_dir=disk/run"
    )
    wait_for_step(small_disk / "run", 30)
    process.send_signal(signal.SIGSTOP)
    process.terminate()
    fill(small_disk, process)
    expect_no_room(process, small_disk / "run")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a device of a processor is a core")
def test_a_full_disk_ends_every_process(settings: list[str], small_disk: Path, tmp_path: Path) -> None:
    process = launch(
        tmp_path,
        "train.py",
        *settings,
        "max_steps=100000",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "run_dir=disk/run",
    )
    wait_for_step(small_disk / "run", 30)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    fill(small_disk, process)
    expect_no_room(process, small_disk / "run")
    assert not psutil.wait_procs(children, timeout=20)[1]


def test_a_disk_without_room_for_checkpoints_is_refused(
    settings: list[str], small_disk: Path, run_script: Callable
) -> None:
    """At the start, before anything is written; a run that is resumed likewise."""
    larger = [*settings, "model.d_model=256", "model.num_layers=4", "run_dir=disk/run"]
    expect_refusal(run_script("train.py", *larger), "output.no_room", "MB, and disk has 8.4 MB free", "run_dir=")
    assert not list(small_disk.iterdir())
    done = run_script("train.py", *settings, "run_dir=disk/run", "max_steps=20")
    assert done.returncode == 0, done.stderr
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 1_000_000))
    before = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    done = run_script("train.py", "resume=disk/run", "max_steps=30")
    expect_refusal(done, "output.no_room", "MB, and disk/run has 1.0 MB free: make room")
    assert before == {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_job_of_a_sweep_without_room_has_failed_and_is_tried_again(
    settings: list[str], small_disk: Path, run_script: Callable
) -> None:
    free = shutil.disk_usage(small_disk).free
    (small_disk / "filler").write_bytes(bytes(free - 1_000_000))
    settings = [setting for setting in settings if not setting.startswith("run_dir=")]
    done = run_script("train.py", "-m", *settings, "max_steps=20", "sweep.dir=disk/sweep")
    expect_refusal(done, "sweep.failed_jobs", "1 of 1 jobs", "1.0 MB free", status=1)
    (small_disk / "filler").unlink()
    done = run_script("train.py", "-m", "resume_sweep=disk/sweep")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_size_of_a_checkpoint_is_foreseen(optimizer: str, make_config: Callable[..., TrainConfig]) -> None:
    cfg = make_config("model=tiny", f"optim={optimizer}", "model.vocab_size=500")
    net = GPT(cfg.model)
    optimizer_of_net = build_optimizer(net, cfg.optim, 0.1)
    net(torch.zeros(1, 8, dtype=torch.long)).sum().backward()
    optimizer_of_net.step()
    file = io.BytesIO()
    torch.save([net.state_dict(), optimizer_of_net.state_dict()], file)
    assert state_bytes(net, cfg.optim) == pytest.approx(file.tell(), rel=0.1)
