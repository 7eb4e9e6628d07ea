"""Train a small GPT on your own books: PyTorch Lightning trains, Hydra configures, TensorBoard shows."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hp_lightning.api import Comparison, Run, compare, config, load, train
    from hp_lightning.common.errors import InputError, RunError
    from hp_lightning.data.datamodule import CorpusDataModule
    from hp_lightning.inference.model import Model
    from hp_lightning.models.gpt import GPT
    from hp_lightning.training.module import GPTModule

# Where each name comes from: it is imported when it is asked for, for torch takes seconds.
_ORIGINS = {
    **dict.fromkeys(("Comparison", "Run", "compare", "config", "load", "train"), "hp_lightning.api"),
    **dict.fromkeys(("InputError", "RunError"), "hp_lightning.common.errors"),
    "CorpusDataModule": "hp_lightning.data.datamodule",
    "GPT": "hp_lightning.models.gpt",
    "GPTModule": "hp_lightning.training.module",
    "Model": "hp_lightning.inference.model",
}
__all__ = [
    "GPT",
    "Comparison",
    "CorpusDataModule",
    "GPTModule",
    "InputError",
    "Model",
    "Run",
    "RunError",
    "compare",
    "config",
    "load",
    "train",
]

try:
    __version__ = version("hp_lightning")
except PackageNotFoundError:  # a folder on PYTHONPATH
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    if name not in _ORIGINS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_ORIGINS[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
