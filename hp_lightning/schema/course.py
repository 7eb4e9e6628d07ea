"""What course can be told."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from hp_lightning.common.errors import InputError
from hp_lightning.schema.checks import not_empty, resolved, seed, validated
from hp_lightning.schema.evaluate import OtherCorpusConfig, other_corpus_problems
from hp_lightning.schema.train import ModelConfig, model_problems


@dataclass
class CourseConfig:
    """A look inside a trained model: the root of `conf/course.yaml`."""

    ckpt: Optional[str]  # checkpoint file or run folder; null: the newest run below outputs/
    to: Optional[str]  # the page; null: course.html in the run folder, or beside a checkpoint that lies in none
    text: Optional[str]  # the passage that is looked at; null: the beginning of the validation part
    names: Optional[list[str]]  # whose nearest words are shown; null: the most frequent names of the vocabulary
    data: OtherCorpusConfig
    course: ModelConfig  # the network that the course builds
    positive: list[str]
    negative: list[str]
    seed: int


def register() -> None:
    """Makes the dataclass known to Hydra as the schema of `conf/course.yaml`."""
    ConfigStore.instance().store(name="course_schema", node=CourseConfig)


def course_config(cfg: DictConfig) -> CourseConfig:
    """A composed Hydra config as a checked `CourseConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(resolved(cfg), CourseConfig, _problems)


def _problems(cfg: CourseConfig) -> Iterator[InputError]:
    for key in ("ckpt", "to"):
        yield from not_empty(key, getattr(cfg, key))
    if cfg.text is not None and not cfg.text.strip():
        yield InputError("config.empty", "text is empty: give a passage, or leave it out")
    if cfg.names == []:
        yield InputError("config.empty", "names is empty: name some, names=[Harry,Hermione], or leave it out")
    yield from other_corpus_problems(cfg.data)
    for key in ("names", "positive", "negative"):
        words = getattr(cfg, key)
        if words is not None and not all(map(str.strip, words)):
            yield InputError("config.empty", f"{key} has an empty word in it: {key}=[one,another]")
    if cfg.course.vocab_size is None:
        yield InputError("config.null", "course.vocab_size is null: give a number, the course has 10000")
    for problem in model_problems(cfg.course):
        yield InputError(problem.code, str(problem).replace("model.", "course."))
    yield from seed("seed", cfg.seed)
