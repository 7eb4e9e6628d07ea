"""Sweeps: one command, a run folder for each job, whatever becomes of any of them."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.errors import expect_line, expect_refusal, refused
from helpers.in_process import run_in_process
from helpers.processes import PROJECT, Finished, launch, run_program
from helpers.runs import expect_same_run, wait_for_step

from hp_lightning.schema.sweep import SweepConfig
from hp_lightning.sweeps import slots
from hp_lightning.sweeps.plan import complete_arguments, grid, read_plan

SETTINGS = (
    "experiment=smoke",
    "optim=adamw",  # the quicker steps
    "model.num_layers=1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.compile=false",
    "trainer.val_every_steps=20",
    "logger.sample_tokens=0",
    "logger.images=false",
    "checkpoint.every_steps=7",
    "max_steps=60",
)


@pytest.fixture(scope="module")
def settings(first_book: Path) -> list[str]:
    return [*SETTINGS, f"data.path={first_book}"]


@pytest.fixture(scope="module")
def sweep(settings: list[str], once: Callable) -> tuple[Path, Finished]:
    """Two seeds of a configuration that trains, and two of one that is refused; the sweep's folder, and its end."""
    grid = ["model.num_heads=4,3", "seed=1,2", "sweep.name=s", "sweep.jobs=2"]

    def fill(cwd: Path) -> None:
        done = run_program(cwd, "train.py", "-m", *settings, *grid)
        (cwd / "done.json").write_text(json.dumps([done.returncode, done.stdout, done.stderr]))

    cwd = once("sweep", fill)
    done = Finished("train.py -m", *json.loads((cwd / "done.json").read_text()))
    return cwd / "outputs" / "sweeps" / "s", done


def summary(folder: Path) -> dict:
    return dict(json.loads((folder / "summary.json").read_text()))


def test_a_failing_job_is_recorded_and_the_others_go_on(
    sweep: tuple[Path, Finished],
) -> None:
    folder, done = sweep
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert names == [f"{n}_num_heads{h}_seed{s}" for n, (h, s) in enumerate([(4, 1), (4, 2), (3, 1), (3, 2)])]
    assert done.returncode == 1
    line = expect_refusal(done, "sweep.failed_jobs", "2 of 4 jobs", "2_num_heads3_seed1: model.num_heads=3 ", status=1)
    assert line.startswith("train.py: ")
    assert line.endswith(" -m resume_sweep=outputs/sweeps/s")
    assert "4 jobs: 2 completed, 2 failed" in done.stdout
    for name in names[:2]:
        assert summary(folder / name)["status"] == "completed"
        for part in ("checkpoints/best.ckpt", "metrics.csv", "train.log", ".hydra/config.yaml"):
            assert (folder / name / part).is_file()
    for name in names[2:]:
        assert summary(folder / name)["status"] == "failed"
        reason = summary(folder / name)["reason"]
        assert reason.startswith("model.num_heads=3 ")
        assert "model.d_model=32" in reason


def test_the_summary_averages_the_seeds(sweep: tuple[Path, Finished]) -> None:
    folder, done = sweep
    with (folder / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model.num_heads"] for row in rows] == ["4", "3"]
    losses = [summary(folder / f"{n}_num_heads4_seed{n + 1}")["best/val/loss"] for n in (0, 1)]
    means = [float(value) for key, value in rows[0].items() if "loss" in key and "mean" in key]
    assert means[0] == pytest.approx(sum(losses) / 2)
    assert f"{sum(losses) / 2:.3f}" in done.stdout
    assert (folder / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_that_was_stopped_and_killed_ends_as_an_unbroken_one(
    sweep: tuple[Path, Finished], settings: list[str], tmp_path: Path
) -> None:
    """Ctrl-C in one job, SIGKILL of all processes in the next."""
    arguments = [*settings, "model.num_heads=4,3", "seed=1,2", "sweep.jobs=1"]
    folder = tmp_path / "outputs" / "sweeps" / "s"
    process = launch(tmp_path, "train.py", "-m", *arguments, "sweep.name=s")
    wait_for_step(folder / "0_num_heads4_seed1", 10)
    os.killpg(process.pid, signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    expect_line(errors, "sweep.interrupted", "1 interrupted, 3 not finished; ", "resume_sweep=outputs/sweeps/s")
    assert summary(folder / "0_num_heads4_seed1")["status"] == "interrupted"

    process = launch(tmp_path, "train.py", "-m", "resume_sweep=outputs/sweeps/s")
    wait_for_step(folder / "1_num_heads4_seed2", 10)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert summary(folder / "0_num_heads4_seed1")["status"] == "completed"
    assert not (folder / "1_num_heads4_seed2" / "summary.json").exists()

    process = launch(tmp_path, "train.py", "-m", "resume_sweep=outputs/sweeps/s")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 1, "two jobs are refused again"
    assert "1 of 4 jobs" in re.sub(" +", " ", said)
    for name in ("0_num_heads4_seed1", "1_num_heads4_seed2"):
        assert "resumed at step" in (folder / name / "train.log").read_text()
        expect_same_run(folder / name, sweep[0] / name)


def test_too_many_failures_end_a_sweep(settings: list[str], run_script: Callable, tmp_path: Path) -> None:
    options = ["sweep.jobs=1", "sweep.max_failures=2", "sweep.dir=here", "hydra/launcher=processes"]
    done = run_script("train.py", *settings, "model.num_heads=3,5,7,9", *options, "-m")
    assert done.returncode == 1
    assert "4 jobs: 2 failed, 2 not finished" in done.stdout
    assert sorted(path.name for path in (tmp_path / "here").iterdir() if path.is_dir()) == [
        "0_num_heads3",
        "1_num_heads5",
    ]


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="a device of a processor is a core")
def test_hydras_launcher_for_slurm(settings: list[str], run_script: Callable, tmp_path: Path) -> None:
    """In its local mode, which starts processes where the other asks SLURM for them; a job with two devices."""
    options = ["hydra/launcher=submitit_local", "sweep.name=s", "trainer.devices=2", "max_steps=5"]
    done = run_script("train.py", "-m", *settings, *options)
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "outputs" / "sweeps" / "s" / "0_default")["steps"] == 5
    assert "1 jobs: 1 completed" in done.stdout


def test_the_jobs_are_named_by_what_differs() -> None:
    jobs = grid(Path("s"), ["data.path='a, b.csv'", "model=tiny,small", "optim.lr=choice(1e-3,0.01)", "seed=1"])
    assert [job.name for job in jobs] == ["0_tiny_lr0.001", "1_tiny_lr0.01", "2_small_lr0.001", "3_small_lr0.01"]
    assert jobs[3].overrides == ("data.path='a, b.csv'", "model=small", "optim.lr=0.01", "seed=1")


def test_a_resumed_sweep_has_its_plan_and_a_place(tmp_path: Path) -> None:
    folder = tmp_path / "moved, there"
    folder.mkdir()
    (folder / "sweep.yaml").write_text("- model=tiny,small\n- sweep.jobs=2\n- sweep.name=old\n")
    found = complete_arguments(["-m", f"resume_sweep={folder}", "sweep.jobs=3"])
    assert found == ["-m", "model=tiny,small", "sweep.jobs=3", f"sweep.dir='{folder}'"]
    assert read_plan(folder) == ["model=tiny,small", "sweep.jobs=2", "sweep.name=old"]


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["resume_sweep=s"], "sweep.without_multirun", ["resume_sweep=s ", "-m"]),
        (["-m", "resume_sweep=s"], "sweep.not_found", ["s "]),
        (["-m", "resume_sweep="], "config.empty", ["resume_sweep "]),
        (["-m", "resume_sweep=s", "seed=3"], "config.cannot_change", ["seed=3 "]),
        (["-m", "run_dir=x", "seed=1,2"], "config.conflict", ["run_dir ", "sweep.dir "]),
        (["-m", "resume=latest", "seed=1,2"], "config.conflict", ["resume ", "resume_sweep "]),
    ],
)
def test_what_no_sweep_can_be_told(arguments: list[str], code: str, named: list[str]) -> None:
    with refused(code, *named):
        complete_arguments(arguments)


def test_a_refused_sweep_leaves_no_folder(tmp_path: Path) -> None:
    for wrong, code in (
        ("seeed=1,2", "config.unknown_key"),
        ("sweep.jobs=0", "config.out_of_range"),
        ("sweep.name=../x", "config.not_a_name"),
        ("optim.lr=interval(1,2)", "sweep.interval_in_grid"),
    ):
        done = run_in_process(tmp_path, "train.py", "-m", "seed=1,2", wrong)
        expect_refusal(done, code, wrong.partition("=")[0])
    assert not (tmp_path / "outputs").exists()


def test_another_sweep_is_not_overwritten(sweep: tuple[Path, Finished], run_script: Callable) -> None:
    done = run_program(sweep[0], "train.py", "-m", "seed=1,2", f"sweep.dir={sweep[0]}")
    expect_refusal(done, "sweep.other_plan", f"resume_sweep={sweep[0]}")


def test_nobody_has_to_read_what_is_said() -> None:
    """As when the output goes to a program that ends: the run, or the sweep, goes on."""
    says = "for _ in range(20): console.print('word ' * 1000)"
    told = f"from hp_lightning.common.console import console\n{says}\nopen('done', 'w')"
    with tempfile.TemporaryDirectory() as folder:
        python = shlex.join([sys.executable, "-c", told])
        command = f"PYTHONPATH={shlex.quote(str(PROJECT))} {python} | head -c 1"
        done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("w", "")
        assert (Path(folder) / "done").exists()


def test_jobs_share_the_machine(monkeypatch: pytest.MonkeyPatch, make_config: Callable) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def shares(jobs: object, gpus: int = 0, devices: int = 1) -> list[dict[str, str]]:
        trainer, cfg = make_config(f"trainer.devices={devices}").trainer, SweepConfig("s", "s", jobs, None, None)
        return slots.make_slots(cfg, trainer, cores=8, gpus=[str(gpu) for gpu in range(gpus)])

    assert shares(1) == [{}]
    assert shares(4) == [{"OMP_NUM_THREADS": "2"}] * 4
    assert shares(2, devices=2) == [{"OMP_NUM_THREADS": "2"}] * 2
    assert shares(20) == [{"OMP_NUM_THREADS": "1"}] * 20
    assert shares("auto", 4) == [{"CUDA_VISIBLE_DEVICES": str(gpu)} for gpu in range(4)]
    assert shares("auto", 4, devices=2) == [{"CUDA_VISIBLE_DEVICES": pair} for pair in ("0,1", "2,3")]
    assert shares(6, 4)[4:] == [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]
