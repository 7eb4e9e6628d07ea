"""Several runs by one command."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import DictConfig

from hp_lightning.common.errors import InputError
from hp_lightning.schema.checks import resolved, validated
from hp_lightning.schema.setting import SEED, Bound, number, setting


@dataclass
class SweepConfig:
    """Several runs by one command (`-m`): where they lie, and how they are run."""

    name: Optional[str] = setting("${now:%Y-%m-%d_%H-%M-%S}", "name of the sweep's folder")
    dir: str = setting("outputs/sweeps/${sweep.name}", "the sweep's folder")
    jobs: Any = setting(
        "auto",
        "how many run at once; auto: one per GPU, or one per two cores",
        Bound("must be auto, or at least 1", lambda jobs: jobs == "auto" or (type(jobs) is int and jobs >= 1)),
    )
    max_failures: Optional[int] = setting(
        None, "failed jobs after which no other is started; null: all jobs are tried", number(at_least=1)
    )
    job: Optional[str] = setting(None, "folder of a job; the sweep sets it")


@dataclass
class OptunaConfig:
    """`hydra/sweeper=optuna`: a search."""

    n_trials: int = setting(20, "jobs", number(at_least=1))
    seed: int = setting(1, "draws the proposals", SEED)
    params: dict[str, str] = setting({}, "what is searched, by key, where the command line says nothing")


def optuna_config(**given: Any) -> OptunaConfig:
    """What the sweeper was given, checked.

    Raises:
        InputError: a value is out of its range
    """
    return validated(given, OptunaConfig, prefix="hydra.sweeper.")


def sweep_config(cfg: DictConfig) -> SweepConfig:
    """The part of a composed config that concerns the sweep, checked.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(resolved(cfg.sweep), SweepConfig, _rules, "sweep.")


def _rules(cfg: SweepConfig) -> Iterator[InputError]:
    if cfg.name is not None and (os.path.basename(cfg.name) != cfg.name or cfg.name in (".", "..")):
        yield InputError(
            "config.not_a_name",
            f"sweep.name={cfg.name} must be the name of a folder: leave out slashes, or take sweep.dir for another "
            "place",
        )
