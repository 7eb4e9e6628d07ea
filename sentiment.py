"""The sentiment of a text: python sentiment.py text="The movie was fantastic and entertaining." """

import hydra
from omegaconf import DictConfig

from hp_lightning.cli import app
from hp_lightning.common.garbage import without_collection
from hp_lightning.schema.evaluate import SentimentConfig, sentiment_config


@hydra.main(version_base="1.3", config_path="conf", config_name="sentiment")
@app.job
def main(cfg: DictConfig) -> None:
    """Judges, evaluates, or teaches."""
    checked = sentiment_config(cfg)
    with without_collection():  # torch is imported only once the config is known to be good
        from hp_lightning.tasks.sentiment.run import run

    run(checked)


if __name__ == "__main__":
    app.run(
        main,
        SentimentConfig,
        free_text=("ckpt", "text", "file", "evaluate", "train", "out", "template", "data.delimiter"),
    )
