"""The sentiment of a text: hp-lightning sentiment text="The movie was fantastic and entertaining." """

from omegaconf import DictConfig

from hp_lightning.cli import app
from hp_lightning.schema.sentiment import SentimentConfig, sentiment_config


@app.hydra_main("sentiment")
def main(cfg: DictConfig) -> None:
    """Classify, evaluate or finetune."""
    checked = sentiment_config(cfg)
    from hp_lightning.tasks.sentiment.run import run  # torch is imported only once the config is known to be good

    run(checked)


def run() -> None:
    """The command."""
    app.run(main, SentimentConfig)
