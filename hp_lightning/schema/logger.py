"""What is recorded during a run: `conf/logger/`."""

from dataclasses import dataclass
from typing import Optional

from hp_lightning.schema.setting import number, setting


@dataclass
class LoggerConfig:
    """What is recorded during a run; `metrics.csv` always is."""

    tensorboard: bool = setting(True, "whether event files for TensorBoard are written")
    log_every_steps: int = setting(10, "optimizer steps between two rows of metrics.csv", number(at_least=1))
    sample_prompts: Optional[list[str]] = setting(
        None,
        'what the model is asked to continue at a validation; "" starts a document; null: that, and the first words of '
        "the validation split",
        verbatim=True,
    )
    sample_tokens: int = setting(60, "tokens per sample; 0: no samples", number(at_least=0))
    images: bool = setting(True, "whether attention and positions are drawn")
