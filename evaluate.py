"""How well a trained model predicts its held-out text: python evaluate.py ckpt=outputs/runs/..."""

import hydra
from omegaconf import DictConfig

from hp_lightning import cli
from hp_lightning.garbage import without_collection
from hp_lightning.judging_config import EvaluateConfig, evaluate_config


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@cli.job
def main(cfg: DictConfig) -> None:
    """Prints the figures and writes them beside the checkpoint."""
    checked = evaluate_config(cfg)
    with without_collection():  # torch is imported only once the config is known to be good
        from hp_lightning.evaluating import evaluate

    evaluate(checked)


if __name__ == "__main__":
    cli.run(main, EvaluateConfig, free_text=("ckpt", "out", *(key for key in cli.FREE_TEXT if key.startswith("data."))))
