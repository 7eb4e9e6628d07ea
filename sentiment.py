"""The sentiment of a text: python sentiment.py text="The movie was fantastic and entertaining." """

import hydra
from omegaconf import DictConfig

from hp_lightning import cli
from hp_lightning.garbage import without_collection
from hp_lightning.judging_config import SentimentConfig, sentiment_config


@hydra.main(version_base="1.3", config_path="conf", config_name="sentiment")
@cli.job
def main(cfg: DictConfig) -> None:
    """Judges, evaluates, or teaches."""
    checked = sentiment_config(cfg)
    with without_collection():  # torch is imported only once the config is known to be good
        from hp_lightning.sentiment.running import run

    run(checked)


if __name__ == "__main__":
    cli.run(
        main,
        SentimentConfig,
        free_text=("ckpt", "text", "file", "evaluate", "train", "out", "template", "data.delimiter"),
    )
