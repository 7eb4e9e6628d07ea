"""The sixteen steps of the course on your own model: python -m hp_lightning.roadmap ckpt=outputs/runs/..."""

import sys

import hydra
from omegaconf import DictConfig

from hp_lightning.cli import app
from hp_lightning.common.garbage import without_collection
from hp_lightning.schema import course as settings


@hydra.main(version_base="1.3", config_path=str(app.PROJECT / "conf"), config_name="roadmap")
@app.job
def main(cfg: DictConfig) -> None:
    """Writes the page."""
    checked = settings.roadmap_config(cfg)
    with without_collection():  # torch is imported only once the config is known to be good
        from hp_lightning.tasks.course.page import write_page

    write_page(checked)


if __name__ == "__main__":
    settings.register()
    sys.argv[0] = "roadmap"
    app.run(main, settings.RoadmapConfig, ("ckpt", "to", "text", *(k for k in app.FREE_TEXT if k.startswith("data."))))
