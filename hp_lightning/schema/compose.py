"""The configs in `conf/`, made known to Hydra, and composed without a command line."""

from collections.abc import Iterable
from dataclasses import dataclass

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hp_lightning.common.errors import InputError
from hp_lightning.common.files import bundled
from hp_lightning.schema.config_errors import in_our_words, is_no_choice
from hp_lightning.schema.course import CourseConfig
from hp_lightning.schema.evaluate import EvaluateConfig
from hp_lightning.schema.export import ExportConfig
from hp_lightning.schema.generate import GenerateConfig
from hp_lightning.schema.sentiment import SentimentConfig
from hp_lightning.schema.train import TrainConfig, TrainScriptConfig, train_config

SCHEMAS = {
    "train": TrainScriptConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "sentiment": SentimentConfig,
    "export": ExportConfig,
    "course": CourseConfig,
}


def store_schema(root: str) -> None:
    """Make the schema of `conf/<root>.yaml` known to Hydra; only where needed, for Hydra copies all that it knows."""
    ConfigStore.instance().store(name=f"{root}_schema", node=SCHEMAS[root])


store_schema("train")  # of every program that composes a run's config
OmegaConf.register_new_resolver("bundled", lambda path: str(bundled(path)), replace=True)


@dataclass(frozen=True)
class Composed:
    """What some overrides make of `conf/train.yaml`."""

    cfg: TrainConfig
    from_run: str | None  # the run whose settings they change
    hydra: DictConfig  # Hydra's own config


def compose_train(overrides: Iterable[str]) -> Composed:
    """Compose `conf/train.yaml` with overrides in Hydra's grammar.

    Hydra's global state stays as it is: a program that Hydra has started may call this.

    Raises:
        InputError: a key or a choice is unknown, or a value is out of its range
    """
    loader = ConfigLoaderImpl(create_config_search_path(str(bundled("conf"))))
    try:
        composed = loader.load_configuration("train", list(overrides), RunMode.RUN)
        with open_dict(composed):
            hydra = composed.pop("hydra")
        return Composed(train_config(composed), composed.from_run, hydra)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if "multirun" in str(error):
            message = "several values of a key make a sweep, which hp-lightning train -m starts: give one"
            raise InputError("sweep.without_multirun", message) from error
        if not isinstance(error, (HydraException, OmegaConfBaseException)) and not is_no_choice(error):
            raise
        raise in_our_words(error, TrainScriptConfig) from error
