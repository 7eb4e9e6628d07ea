"""Hydra's sides of a sweep; what they do is in `hp_lightning.sweeps`.

Hydra imports this file whenever a script starts, and accepts only what is defined in it: all else is imported when a
sweep starts.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hp_lightning.sweeps.plan import Job


class ProcessLauncher(Launcher):
    """`hydra/launcher=processes`: each job in a process of its own, `sweep.jobs` of them side by side."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the config."""
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train them; the folder of each tells its end."""
        from hp_lightning.schema.sweep import sweep_config
        from hp_lightning.sweeps.plan import placed_job
        from hp_lightning.sweeps.pool import Pool
        from hp_lightning.sweeps.slots import available_cores, available_gpus, make_slots
        from hp_lightning.sweeps.sweep import Grid

        cfg = sweep_config(self.config)
        folder = Path(cfg.dir)
        jobs = [placed_job(folder, words) for words in job_overrides]
        slots = make_slots(cfg, self.config.trainer, available_cores(), available_gpus(self.config.trainer))
        Pool(Grid(jobs), folder, slots, cfg.max_failures).run()
        return []


class OurSweeper(Sweeper):
    """What the two sweepers share: the launcher, the sweep's folder, and its command line."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher."""
        from hp_lightning.schema.sweep import sweep_config

        self.hydra_context, self.config = hydra_context, config  # for validate_batch_is_legal
        self.given = config.hydra.overrides
        self.trainer = config.trainer
        self.cfg = sweep_config(config)
        self.folder = Path(self.cfg.dir)
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def overrides(self) -> list[str]:
        """The command line, by which the sweep can be resumed."""
        from hp_lightning.sweeps.plan import config_options

        words = [str(word) for part in ("task", "hydra") for word in self.given[part]]
        return [*config_options(sys.argv[1:]), *(word for word in words if not word.startswith("hydra.mode="))]


class GridSweeper(OurSweeper):
    """`hydra/sweeper=grid`: every combination of the values that were given.

    Unlike Hydra's own it makes no folder before every job's config was composed, resumes a sweep that was started,
    and ends with a summary.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Train every job and write the summary."""
        from hp_lightning.sweeps.plan import grid
        from hp_lightning.sweeps.sweep import run_sweep

        jobs = grid(self.folder, arguments)
        self.validate_batch_is_legal([job.overrides for job in jobs])
        run_sweep(self.folder, self.overrides(), lambda: self._launch(jobs), lambda: jobs)

    def _launch(self, jobs: "list[Job]") -> None:
        from hp_lightning.common.errors import InputError
        from hp_lightning.sweeps.job import is_settled

        left = [job.overrides_with_place for job in jobs if not is_settled(job)]
        if type(self.launcher).__name__ == "SlurmLauncher" and which("srun") is None:
            raise InputError(
                "machine.no_slurm",
                "hydra/launcher=submitit_slurm needs SLURM, and there is no srun here: start it on a login node, or "
                "take hydra/launcher=submitit_local",
            )
        if left:
            self.launcher.launch(left, initial_job_idx=0)


class OptunaSweeper(OurSweeper):
    """`hydra/sweeper=optuna`: the values of each job are proposed by the results of the others.

    Args:
        given: the fields of an `OptunaConfig`
    """

    def __init__(self, **given: Any) -> None:
        self.given_search = given

    def sweep(self, arguments: list[str]) -> Any:
        """Train every job and write the summary."""
        from hp_lightning.common.errors import InputError, extra
        from hp_lightning.schema.sweep import optuna_config

        with extra("search", "hydra/sweeper=optuna"):
            from hp_lightning.sweeps.optuna_search import Search
        from hp_lightning.sweeps.pool import Pool
        from hp_lightning.sweeps.slots import available_cores, available_gpus, make_slots
        from hp_lightning.sweeps.sweep import run_sweep

        if not isinstance(self.launcher, ProcessLauncher):
            raise InputError(
                "sweep.unwatched_jobs",
                "hydra/sweeper=optuna watches its jobs on this machine: leave hydra/launcher out",
            )
        cfg = optuna_config(**self.given_search)
        search = Search(self.folder, arguments, cfg.params, cfg.n_trials, cfg.seed)
        slots = make_slots(self.cfg, self.trainer, available_cores(), available_gpus(self.trainer))
        pool = Pool(search, self.folder, slots, self.cfg.max_failures)
        run_sweep(self.folder, self.overrides(), pool.run, search.jobs)
