"""Let a trained model write: hp-lightning generate prompt="The lantern" """

from omegaconf import DictConfig

from hp_lightning.cli import app
from hp_lightning.schema.generate import GenerateConfig, generate_config


@app.hydra_main("generate")
def main(cfg: DictConfig) -> None:
    """Print the samples."""
    checked = generate_config(cfg)
    from hp_lightning.inference.prompts import write  # torch is imported only once the config is known to be good

    write(checked)


def run() -> None:
    """The command."""
    app.run(main, GenerateConfig)
