"""What `course` is told: the root of `conf/course.yaml`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from omegaconf import DictConfig

from hp_lightning.common.errors import InputError
from hp_lightning.schema.checks import resolved, validated
from hp_lightning.schema.data import OtherCorpusConfig
from hp_lightning.schema.model import ModelConfig, model_rules
from hp_lightning.schema.sentiment import NEGATIVE_WORDS, POSITIVE_WORDS
from hp_lightning.schema.setting import NOT_BLANK, SEED, WORDS, checkpoint, setting


@dataclass
class CourseConfig:
    """Write the sixteen steps of the course, on a trained model, as a page."""

    ckpt: Optional[str] = checkpoint()
    to: Optional[str] = setting(
        None, "the page; null: course.html in the run folder, or next to a checkpoint that lies in none", verbatim=True
    )
    text: Optional[str] = setting(
        None, "the passage that is looked at; null: the start of the validation split", NOT_BLANK, verbatim=True
    )
    names: Optional[list[str]] = setting(
        None, "words whose nearest words are shown; null: the most frequent names of the vocabulary", WORDS
    )
    data: OtherCorpusConfig = field(default_factory=OtherCorpusConfig)
    course: ModelConfig = field(default_factory=ModelConfig)
    positive: list[str] = setting(POSITIVE_WORDS, "words of positive sentiment", WORDS)
    negative: list[str] = setting(NEGATIVE_WORDS, "words of negative sentiment", WORDS)
    seed: int = setting(1, "draws the passage's dropout and samples", SEED)


def course_config(cfg: DictConfig) -> CourseConfig:
    """A composed Hydra config as a checked `CourseConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(resolved(cfg), CourseConfig, _rules)


def _rules(cfg: CourseConfig) -> Iterator[InputError]:
    if cfg.course.vocab_size is None:
        yield InputError("config.null", "course.vocab_size is null: give a number, the course has 10000")
    yield from model_rules(cfg.course, "course")
