"""Take a trained model along, as a folder for transformers: hp-lightning export ckpt=outputs/runs/... to=DIR"""

from omegaconf import DictConfig

from hp_lightning.cli import app
from hp_lightning.schema.export import ExportConfig, export_config


@app.hydra_main("export")
def main(cfg: DictConfig) -> None:
    """Write the folder."""
    checked = export_config(cfg)
    from hp_lightning.inference.export import export  # torch is imported only once the config is known to be good

    export(checked)


def run() -> None:
    """The command."""
    app.run(main, ExportConfig)
