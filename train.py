"""Train a GPT on a CSV of books: python train.py data.path=mine.csv model=small"""

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hp_lightning import cli
from hp_lightning.config import TrainConfig, train_config


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
@cli.job
def main(cfg: DictConfig) -> None:
    """One run, or one job of a sweep."""
    checked = train_config(cfg)
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.MULTIRUN and checked.run_dir is None:
        checked.run_dir = hydra_cfg.runtime.output_dir
    from hp_lightning.training import train  # torch is imported only once the config is known to be good

    train(checked, list(hydra_cfg.overrides.task), OmegaConf.structured(hydra_cfg))


if __name__ == "__main__":
    cli.run(main, TrainConfig, cli.FREE_TEXT)
