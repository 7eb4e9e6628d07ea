"""The command hp-lightning itself: which commands there are, and what is none of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.errors import expect_refusal
from helpers.in_process import run_in_process
from helpers.processes import PROJECT

from hp_lightning.cli.main import COMMANDS


def test_help_lists_every_command(tmp_path: Path) -> None:
    shown = run_in_process(tmp_path, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    listed = [line.split()[0] for line in shown.stdout.splitlines() if line.startswith("  ")]
    assert listed == list(COMMANDS)


def test_every_command_has_its_file() -> None:
    files = {path.stem for path in (PROJECT / "hp_lightning" / "cli").glob("*.py")}
    assert files == {*COMMANDS, "__init__", "app", "help", "main"}


def test_misspelt_commands_are_corrected(tmp_path: Path) -> None:
    line = expect_refusal(run_in_process(tmp_path, "tran"), "cli.unknown_command", "train?")
    assert line.startswith("hp-lightning: ")
    expect_refusal(run_in_process(tmp_path, "data.path=a.csv"), "cli.unknown_command", *COMMANDS)


def test_each_command_shows_its_own_help(tmp_path: Path) -> None:
    for name in COMMANDS:
        done = run_in_process(tmp_path, name, "--help")
        assert (done.returncode, done.stderr) == (0, ""), name
        assert done.stdout.strip(), name


def test_errors_name_the_command(tmp_path: Path) -> None:
    done = run_in_process(tmp_path, "evaluate", "ckpt=nowhere")
    assert expect_refusal(done, "checkpoint.not_found", "ckpt=nowhere ").startswith("hp-lightning evaluate: ")
    done = run_in_process(tmp_path, "train.py", "resume=nowhere")
    assert expect_refusal(done, "run.not_found", "resume=nowhere ").startswith("train.py: ")


def test_corpus_leaves_the_values_of_options_to_hydra(tmp_path: Path) -> None:
    done = run_in_process(tmp_path, "corpus", "mine.csv", "--cfg", "job")
    assert (done.returncode, done.stderr) == (0, "")
    assert "path: mine.csv" in done.stdout


def test_the_installed_command_finds_the_sweeper(tmp_path: Path) -> None:
    """Hydra looks for plugins on the path alone, on which the project's folder need not be."""
    script = Path(sys.executable).with_name("hp-lightning")
    if not script.is_file():
        pytest.skip("the project is not installed")
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [script, "train", "-m", "seed=1,2", "optim.lr=interval(1,2)"]
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, check=False)
    expect_refusal(done, "sweep.interval_in_grid", "optim.lr=")
