"""Train a GPT on a CSV of books: hp-lightning train data.path=mine.csv model=small"""

import os
import re
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hp_lightning.api import reproduced, run_training
from hp_lightning.cli import app
from hp_lightning.common import torchrun
from hp_lightning.common.command_line import HANDED_OVER
from hp_lightning.common.errors import InputError
from hp_lightning.common.run_dir import check_run_dir, find_resumable
from hp_lightning.common.slurm import run_of_requeued_job
from hp_lightning.data.sources import check_local_sources
from hp_lightning.schema.sweep import sweep_config
from hp_lightning.schema.train import TrainConfig, TrainScriptConfig, train_config
from hp_lightning.sweeps.plan import complete_arguments, placed_job
from hp_lightning.sweeps.sweep import train_alone

FROM = re.compile("^from=")  # `from` is a word of Python, and cannot name a field


@app.hydra_main("train")
def main(cfg: DictConfig) -> None:
    """One run; or one job of a sweep, for a launcher that starts processes of its own."""
    hydra_cfg = HydraConfig.get()
    overrides = list(hydra_cfg.overrides.task)
    if hydra_cfg.mode == RunMode.MULTIRUN:
        sweep_dir = Path(hydra_cfg.sweep.dir)
        train_alone(placed_job(sweep_dir, overrides), sweep_dir)
        return
    checked = train_config(cfg)
    sweep_config(cfg)
    started = None if checked.resume is not None else run_of_requeued_job(checked.run_dir)
    if started is not None:
        checked.resume, overrides = str(started), []
    if cfg.from_run is not None:
        checked, overrides = reproduced(checked, overrides, cfg.from_run)
    _refuse_early(checked)
    run_training(checked, overrides, OmegaConf.structured(hydra_cfg))


def _refuse_early(cfg: TrainConfig) -> None:
    """Importing torch takes a second or two, and Lightning as many again: what needs neither is refused before."""
    if cfg.resume is not None:
        find_resumable(cfg.resume)
        return
    check_local_sources(cfg.data)
    check_run_dir(cfg.run_dir)
    from hp_lightning.common.hardware import check_devices

    check_devices(cfg.trainer.accelerator, cfg.trainer.devices)


def _start() -> None:
    """A run or a sweep, as the command line says."""
    sys.argv[1:] = complete_arguments(sys.argv[1:])
    main()


def _train_beside() -> None:
    """Train the share of another device, in a run that another process has started and describes."""
    known = os.environ.get(HANDED_OVER) or torchrun.hear()
    if known:
        from hp_lightning.training.fit import train_beside

        train_beside(known)


def run() -> None:
    """The command."""
    sys.argv[1:] = [FROM.sub("from_run=", word) for word in sys.argv[1:]]
    if HANDED_OVER in os.environ or (torchrun.is_used() and os.environ["RANK"] != "0"):
        app.run(_train_beside, None)
        return
    try:
        app.run(_start, TrainScriptConfig)
    except SystemExit as end:
        if end.code == InputError.exit_status:
            torchrun.await_others()
        if end.code:
            raise
    torchrun.tell("")
