"""Take a trained model along, as a folder for transformers: python export.py ckpt=outputs/runs/... to=DIR"""

import hydra
from omegaconf import DictConfig

from hp_lightning import cli
from hp_lightning.garbage import without_collection
from hp_lightning.writing_config import ExportConfig, export_config


@hydra.main(version_base="1.3", config_path="conf", config_name="export")
@cli.job
def main(cfg: DictConfig) -> None:
    """Writes the folder."""
    checked = export_config(cfg)
    with without_collection():  # torch is imported only once the config is known to be good
        from hp_lightning.exporting import export

    export(checked)


if __name__ == "__main__":
    cli.run(main, ExportConfig, free_text=("ckpt", "to"))
