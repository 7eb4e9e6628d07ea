"""The folder of a sweep: what was planned, and how a command line starts or resumes it."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hp_lightning.common.errors import InputError
from hp_lightning.common.files import atomic_write_text
from hp_lightning.common.hydra_grammar import key_and_value, quoted, slug
from hp_lightning.common.run_dir import RunDir

PLAN = "sweep.yaml"
MULTIRUN = {"-m", "--multirun"}
OF_THE_SWEEP = "sweep."
NAME_OF_JOB = "sweep.job="
NO_PLAN = "is damaged, it should be a list of key=value: bring it back, or start a new sweep"
PLACES = {"sweep.name", "sweep.dir"}
CONFIG_OPTIONS = ("config_path", "config_name", "config_dir")  # of Hydra: which configs there are
OF_HYDRA = (*(f"--{name.replace('_', '-')}=" for name in CONFIG_OPTIONS), "hydra.", "hydra/")
# What a resumed sweep may be told again: how its jobs are run, not what they are.
RESUMABLE = ("sweep.jobs", "sweep.max_failures", "hydra/launcher", "hydra.launcher.", "hydra.sweeper.n_trials")


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    overrides: tuple[str, ...]  # in Hydra's grammar
    folder: Path

    @property
    def name(self) -> str:
        """What a person is told of it."""
        return self.folder.name

    @property
    def run_dir(self) -> RunDir:
        """The same folder, as that of its run."""
        return RunDir(self.folder)

    @property
    def overrides_with_place(self) -> list[str]:
        """What one of Hydra's launchers is given; `placed_job` makes the job of them again."""
        return [*self.overrides, f"sweep.dir={quoted(str(self.folder.parent))}", NAME_OF_JOB + self.name]


def placed_job(sweep_dir: Path, overrides: Iterable[str]) -> Job:
    """The job that a launcher was given by these overrides.

    Raises:
        InputError: it was none of ours that gave them
    """
    own, of_the_sweep = _own_and_of_the_sweep(overrides)
    names = [word.removeprefix(NAME_OF_JOB) for word in of_the_sweep if word.startswith(NAME_OF_JOB)]
    if not names:
        raise InputError(
            "sweep.other_sweeper",
            "this sweeper gives its jobs no folders: take hydra/sweeper=grid or hydra/sweeper=optuna",
        )
    return Job(own, sweep_dir / names[-1])


def _own_and_of_the_sweep(overrides: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those that say what a run is, and those that no run has to know of."""
    words = tuple(overrides)
    own_words = tuple(word for word in words if not word.startswith(OF_THE_SWEEP))
    return own_words, tuple(word for word in words if word.startswith(OF_THE_SWEEP))


def make_job(sweep_dir: Path, number: int, overrides: Iterable[str], varied: set[str]) -> Job:
    """The job of a sweep, in its place.

    Args:
        sweep_dir: the sweep's folder
        number: of the job
        overrides: its own
        varied: the keys that differ between jobs, by which it is named
    """
    own, _ = _own_and_of_the_sweep(overrides)
    name = slug(word for word in own if _key(word) in varied)
    return Job(own, sweep_dir / f"{number}_{name}")


def complete_arguments(arguments: list[str]) -> list[str]:
    """A command line of train, in which a resumed sweep has its plan.

    Raises:
        InputError: it mixes what belongs to a single run with a sweep, or names no sweep to resume
    """
    given = dict(key_and_value(word) for word in arguments if not word.startswith("-"))
    if not MULTIRUN & set(arguments):
        if "resume_sweep" in given:
            raise InputError(
                "sweep.without_multirun",
                f"resume_sweep={given['resume_sweep']} resumes several runs: put -m before it",
            )
        return arguments
    for key, instead in (("run_dir", "sweep.dir"), ("resume", "resume_sweep")):
        if key in given:
            raise InputError("config.conflict", f"{key} belongs to a single run: take {instead} for a sweep (-m)")
    if "resume_sweep" in given:
        if not given["resume_sweep"]:
            raise InputError("config.empty", "resume_sweep is empty: name the folder of a sweep (outputs/sweeps/...)")
        return _resumed(given["resume_sweep"], [word for word in arguments if _key(word) != "resume_sweep"])
    return arguments


def _resumed(sweep: str, others: list[str]) -> list[str]:
    changes = [word for word in others if word not in MULTIRUN]
    refused = [word for word in changes if not _key(word).startswith(RESUMABLE)]
    if refused:
        raise InputError(
            "config.cannot_change",
            f"{', '.join(refused)} cannot be changed when resuming a sweep; remove it or start a new sweep; "
            f"{', '.join(RESUMABLE[:3])} can",
        )
    planned = [word for word in read_plan(Path(sweep)) if _key(word) not in PLACES | set(map(_key, changes))]
    return ["-m", *planned, *changes, f"sweep.dir={quoted(sweep)}"]


def read_plan(sweep_dir: Path) -> list[str]:
    """The command line that a sweep was started with.

    Raises:
        InputError: there is none
    """
    path = sweep_dir / PLAN
    try:
        plan = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError as error:
        raise InputError(
            "sweep.not_found", f"{sweep_dir} holds no sweep: name the folder of one (outputs/sweeps/...)"
        ) from error
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise InputError("sweep.damaged_plan", f"{path} {NO_PLAN}") from error
    if not isinstance(plan, list) or not all(
        isinstance(word, str) and "=" in word and (word.startswith(OF_HYDRA) or not word.startswith("-"))
        for word in plan  # another option could run what is in a file
    ):
        raise InputError("sweep.damaged_plan", f"{path} {NO_PLAN}")
    return [str(word) for word in plan]


def config_options(arguments: list[str]) -> list[str]:
    """Hydra's options that say which configs there are, each as one word."""
    given = vars(get_args(arguments))
    return [f"--{name.replace('_', '-')}={given[name]}" for name in CONFIG_OPTIONS if given[name] is not None]


def settings_of_hydra(sweep_dir: Path) -> list[str]:
    """What a job is told before its own overrides, as by Hydra's own launchers: all that is Hydra's.

    A config of the person's may say `hydra.mode: MULTIRUN`, and a job must not be a sweep.
    """
    return [*(word for word in read_plan(sweep_dir) if word.startswith(OF_HYDRA)), "hydra.mode=RUN"]


def start_sweep(sweep_dir: Path, overrides: list[str]) -> None:
    """Make the folder, with the plan in it; or find the same plan there.

    Raises:
        InputError: something else is in the folder, or it cannot be made
    """
    path = sweep_dir / PLAN
    if path.is_file():
        if _jobs_of(read_plan(sweep_dir)) != _jobs_of(overrides):
            raise InputError(
                "sweep.other_plan",
                f"{sweep_dir} holds another sweep: resume it with -m resume_sweep={sweep_dir}, or take another "
                "sweep.name",
            )
        return
    if sweep_dir.is_dir() and any(sweep_dir.iterdir()):
        raise InputError(
            "output.not_empty", f"sweep.dir={sweep_dir} is not empty, and holds no sweep: name a new folder"
        )
    try:
        sweep_dir.mkdir(parents=True, exist_ok=True)
        atomic_write_text(path, OmegaConf.to_yaml(OmegaConf.create(overrides)))
    except OSError as error:
        raise InputError(
            "output.not_writable", f"sweep.dir={sweep_dir} cannot be made ({error.strerror}): name another folder"
        ) from error


def _jobs_of(overrides: list[str]) -> list[str]:
    """What of a command line says which jobs there are."""
    return [word for word in overrides if _key(word) not in PLACES and not _key(word).startswith(RESUMABLE)]


def _key(word: str) -> str:
    return key_and_value(word)[0]


def clear(job: Job) -> None:
    """Remove what a job left that had no run yet: the report of its failure, or a folder half made."""
    if job.folder.is_dir():
        shutil.rmtree(job.folder)


def has_started(job: Job) -> bool:
    """Whether there is a run to resume."""
    return os.path.isfile(job.run_dir.config) or job.run_dir.last_checkpoint.is_file()


def grid(sweep_dir: Path, overrides: list[str]) -> list[Job]:
    """A job for every combination of the values that are given with commas, choice() or range(), in Hydra's order.

    Raises:
        HydraException: the overrides are not in Hydra's grammar
        InputError: an interval has no values to list
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    for override in parsed:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            raise InputError(
                "sweep.interval_in_grid",
                f"{override.input_line} is searched, not listed: add hydra/sweeper=optuna, or list values",
            )
    varied = {override.get_key_element() for override in parsed if override.is_sweep_override()}
    combinations = BasicSweeper.split_arguments(parsed, None)[0]
    return [make_job(sweep_dir, number, words, varied) for number, words in enumerate(combinations)]
