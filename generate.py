"""Let a trained model write: python generate.py prompt="The lantern" """

import hydra
from omegaconf import DictConfig

from hp_lightning.cli import app
from hp_lightning.common.garbage import without_collection
from hp_lightning.schema.generate import GenerateConfig, generate_config


@hydra.main(version_base="1.3", config_path="conf", config_name="generate")
@app.job
def main(cfg: DictConfig) -> None:
    """Prints the samples."""
    checked = generate_config(cfg)
    with without_collection():  # torch is imported only once the config is known to be good
        from hp_lightning.inference.prompts import write

    write(checked)


if __name__ == "__main__":
    app.run(main, GenerateConfig, free_text=("prompt", "prompt_file", "ckpt"))
