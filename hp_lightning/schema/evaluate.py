"""What `evaluate` is told: the root of `conf/evaluate.yaml`."""

from dataclasses import dataclass, field
from typing import Optional

from omegaconf import DictConfig

from hp_lightning.schema.checks import resolved, validated
from hp_lightning.schema.data import OtherCorpusConfig
from hp_lightning.schema.generate import TEMPERATURE
from hp_lightning.schema.setting import PROBABILITY, SEED, checkpoint, number, setting, some_of


@dataclass
class EvaluateConfig:
    """Measure how well a trained model predicts, and how much it copies."""

    ckpt: Optional[str] = checkpoint()
    data: OtherCorpusConfig = field(default_factory=OtherCorpusConfig)
    out: Optional[str] = setting(None, "the JSON file with all metrics; null: next to the checkpoint", verbatim=True)
    splits: list[str] = setting(["val", "test"], "the splits that are scored", some_of("train", "val", "test"))
    stride: Optional[int] = setting(
        None, "tokens from a sequence to the next; null: side by side, as in training", number(at_least=1)
    )
    num_samples: int = setting(8, "samples in which copies are counted; 0: none", number(at_least=0))
    max_new_tokens: int = setting(256, "longest sample, in tokens", number(at_least=1))
    temperature: float = setting(0.8, "what the logits are divided by", TEMPERATURE)
    top_k: Optional[int] = setting(None, "how many of the likeliest tokens may come; null: all", number(at_least=1))
    top_p: Optional[float] = setting(
        0.95, "only the likeliest tokens, which together have this probability, may come; null: all", PROBABILITY
    )
    seed: int = setting(1, "draws the samples", SEED)


def evaluate_config(cfg: DictConfig) -> EvaluateConfig:
    """A composed Hydra config as a checked `EvaluateConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(resolved(cfg), EvaluateConfig)
