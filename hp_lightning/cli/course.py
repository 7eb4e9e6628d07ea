"""The sixteen steps of the course on your own model: hp-lightning course ckpt=outputs/runs/..."""

from omegaconf import DictConfig

from hp_lightning.cli import app
from hp_lightning.schema.course import CourseConfig, course_config


@app.hydra_main("course")
def main(cfg: DictConfig) -> None:
    """Write the page."""
    checked = course_config(cfg)
    from hp_lightning.tasks.course.page import write_page  # torch is imported only once the config is known to be good

    write_page(checked)


def run() -> None:
    """The command."""
    app.run(main, CourseConfig)
