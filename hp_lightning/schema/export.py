"""What `export` is told: the root of `conf/export.yaml`."""

from dataclasses import dataclass
from typing import Optional

from omegaconf import MISSING, DictConfig

from hp_lightning.schema.checks import resolved, validated
from hp_lightning.schema.setting import checkpoint, setting


@dataclass
class ExportConfig:
    """Write a trained model of GPT-2's form as a folder for transformers."""

    ckpt: Optional[str] = checkpoint()
    to: str = setting(MISSING, "the folder that is made", verbatim=True)


def export_config(cfg: DictConfig) -> ExportConfig:
    """A composed Hydra config as a checked `ExportConfig`.

    Raises:
        InputError: a value is missing or empty
    """
    return validated(resolved(cfg), ExportConfig)
