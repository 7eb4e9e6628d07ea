"""What Hydra offers behind `python my_app.py` works behind `hp-lightning COMMAND`, as its users expect it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.errors import expect_refusal
from helpers.in_process import run_in_process
from helpers.processes import environment, run_program

OPTIONS = ("--config-dir", "mine", "--config-name", "root")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A person's folder: configs of their own beside those of the project."""
    folder = tmp_path / "mine"
    (folder / "experiment").mkdir(parents=True)
    (folder / "root.yaml").write_text("defaults: [train, _self_]\nseed: 77\nhydra: {mode: MULTIRUN}\n")
    (folder / "experiment" / "own.yaml").write_text("# @package _global_\nmodel: {num_heads: 3}\n")
    return tmp_path


def composed(cwd: Path, *words: str) -> dict:
    done = run_in_process(cwd, "train", "--cfg", "job", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return yaml.safe_load(done.stdout)


def test_configs_of_ones_own(mine: Path) -> None:
    assert composed(mine, *OPTIONS)["seed"] == 77
    assert composed(mine, "--config-dir", "mine", "experiment=own")["model"]["num_heads"] == 3
    assert composed(mine, "hydra.searchpath=[file://mine]", "experiment=own")["model"]["num_heads"] == 3
    assert composed(mine, "--resolve", "sweep.name=s")["sweep"]["dir"] == "outputs/sweeps/s"
    done = run_in_process(mine, "train", "--info", "searchpath", *OPTIONS)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"file://{mine}/mine" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "mentioned"),
    [
        (["--config-dir", "nowhere", "--cfg", "job"], "config.not_composed", "nowhere"),
        (["--config-name", "nowhere"], "config.not_composed", "nowhere"),
        (["--resolve"], "cli.usage", "--cfg"),
        (["--info", "all_of_it"], "cli.usage", "all_of_it"),
    ],
)
def test_options_without_sense_are_refused(words: list[str], code: str, mentioned: str, mine: Path) -> None:
    expect_refusal(run_in_process(mine, "train", *words), code, mentioned)


def test_an_experiment_may_choose_hydras_own_groups(mine: Path) -> None:
    (mine / "mine" / "experiment" / "search.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: optuna\n"
    )
    words = ["--config-dir", "mine", "experiment=search", "--cfg", "hydra", "--package", "hydra.sweeper"]
    done = run_in_process(mine, "train", *words)
    assert yaml.safe_load(done.stdout.partition("\n")[2])["n_trials"] == 20, done.stderr


def test_options_stand_anywhere(mine: Path) -> None:
    done = run_in_process(
        mine, "corpus", "a.csv", "--config-dir", "mine", "model=tiny", "--cfg", "job", "experiment=own"
    )
    cfg = yaml.safe_load(done.stdout)
    assert (cfg["data"]["path"], cfg["model"]["num_heads"]) == ("a.csv", 3), done.stderr


@pytest.mark.parametrize("content", [b"a: [1, 2\nb: }", b"\xff\xfe"])
def test_a_broken_config_of_ones_own_is_one_line(content: bytes, mine: Path) -> None:
    (mine / "mine" / "experiment" / "own.yaml").write_bytes(content)
    done = run_in_process(mine, "train", "--config-dir", "mine", "experiment=own")
    expect_refusal(done, "config.not_yaml")


def test_a_root_without_our_schema_leaves_nothing(mine: Path) -> None:
    (mine / "mine" / "other.yaml").write_text("a: 1\n")
    done = run_in_process(mine, "train", "--config-dir", "mine", "--config-name", "other")
    expect_refusal(done, "config.unknown_key", " a:")
    assert [path.name for path in mine.iterdir()] == ["mine"]


def test_a_sweep_hands_hydras_settings_to_its_jobs(mine: Path) -> None:
    """Here and resumed: a job that cannot find `own`, or has the project's 4 heads, tells another reason.

    `hydra.mode` in the config begins the sweep, and is not for the jobs, which would each begin another.
    """
    words = ["experiment=own,own", "sweep.name=s", "sweep.jobs=2"]
    for started in ([*OPTIONS, *words], ["-m", "resume_sweep=outputs/sweeps/s"]):
        done = run_program(mine, "train", *started)
        expect_refusal(done, "sweep.failed_jobs", "2 of 2 jobs failed", "model.num_heads=3 ", status=1)
        assert [path.name for path in (mine / "outputs" / "sweeps").iterdir()] == ["s"]


def test_a_plan_that_names_a_file_to_run_is_refused(mine: Path) -> None:
    (mine / "sweep.yaml").write_text("- seed=1,2\n- --experimental-rerun=job.pickle\n")
    expect_refusal(run_in_process(mine, "train", "-m", "resume_sweep=."), "sweep.damaged_plan", "sweep.yaml")


# `hp-lightning` as it is installed, but in a Python that cannot import torch: completion has no time for that.
WITHOUT_TORCH = """#!/bin/sh
exec {python} -c 'import sys; sys.modules["torch"] = None; from hp_lightning.cli.main import main; main()' "$@"
"""
COMPLETE = """
eval "$(hp-lightning --shell-completion install=bash)"
for COMP_LINE in "$@"; do
    COMP_POINT=${#COMP_LINE}
    "$(complete -p hp-lightning | grep -oP '(?<=-F )\\S+')"
    echo "${COMPREPLY[@]}"
done
"""


def test_bash_completes_commands_choices_and_keys(mine: Path) -> None:
    expected = {
        "hp-lightning tr": {"train"},
        "hp-lightning train model=": {f"model={name}" for name in ("base", "gpt2", "roadmap", "small", "tiny")},
        "hp-lightning train optim=adam optim.l": {"optim.lr="},
        "hp-lightning generate te": {"temperature="},
        "hp-lightning train --config-dir mine experiment=o": {"experiment=own"},
        "hp-lightning corpus a.csv data.te": {"data.test_fraction=", "data.text_column="},
        "hp-lightning compare out": set(),  # bash goes on with files
    }
    script = mine / "bin" / "hp-lightning"
    script.parent.mkdir()
    script.write_text(WITHOUT_TORCH.format(python=sys.executable))
    script.chmod(0o755)
    variables = environment(PATH=f"{script.parent}:{os.environ['PATH']}")
    words = ["bash", "-c", COMPLETE, "bash", *expected]
    done = subprocess.run(words, cwd=mine, env=variables, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert [set(line.split()) for line in done.stdout.splitlines()] == list(expected.values())


def test_completion_elsewhere_is_refused(tmp_path: Path) -> None:
    for words in (["--shell-completion", "install=fish"], ["train", "-sc"]):
        expect_refusal(run_in_process(tmp_path, *words), "cli.usage", "bash")
