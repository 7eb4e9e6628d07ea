"""Everything that a training run is told: the root of `conf/train.yaml`.

Each config group has its dataclass in the file of its name. Nothing heavy is imported, so a wrong config is
refused at once.
"""

import dataclasses
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hp_lightning.common.errors import InputError
from hp_lightning.common.run_dir import RunDir
from hp_lightning.schema.checks import escaped, resolved, validated
from hp_lightning.schema.data import DataConfig, data_rules
from hp_lightning.schema.logger import LoggerConfig
from hp_lightning.schema.migrations import CONFIG_MIGRATIONS, migrated
from hp_lightning.schema.model import ModelConfig, model_rules
from hp_lightning.schema.optim import OptimConfig, decay_rules, l2_rules
from hp_lightning.schema.regularization import RegularizationConfig
from hp_lightning.schema.setting import SEED, number, one_of, setting
from hp_lightning.schema.sweep import SweepConfig
from hp_lightning.schema.tokenizer import TokenizerConfig, tokenizer_rules
from hp_lightning.schema.trainer import CheckpointConfig, TrainerConfig, trainer_rules

DEBUG = ("fast", "overfit", "anomaly", "profile")


@dataclass
class TrainConfig:
    """One training run."""

    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    regularization: RegularizationConfig = field(default_factory=RegularizationConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    max_steps: Optional[int] = setting(
        None, "optimizer steps; the run ends at the first of the two bounds", number(at_least=1)
    )
    max_epochs: Optional[int] = setting(10, "passes through the training split", number(at_least=1))
    debug: Optional[str] = setting(
        None, "what a short run is to find out; set by the presets of the group", one_of(*DEBUG)
    )
    seed: int = setting(1, "draws the weights, the order of the batches and dropout", SEED)
    run_dir: Optional[str] = setting(
        None, "folder of the run; null: outputs/runs/<date>_<time>_<overrides>", verbatim=True
    )
    resume: Optional[str] = setting(None, "folder of a run to resume, a checkpoint in it, or latest", verbatim=True)


@dataclass
class TrainScriptConfig(TrainConfig):
    """Train a GPT on a CSV of books, resume a run, or start a sweep (-m, and values separated by commas)."""

    sweep: SweepConfig = field(default_factory=SweepConfig)
    resume_sweep: Optional[str] = setting(None, "folder of a sweep to resume")
    from_run: Optional[str] = setting(
        None, "folder of a run whose settings a new run starts from; from= is the same", verbatim=True
    )


def train_config(cfg: DictConfig) -> TrainConfig:
    """A composed Hydra config as a checked `TrainConfig`, interpolations resolved.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    of_a_run = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in ("sweep", "resume_sweep", "from_run")])
    return validated(resolved(of_a_run), TrainConfig, _rules)


def _rules(cfg: TrainConfig) -> Iterator[InputError]:
    yield from data_rules(cfg.data, cfg.model)
    yield from model_rules(cfg.model)
    yield from tokenizer_rules(cfg.tokenizer)
    yield from trainer_rules(cfg.trainer, cfg.data)
    if cfg.max_steps is None and cfg.max_epochs is None:
        yield InputError(
            "config.missing", "max_steps and max_epochs are both null: set at least one, or the run would never end"
        )
    if cfg.resume is None:  # else what is not told here is as the run has it, with which it is checked again
        yield from decay_rules(cfg.optim, cfg.regularization)
    yield from l2_rules(cfg.optim, cfg.regularization)


def with_overrides(saved: TrainConfig, given: TrainConfig, keys: Iterable[str]) -> TrainConfig:
    """A saved config, with some of its keys or groups as another config has them.

    Raises:
        InputError: a value is out of its range; names every such key
    """
    merged = to_plain(saved)
    for key in keys:
        node, new = merged, to_plain(given)
        *groups, name = key.split(".")
        for group in groups:
            node, new = node[group], new[group]
        node[name] = new[name]
    return from_plain(merged)


def to_plain(cfg: TrainConfig) -> dict[str, Any]:
    """The config as nested dicts and lists of plain values, fit for JSON and checkpoints."""
    return dataclasses.asdict(cfg)


def to_yaml(cfg: TrainConfig) -> str:
    """The config as Hydra would write it."""
    return OmegaConf.to_yaml(OmegaConf.create(escaped(to_plain(cfg))))


def saved_config(run_dir: RunDir) -> TrainConfig:
    """The config that a run started with, of this or an earlier version.

    Raises:
        InputError: it is not there, or damaged
    """
    try:
        plain = plain_from_yaml(run_dir.config.read_text(encoding="utf-8"))
        known = json.loads(run_dir.versions.read_text(encoding="utf-8"))
        return from_plain(migrated(plain, int(known["format"]), CONFIG_MIGRATIONS))
    except (OSError, ValueError, TypeError, KeyError, YAMLError, OmegaConfBaseException, InputError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            "run.damaged_config", f"{run_dir} has no config of a run ({reason}): start a new run"
        ) from error


def plain_from_yaml(text: str) -> dict[str, Any]:
    """The keys and values that `to_yaml` wrote, as they stand there: by another version of the project, too.

    Raises:
        InputError: it is no mapping, or there is an interpolation, which `to_yaml` writes none of
    """
    not_a_mapping = InputError("config.not_a_mapping", "keys and values were expected")
    try:
        loaded = OmegaConf.load(io.StringIO(text))
    except OSError as error:  # neither keys nor a list
        raise not_a_mapping from error
    plain = OmegaConf.to_container(loaded, resolve=False)
    if not isinstance(plain, dict):
        raise not_a_mapping
    if any(re.search(r"(?<!\\)(\\\\)*\$\{", string) for string in _strings(plain)):
        raise InputError("config.interpolation", "it holds an interpolation, ${...}")
    return OmegaConf.to_container(loaded, resolve=True)  # type: ignore[return-value]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, str):
        yield value


def from_plain(plain: dict[str, Any]) -> TrainConfig:
    """The config that `to_plain` made these values of, checked again.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(plain, TrainConfig, _rules)
