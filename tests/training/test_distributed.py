"""A run shared out over two processes is the run of one: the same curves, nothing seen twice, nothing left behind."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from helpers.errors import expect_line, expect_refusal, refused
from helpers.in_process import run_in_process
from helpers.processes import TIMEOUT, Finished, environment, launch
from helpers.runs import MEASURED, curves, expect_same_run, finished_run, metrics, resume_as_told, wait_for_step

import hp_lightning as hp
from hp_lightning.common.hardware import missing_for_compile
from hp_lightning.data.dataloader import Batch, EvalSequences, TrainSequences
from hp_lightning.models.loss import IGNORED

TOLERANCE = 1e-5  # relative: sums in another order
SMALL = 1e-4  # absolute: the gap is a small difference of losses

# No dropout: each process would draw for its own share. Calm steps: others would make much of the last digit.
SETTINGS = (
    "experiment=smoke",
    "model.num_layers=1",
    "regularization=none",
    "optim=adamw",  # Muon makes more of the last digit
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.compile=false",
    "optim.warmup_steps=10",
    "optim.lr=5e-4",
    "optim.eps=1e-3",
    "logger.sample_tokens=5",
    "logger.images=false",
    "run_dir=run",
)
ACCUMULATED = (
    "data.batch_size=4",
    "trainer.accumulate_grad_batches=2",
    "max_steps=120",
    "trainer.val_every_steps=15",
)
two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a device of a processor is a core")


# The shares


@pytest.mark.parametrize(
    ("tokens", "seq_len", "batch_size", "accumulate", "devices"),
    [(1_001, 8, 4, 1, 2), (1_000, 10, 6, 3, 2), (1_000, 10, 6, 2, 3), (200, 1, 32, 1, 4), (55, 10, 2, 2, 2)],
)
def test_shares_of_a_batch_are_the_batch(
    tokens: int, seq_len: int, batch_size: int, accumulate: int, devices: int
) -> None:
    stream = torch.arange(tokens, dtype=torch.int32)

    def loader(rank: int | None) -> TrainSequences:
        sequences = TrainSequences(stream, seq_len, batch_size, 1, accumulate, 1 if rank is None else devices)
        sequences.share_out(rank or 0, None)
        return sequences

    def check(whole: TrainSequences, shares: list[TrainSequences]) -> None:
        for _ in range(3):
            assert {len(share) for share in shares} == {len(whole)}
            for batch, *parts in zip(whole, *shares, strict=True):
                assert {len(token_ids) for token_ids, _ in parts} == {batch_size // devices}
                for place in range(2):
                    assert torch.equal(torch.cat([part[place] for part in parts]), batch[place])

    alone, together = loader(None), [loader(rank) for rank in range(devices)]
    check(alone, together)
    next(iter(alone))
    served = alone.state_dict()
    restored = [loader(rank) for rank in range(devices)]
    for share in restored:
        share.load_state_dict(served)
    rest = list(itertools.chain.from_iterable(targets.flatten().tolist() for _, targets in alone))
    shared = [list(itertools.chain.from_iterable(targets.flatten().tolist() for _, targets in s)) for s in restored]
    assert sorted(itertools.chain.from_iterable(shared)) == sorted(rest)
    check(alone, restored)


def test_a_corpus_of_few_windows_is_shared_out_equally() -> None:
    """Seven sequences make a batch of six for two devices."""
    shares = []
    for rank in range(2):
        sequences = TrainSequences(torch.arange(71), 10, 32, 1, 1, devices=2)
        sequences.share_out(rank, None)
        [(token_ids, _)] = sequences
        shares.append({int(token_id) for token_id in token_ids[:, 0]})
    assert [len(share) for share in shares] == [3, 3]
    assert not shares[0] & shares[1]


def test_fewer_windows_than_devices_are_refused() -> None:
    with refused("data.too_few_sequences", "1 sequences", "trainer.devices=2:"):
        TrainSequences(torch.arange(12), 10, 32, 1, 1, devices=2)


def test_devices_that_would_change_a_step_are_refused(tmp_path: Path) -> None:
    """Where a step is the whole of a small corpus, two devices leave an odd sequence out."""
    (tmp_path / "corpus.csv").write_text("text\n" + "the fox saw the lantern\n" * 28)
    small = ["model.d_model=16", "model.num_heads=2", "model.num_layers=1", "model.d_ff=16", "model.max_seq_len=8"]
    settings = ["data.batch_size=64", "tokenizer.min_frequency=1", "trainer.accelerator=cpu", "logger=csv"]
    run = hp.train(tmp_path / "corpus.csv", overrides=[*small, *settings], max_steps=2, run_dir=str(tmp_path / "run"))
    sequences = run.summary["tokens_seen"] / 2 / 8
    assert sequences % 2 == 1, "else the test shows nothing"
    done = run_in_process(tmp_path, "train", "resume=run", "trainer.devices=2", "max_steps=4")
    expect_refusal(done, "config.cannot_change", "trainer.devices=2", "trainer.devices=1")


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize(("tokens", "seq_len"), [(65, 1), (65, 8), (71, 7), (72, 7), (31, 10), (33, 10)])
def test_evaluation_shares_see_every_token_once(tokens: int, seq_len: int, devices: int, batch_size: int) -> None:
    """Here a token is its own position; sequences that the devices do not divide included."""

    def seen(batches: list[Batch]) -> list[int]:
        for token_ids, targets in batches:
            counts = targets != IGNORED
            assert torch.equal(token_ids[counts] + 1, targets[counts])
        return [target for _, targets in batches for target in targets[targets != IGNORED].tolist()]

    shares = [list(EvalSequences(torch.arange(tokens), seq_len, batch_size, rank, devices)) for rank in range(devices)]
    assert all(len(token_ids) <= batch_size for share in shares for token_ids, _ in share)
    assert sorted(itertools.chain.from_iterable(map(seen, shares))) == list(range(1, tokens))
    counted = [len(seen(share)) for share in shares]
    assert max(counted) - min(counted) <= seq_len * (1 + (devices > 1)), "no device waits long for another"


@pytest.mark.parametrize("devices", [2, 3, 4])
@pytest.mark.parametrize("tokens", [2, 9, 10, 40])
def test_each_device_evaluates_as_many_batches(tokens: int, devices: int) -> None:
    """Lightning refuses a loader without a batch, and devices that wait for each other must do so equally often."""
    lengths = {len(EvalSequences(torch.arange(tokens), 8, 2, rank, devices)) for rank in range(devices)}
    assert len(lengths) == 1
    assert min(lengths) > 0


# Runs


@pytest.fixture(scope="module")
def settings(first_book: Path) -> list[str]:
    return [*SETTINGS, f"data.path={first_book}"]


@pytest.fixture(scope="module")
def alone(settings: list[str], once: Callable) -> Path:
    """The unbroken run of one process, with accumulation."""
    return once("alone", lambda folder: finished_run(folder, *settings, *ACCUMULATED)) / "run"


def expect_same_curves(run_dir: Path, other: Path) -> None:
    """The same figures at the same steps, each once; the learning rate, which nothing is summed for, exactly."""
    ours, theirs = metrics(run_dir), metrics(other)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for our, their in zip(ours, theirs, strict=True):
        for key in MEASURED:
            assert (our[key] == "") == (their[key] == "")
            if our[key]:
                assert float(our[key]) == pytest.approx(float(their[key]), rel=TOLERANCE, abs=SMALL), (key, our["step"])
    shown, expected = curves(run_dir), curves(other)
    for tag in MEASURED:
        assert [step for step, _ in shown[tag]] == [step for step, _ in expected[tag]]
        assert dict(shown[tag]) == pytest.approx(dict(expected[tag]), rel=TOLERANCE, abs=SMALL), tag
    assert shown["lr"] == expected["lr"]
    found, wanted = (json.loads((folder / "summary.json").read_text()) for folder in (run_dir, other))
    assert found.keys() == wanted.keys()
    for key in wanted.keys() - {"status", "reason", "seconds"}:
        assert found[key] == pytest.approx(wanted[key], rel=TOLERANCE, abs=SMALL), key
    assert found["status"] == wanted["status"] == "completed"


@two_cores
def test_two_processes_are_one_run(settings: list[str], tmp_path: Path) -> None:
    """Every figure, the test split's included, though the validation split has an odd number of sequences."""
    more = [*settings, "max_steps=40", "trainer.val_every_steps=15", "logger.log_every_steps=1"]
    run_dirs = []
    for devices in (1, 2):
        cwd = tmp_path / str(devices)
        cwd.mkdir()
        run_dirs.append(finished_run(cwd, *more, f"trainer.devices={devices}"))
    expect_same_curves(run_dirs[1], run_dirs[0])
    summary = json.loads((run_dirs[1] / "summary.json").read_text())
    assert {"val/loss", "test/loss"} <= summary.keys()
    assert math.ceil(val_tokens(run_dirs[1]) / 64) % 2 == 1
    assert files_in(run_dirs[1]) == files_in(run_dirs[0]), "the second process writes nothing"


@pytest.mark.slow
@two_cores
@pytest.mark.skipif(missing_for_compile(torch.device("cpu")) is not None, reason="nothing to compile with")
def test_two_processes_compile(settings: list[str], tmp_path: Path) -> None:
    """DDP cuts the compiled function at its buckets of gradients."""
    run_dir = finished_run(tmp_path, *settings, "max_steps=20", "trainer.devices=2", "trainer.compile=true")
    log = (run_dir / "train.log").read_text()
    assert re.search("compile +on", log)
    assert "compiling failed" not in log
    first, *_, last = [float(row["train/loss"]) for row in metrics(run_dir) if row["train/loss"]]
    assert last < first


def files_in(run_dir: Path) -> list[str]:
    """With event files for what they are, since their names tell the time."""
    files = (path.relative_to(run_dir) for path in run_dir.rglob("*") if path.is_file())
    return sorted(re.sub(r"tfevents.*", "tfevents", str(path)) for path in files)


def val_tokens(run_dir: Path) -> int:
    """From the table at the head of the run."""
    log = (run_dir / "train.log").read_text()
    return int(re.findall(r"validation +│.*│.*│.*│ +([\d,]+) │", log)[0].replace(",", ""))


@two_cores
def test_a_signal_stops_every_process_and_the_run_goes_on_on_any_number(
    settings: list[str], alone: Path, tmp_path: Path
) -> None:
    process = launch(tmp_path, "train", *settings, *ACCUMULATED, "trainer.devices=2")
    wait_for_step(tmp_path / "run", 20)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    line = expect_line(errors, "run.interrupted", "SIGTERM")
    expect_gone(children)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    step = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 20 <= step < 120
    (tmp_path / "one").mkdir()
    shutil.copytree(tmp_path / "run", tmp_path / "one" / "run")

    resume_as_told(line, tmp_path, step)
    expect_same_curves(tmp_path / "run", alone)
    expect_same_curves(finished_run(tmp_path / "one", "resume=run", "trainer.devices=1"), alone)


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "hp_lightning"]


def started(cwd: Path, words: list[str]) -> Finished:
    cwd.mkdir(exist_ok=True)
    return subprocess.run(words, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=TIMEOUT)


@two_cores
def test_every_way_to_start_two_processes_gives_the_same_run(settings: list[str], tmp_path: Path) -> None:
    """By the installed command, by `python -m`, and by torchrun: bit for bit, and resumed, too."""
    installed = tmp_path / "hp-lightning"
    installed.write_text("from hp_lightning.cli.main import main\n\nmain()\n")
    more = [*settings, "optim=muon", "max_steps=20", "trainer.val_every_steps=15", "trainer.devices=2"]
    for command, words in (
        ([str(installed)], ["train", *more]),
        (["-m", "hp_lightning"], ["train", "resume=run", "max_steps=30"]),
    ):
        ours = started(tmp_path / "ours", [sys.executable, *command, *words])
        theirs = started(tmp_path / "theirs", [*TORCHRUN, *words])
        for done in (ours, theirs):
            assert (done.returncode, done.stderr) == (0, "")
        expect_same_run(tmp_path / "theirs" / "run", tmp_path / "ours" / "run")
    assert files_in(tmp_path / "theirs" / "run") == files_in(tmp_path / "ours" / "run")


@two_cores
@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("data.text_column=colour", "data.no_such_column"),
        ("model.colour=red", "config.unknown_key"),
        ("trainer.devices=1", "machine.several_processes"),
    ],
)
def test_what_is_refused_under_torchrun_is_told_once(word: str, code: str, settings: list[str], tmp_path: Path) -> None:
    """By the first of its processes; torchrun itself then reports of both."""
    done = started(tmp_path / "cwd", [*TORCHRUN, "train", *settings, "trainer.devices=2", word])
    told = [line for line in done.stderr.splitlines() if line.startswith("hp-lightning train: ")]
    expect_line("\n".join(told), code)
    assert re.findall(r"exitcode +: (-?\d+)", done.stderr) == ["2", "2"]
    assert files_in(tmp_path / "cwd") == []


@two_cores
def test_other_launchers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "SLURM_STEP_NUM_TASKS"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "2")
            done = run_in_process(tmp_path, "train", "trainer.accelerator=cpu", "trainer.devices=2")
        expect_refusal(done, "machine.several_processes")
    assert files_in(tmp_path) == []


def expect_gone(processes: list[psutil.Process]) -> None:
    """Nothing of them is left, at the latest in some seconds; a dead one may still wait to be buried by init."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not [each for each in processes if is_alive(each)]:
            return
        time.sleep(0.05)
    for each in processes:
        os.kill(each.pid, signal.SIGKILL)
    pytest.fail(f"{processes} are left")


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
