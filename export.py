"""Take a trained model along, as a folder for transformers: python export.py ckpt=outputs/runs/... to=DIR"""

import hydra
from omegaconf import DictConfig

from hp_lightning.cli import app
from hp_lightning.common.garbage import without_collection
from hp_lightning.schema.generate import ExportConfig, export_config


@hydra.main(version_base="1.3", config_path="conf", config_name="export")
@app.job
def main(cfg: DictConfig) -> None:
    """Writes the folder."""
    checked = export_config(cfg)
    with without_collection():  # torch is imported only once the config is known to be good
        from hp_lightning.inference.export import export

    export(checked)


if __name__ == "__main__":
    app.run(main, ExportConfig, free_text=("ckpt", "to"))
