"""The summary of a sweep, from run folders as runs leave them: whole, half-written, damaged, gone."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from helpers.errors import expect_refusal, refused
from helpers.in_process import run_in_process
from helpers.processes import PROJECT, Finished, run_program
from omegaconf import OmegaConf
from PIL import Image

from hp_lightning.common.console import messages
from hp_lightning.common.errors import RunError
from hp_lightning.schema.train import TrainConfig, to_yaml
from hp_lightning.sweeps.comparison.compare import Comparison, compare
from hp_lightning.sweeps.comparison.runs import find_run_folders, read_run
from hp_lightning.sweeps.comparison.verdict import verdict
from hp_lightning.sweeps.comparison.write import summarize

MakeConfig = Callable[..., TrainConfig]
AddRun = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
COLUMNS = ("step", "tokens", "seconds", "train/loss", "tokens_per_second", "val/loss", "val/perplexity")
COLUMNS += ("val/bits_per_char", "val/gap")
GROUPS = {"data": "books", "tokenizer": "word", "model": "tiny", "regularization": "strong", "optim": "muon"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The folder of a sweep, which may have any name."""
    path = tmp_path / "a | sweep"
    path.mkdir()
    return path


@pytest.fixture
def add_run(sweep: Path, make_config: MakeConfig) -> AddRun:
    """Makes a run folder as training does: ten steps between validations, 100 tokens each, 6 seconds of training."""

    def add(
        *overrides: str, losses: tuple[float, ...] = (), train: float = 3.0, speed: float = 1000.0, **summary: Any
    ) -> Path:
        number = len([path for path in sweep.iterdir() if path.is_dir()])
        folder = sweep / f"{number}_run"
        hydra = folder / ".hydra"
        hydra.mkdir(parents=True)
        (hydra / "config.yaml").write_text(to_yaml(make_config(*overrides)), encoding="utf-8")
        OmegaConf.save(OmegaConf.create(list(overrides)), hydra / "overrides.yaml")
        chosen = dict(override.split("=") for override in overrides if override.split("=")[0] in GROUPS)
        OmegaConf.save(
            OmegaConf.create({"hydra": {"runtime": {"choices": {**GROUPS, **chosen}}}}), hydra / "hydra.yaml"
        )
        with (folder / "metrics.csv").open("w", newline="") as file:
            rows = csv.DictWriter(file, COLUMNS)
            rows.writeheader()
            for step, loss in enumerate(losses, start=1):
                common = {"step": 10 * step, "tokens": 1000 * step, "seconds": 6 * step}
                rows.writerow({**common, "train/loss": train, "tokens_per_second": speed})
                figures = {
                    "val/loss": loss,
                    "val/perplexity": math.exp(loss),
                    "val/bits_per_char": loss / 2,
                    "val/gap": loss - train,
                }
                rows.writerow({**common, **figures})
        if summary:
            (folder / "summary.json").write_text(json.dumps({"reason": None, **summary}), encoding="utf-8")
        return folder

    return add


def done(losses: tuple[float, ...], **others: Any) -> dict[str, Any]:
    """The summary of a complete run."""
    best = min(losses)
    figures = {"best/val/loss": best, "best/step": 10 * (1 + losses.index(best)), "parameters": 1000}
    return {"losses": losses, "status": "completed", "unigram/val_loss": 5.0, **figures, **others}


def refused_job(sweep: Path, *overrides: str) -> None:
    """The folder of a job that was refused before it had a run."""
    folder = sweep / f"{len(list(sweep.iterdir()))}_refused"
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(list(overrides)), folder / ".hydra" / "overrides.yaml")
    reason = "model.num_heads=3 does not divide model.d_model=128: try 2 | 4"
    (folder / "summary.json").write_text(json.dumps({"status": "failed", "reason": reason}), encoding="utf-8")


def summary_of(sweep: Path) -> list[dict[str, str]]:
    """The rows of summary.csv, newly made."""
    with messages():
        summarize(find_run_folders([sweep]), sweep)
    with (sweep / "summary.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def comparison_of(sweep: Path) -> Comparison:
    records = [read_run(folder) for folder in find_run_folders([sweep])]
    return compare([record for record in records if record is not None])


def verdict_of(sweep: Path) -> str:
    """What is said below the table."""
    return "\n".join(verdict(comparison_of(sweep)))


def test_seeds_are_averaged(sweep: Path, add_run: AddRun, capsys: Capture) -> None:
    for seed, losses, speed in (
        (1, (5.0, 4.0, 4.5), 900.0),
        (2, (5.0, 4.2, 4.1), 1100.0),
        (3, (4.6, 4.4, 4.3), 1300.0),
    ):
        add_run("model=small", f"seed={seed}", speed=speed, **done(losses))
    add_run("seed=1", train=4.0, **done((5.0, 5.1)))
    best, other = summary_of(sweep)
    assert (best["model"], other["model"]) == ("small", "tiny")
    assert "seed" not in best
    # (4.0 + 4.1 + 4.3) / 3, and the root of (0.1333² + 0.0333² + 0.1667²) / 2
    assert float(best["best_val_loss_mean"]) == pytest.approx(12.4 / 3)
    assert float(best["best_val_loss_std"]) == pytest.approx(0.1527525232)
    assert float(best["perplexity_mean"]) == pytest.approx((math.exp(4.0) + math.exp(4.1) + math.exp(4.3)) / 3)
    assert float(best["bits_per_char_mean"]) == pytest.approx(6.2 / 3)
    assert float(best["gap_mean"]) == pytest.approx(3.4 / 3)  # the training loss is 3.0
    assert float(best["steps_to_best_mean"]) == pytest.approx((20 + 30 + 30) / 3)
    assert float(best["minutes_to_best_mean"]) == pytest.approx((0.2 + 0.3 + 0.3) / 3)
    assert float(best["tokens_per_second_mean"]) == 1100
    assert (best["parameters_mean"], best["seeds"], best["status"]) == ("1000.0", "3", "completed")
    assert (other["best_val_loss_mean"], other["best_val_loss_std"], other["seeds"]) == ("5.0", "", "1")
    assert float(other["gap_mean"]) == 1.0
    said = capsys.readouterr().out
    assert re.search(r"small +│ 4\.133 ± 0\.153 │", said)
    assert "Best: model=small: validation loss 4.133 ± 0.153 over 3 seeds" in said


@pytest.mark.parametrize(
    ("second", "margin"),
    [
        ((4.2, 4.21, 4.22), "0.200 worse (20.0 seed standard deviations): significant."),
        ((4.01, 4.02, 4.03), "0.010 worse (1.0 seed standard deviations): within the noise of the seeds"),
        ((4.2, 4.22), "significant, though from few seeds"),
        ((4.2,), "0.190 worse (19.0 seed standard deviations)"),  # of the other one
    ],
)
def test_margin_is_held_against_the_spread(
    sweep: Path, add_run: AddRun, second: tuple[float, ...], margin: str
) -> None:
    for model, losses in (("small", (4.0, 4.01, 4.02)), ("tiny", second)):
        for seed, loss in enumerate(losses):
            add_run(f"model={model}", f"seed={seed}", **done((loss,)))
    assert margin in verdict_of(sweep)


def test_reasons_are_told(sweep: Path, add_run: AddRun) -> None:
    best = add_run("model=small", "regularization=light", **done((4.5, 4.0)))
    add_run("model=small", "regularization=none", **done((4.1, 4.6)))
    add_run("model=tiny", "regularization=light", **done((4.5, 4.3)))
    add_run("model=tiny", "regularization=none", **done((4.4, 4.4)))
    lines = verdict_of(sweep)
    assert "Best: model=small regularization=light: validation loss 4.000, perplexity 54.6." in lines
    assert "Runner-up: model=small regularization=none, 0.100 worse" in lines
    assert "run several seeds to tell this from noise (seed=1,2,3)" in lines
    assert "regularization=none instead of light +0.100; model=tiny instead of small +0.300." in lines
    assert (
        "again after its best: model=small regularization=none (by 12.2%, to 1.600 above the training loss)." in lines
    )
    assert "still falling at its last validation" in lines
    assert lines.endswith(f"Its best run: {best}")


def test_a_rate_too_high_is_no_overfitting(sweep: Path, add_run: AddRun) -> None:
    """The validation loss rises again, but so does that of training."""
    add_run("optim.lr=0.1", **done((4.4, 4.0)))
    risen = add_run("optim.lr=0.2", **done((4.1, 4.6)))
    assert "Overfitting" in verdict_of(sweep)
    table = risen / "metrics.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["val/loss"] and row["step"] == "20":
            row["val/gap"] = "1.1"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    assert "Overfitting" not in verdict_of(sweep)


def test_failed_runs_are_told_of(sweep: Path, add_run: AddRun, capsys: Capture) -> None:
    reason = "the training loss is 60.1 at step 5, the gradient norm 3, on a batch from\nCorrow Quay"
    for seed in (1, 2):
        add_run("optim.lr=0.1", "model.num_heads=4", f"seed={seed}", **done((5.0, 4.0 + seed)))
    add_run("optim.lr=0.1", "model.num_heads=4", "seed=3", losses=(3.0,), status="failed", reason=reason)
    refused_job(sweep, "optim.lr=1e-1", "model.num_heads=3", "seed=1")
    refused_job(sweep, "optim.lr=0.1", "model.num_heads=4", "seed=4")
    add_run("optim.lr=0.9", "model.num_heads=4", "seed=1", losses=(2.0,), status="failed", reason="too hot")
    add_run("optim.lr=0.01", "model.num_heads=4", "seed=1", **done((6.0,), status="stopped early"))
    rows = summary_of(sweep)
    assert [(row["optim.lr"], row["model.num_heads"], row["status"]) for row in rows] == [
        ("0.1", "4", "2 completed, 1 failed"),
        ("0.01", "4", "stopped early"),
        ("0.9", "4", "failed"),  # though its loss was the lowest
        ("1e-1", "3", "failed"),
        ("0.1", "4", "failed"),  # refused: a row of its own
    ]
    assert (rows[0]["best_val_loss_mean"], rows[0]["seeds"]) == ("5.0", "2")
    assert "num_heads=3 does not divide" in rows[3]["reasons"]
    said = capsys.readouterr().out
    assert f"failed: {sweep}/2_run: {' '.join(reason.split())}\n" in said
    assert "Best: optim.lr=0.1 model.num_heads=4: validation loss 5.000" in said


def test_runs_that_go_on_or_were_killed(sweep: Path, add_run: AddRun, capsys: Capture) -> None:
    running = add_run("model=small", losses=(5.0, 4.0))
    add_run("model=base", losses=(3.9,))
    add_run("model=gpt2")
    interrupted = add_run("model=tiny", **done((4.4,), status="interrupted", reason="stopped by SIGINT"))
    with (running / "metrics.csv").open("a") as file:
        file.write("30,3000,18.0,,,3.5,33.1,1.7")  # being written: the last figure may go on
    with FileLock(running / ".lock"):
        rows = summary_of(sweep)
    assert [(row["model"], row["best_val_loss_mean"], row["status"]) for row in rows] == [
        ("base", "3.9", "not finished"),
        ("small", "4.0", "running"),
        ("tiny", "4.4", "interrupted"),
        ("gpt2", "", "not finished"),
    ]
    said = capsys.readouterr().out
    assert "Best: model=base (not finished)" in said
    assert f"interrupted: {interrupted}: stopped by SIGINT" in said


def test_damaged_folders_are_no_obstacle(sweep: Path, add_run: AddRun, capsys: Capture) -> None:
    add_run("model=small", **done((4.0,)))
    torn = add_run("model=base", **done((5.0, 4.5)))
    (torn / "summary.json").write_text('{"status": "comp')
    (torn / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: [model]}}\n")
    lost = add_run("model=tiny", **done((4.6,)))
    (lost / "metrics.csv").write_bytes(b"\xff\x00,\nstep\n\x00\x01,1\n")
    nan = add_run("model=gpt2", losses=(4.8, math.nan), status="completed", **{"best/val/loss": None, "best/step": 10})
    (nan / ".hydra" / "hydra.yaml").write_text("hydra: [")
    broken = add_run("model=roadmap", losses=(4.9,), status="completed")
    (broken / ".hydra" / "config.yaml").write_text("model: ${oc.env:HOME}\n")
    rows = {row["model"]: row for row in summary_of(sweep)}
    assert [(model, row["best_val_loss_mean"], row["status"]) for model, row in rows.items()] == [
        ("small", "4.0", "completed"),
        ("base", "4.5", "not finished"),
        ("gpt2", "4.8", "completed"),
        ("roadmap", "4.9", "completed"),
        ("tiny", "", "completed"),
    ]
    said = capsys.readouterr().out
    for path in (torn / "summary.json", nan / ".hydra" / "hydra.yaml", broken / ".hydra" / "config.yaml"):
        assert f"{path} is damaged: " in said


def test_run_that_vanishes_is_left_out(sweep: Path, add_run: AddRun, capsys: Capture) -> None:
    folders = [add_run("model=small", **done((4.0,))), add_run("model=tiny", **done((4.5,)))]
    shutil.rmtree(folders[0])
    with messages():
        summarize(folders, sweep)
    said = capsys.readouterr().out
    assert "run folders that are gone: 1" in said
    assert (sweep / "summary.csv").read_text().count("\n") == 2
    shutil.rmtree(folders[1])
    with refused("compare.no_runs", error=RunError):
        summarize(folders, sweep)


def test_preset_that_was_edited_in_between_shows(sweep: Path, add_run: AddRun) -> None:
    for seed in (1, 2):
        add_run("model=small", f"seed={seed}", **done((4.0,)))
    edited = add_run("model=small", "seed=1", **done((4.5,)))
    config = (edited / ".hydra" / "config.yaml").read_text()
    (edited / ".hydra" / "config.yaml").write_text(config.replace("dropout: 0.1", "dropout: 0.2"))
    rows = summary_of(sweep)
    assert [(row["regularization.dropout"], row["seeds"]) for row in rows] == [("0.1", "2"), ("0.2", "1")]
    assert set(rows[0]).isdisjoint({"model", "regularization.embedding_dropout"})


def test_configurations_are_told_apart_by_what_they_are_not_by_what_was_typed(sweep: Path, add_run: AddRun) -> None:
    add_run("seed=1", **done((4.0,)))
    add_run("regularization=strong", "optim.lr=0.006", "seed=2", **done((4.2,)))
    [row] = summary_of(sweep)
    assert (row["seeds"], float(row["best_val_loss_mean"])) == ("2", pytest.approx(4.1))


def test_what_the_machine_decides_makes_no_configuration(sweep: Path, add_run: AddRun) -> None:
    for seed, compiled, folder in ((1, "true", "a"), (2, "false", "b")):
        run = add_run(f"seed={seed}", f"data.cache_dir={folder}", f"run_dir={folder}", **done((4.0,)))
        config = (run / ".hydra" / "config.yaml").read_text()
        (run / ".hydra" / "config.yaml").write_text(config.replace("compile: auto", f"compile: {compiled}"))
    [row] = summary_of(sweep)
    assert row["seeds"] == "2"
    add_run("seed=1", "trainer.compile=true", **done((4.0,)))
    assert [row["trainer.compile"] for row in summary_of(sweep)] == ["true", "false"]


def test_same_seed_again_counts_once(sweep: Path, add_run: AddRun, capsys: Capture) -> None:
    add_run("seed=1", **done((4.0,)))
    again = add_run("seed=1", losses=(3.0,), status="failed", reason="the disk was full")
    [row] = summary_of(sweep)
    assert (row["best_val_loss_mean"], row["seeds"], row["status"]) == ("4.0", "1", "completed")
    said = capsys.readouterr().out
    assert f"skipped (duplicate of the same configuration and seed): {again}" in said


def test_tokenizers_are_compared_by_bits_per_character(sweep: Path, add_run: AddRun, capsys: Capture) -> None:
    add_run("tokenizer=char", **done((1.6,), **{"unigram/val_loss": 3.0, "unk_rate": 0.0}))
    words = add_run("tokenizer=word", **done((4.0,), **{"unk_rate": 0.038}))
    text = (words / "metrics.csv").read_text()
    (words / "metrics.csv").write_text(text.replace(",2.0,", ",0.7,"))
    rows = summary_of(sweep)
    assert [(row["tokenizer"], row["bits_per_char_mean"]) for row in rows] == [("word", "0.7"), ("char", "0.8")]
    said = capsys.readouterr().out
    assert "The tokenizers differ" in said
    assert "bits per character 0.700" in said
    assert "<UNK>" in said
    assert "3.80%" in said


@pytest.mark.parametrize(
    ("other", "unigram", "why"),
    [
        ("data.split_seed=1", 5.0, "the runs differ in data.split_seed"),
        ("seed=2", 5.2, "the corpus changed between the runs"),
    ],
)
def test_other_texts_are_not_compared(sweep: Path, add_run: AddRun, other: str, unigram: float, why: str) -> None:
    add_run(**done((4.0,)))
    add_run(other, **done((4.5,), **{"unigram/val_loss": unigram}))
    lines = verdict_of(sweep)
    assert f"cannot be compared, none is the best: {why}" in lines
    assert "Best:" not in lines


@pytest.mark.parametrize("count", [1, 9])
def test_picture(sweep: Path, add_run: AddRun, count: int) -> None:
    for number in range(count):
        prompt = f"${number} [a]_{{x}}^"  # what Matplotlib and Rich would take for their own
        run = add_run(f"optim.lr={0.001 * (number + 1)}", **done((6.0, 4.0 + number / 9, 4.5 + number**2)))
        text = (run / ".hydra" / "overrides.yaml").read_text()
        (run / ".hydra" / "overrides.yaml").write_text(text + f"- 'data.text_column={prompt}'\n")
        config = (run / ".hydra" / "config.yaml").read_text()
        (run / ".hydra" / "config.yaml").write_text(config.replace("text_column: null", f"text_column: '{prompt}'"))
    summary_of(sweep)
    with Image.open(sweep / "summary.png") as picture:
        picture.load()
        width, height = picture.size
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert 1200 <= width <= 2400
    assert 500 <= height <= 1000
    assert colours is not None
    assert len(colours) > 10
    assert not list(sweep.glob(".*")), "something unfinished was left"


def test_folder_that_cannot_be_written(sweep: Path, add_run: AddRun, capsys: Capture) -> None:
    folder = add_run(**done((4.0,)))
    with messages(), refused("output.not_writable", sweep / "nowhere", error=RunError):
        summarize([folder], sweep / "nowhere")
    said = capsys.readouterr().out
    assert "Best: 0_run: validation loss 4.000" in said


# As a person calls it.


def report(cwd: Path, *arguments: str) -> Finished:
    return run_program(cwd, "compare", *arguments)


def test_run_that_was_trained(tmp_path: Path, first_book: Path) -> None:
    # Of a sweep that was trained tests/sweeps/test_sweep.py holds the same.
    settings = ["experiment=smoke", f"data.path={first_book}", "max_steps=4", "trainer.val_every_steps=2"]
    settings += ["logger.log_every_steps=1", "logger.tensorboard=false", "run_dir=outputs/runs/one"]
    trained = run_program(tmp_path, "train.py", *settings)
    assert trained.returncode == 0, trained.stderr
    summarized = report(tmp_path, "outputs", "to=.")
    assert (summarized.returncode, summarized.stderr) == (0, "")
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    run = tmp_path / "outputs" / "runs" / "one"
    summary = json.loads((run / "summary.json").read_text())
    assert float(row["best_val_loss_mean"]) == summary["best/val/loss"]
    assert float(row["perplexity_mean"]) == pytest.approx(summary["best/val/perplexity"])
    assert float(row["bits_per_char_mean"]) == pytest.approx(summary["best/val/bits_per_char"])
    assert float(row["steps_to_best_mean"]) == summary["best/step"]
    assert 0 < float(row["minutes_to_best_mean"]) <= summary["seconds"] / 60 + 0.002
    assert float(row["parameters_mean"]) == summary["parameters"]
    assert abs(float(row["gap_mean"])) < 1
    assert (row["status"], row["runs"]) == ("completed", "outputs/runs/one")
    for kind in ("csv", "png"):
        assert f"summary.{kind}" in summarized.stdout
    # By name, twice: into the folder that holds both.
    shutil.copytree(run, run.with_name("two"))
    assert report(tmp_path, "outputs/runs/one", "outputs/runs/two", "outputs/runs/one").returncode == 0
    assert (run.parent / "summary.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["nowhere"], "run.not_found", "nowhere "),
        (["empty"], "run.not_a_run", "empty "),
        ([], "cli.usage", "DIR"),
        (["run", "to=nowhere"], "output.no_folder", "to=nowhere "),
        (["run", "--two", "x"], "cli.usage", "--two"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, arguments: list[str], code: str, named: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text("[]\n")
    done = run_in_process(tmp_path, "compare", *arguments)
    assert expect_refusal(done, code, named).startswith("hp-lightning compare: ")
    assert done.stdout == ""
    assert not list(tmp_path.glob("**/summary.*"))


def test_help_says_what_can_be_given(tmp_path: Path) -> None:
    assert "hp-lightning compare DIR... [to=DIR]" in report(tmp_path, "--help").stdout


def test_reading_needs_nothing_heavy() -> None:
    code = (
        "import sys, hp_lightning.sweeps.comparison.write; print({'torch', 'lightning', 'matplotlib'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
