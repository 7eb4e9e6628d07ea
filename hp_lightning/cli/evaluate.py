"""How well a trained model predicts its held-out text: hp-lightning evaluate ckpt=outputs/runs/..."""

from omegaconf import DictConfig

from hp_lightning.cli import app
from hp_lightning.schema.evaluate import EvaluateConfig, evaluate_config


@app.hydra_main("evaluate")
def main(cfg: DictConfig) -> None:
    """Print the metrics, and write them next to the checkpoint."""
    checked = evaluate_config(cfg)
    from hp_lightning.inference.evaluate import evaluate  # torch is imported only once the config is known to be good

    evaluate(checked)


def run() -> None:
    """The command."""
    app.run(main, EvaluateConfig)
