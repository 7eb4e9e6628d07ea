"""What TensorBoard shows of a run beside its curves: the config, what the model writes, the hyperparameters."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from hp_lightning.config import LoggerConfig, TrainConfig, to_plain, to_yaml
from hp_lightning.generation import Sampling, continue_text
from hp_lightning.lightning_module import GPTModule
from hp_lightning.tokenization import Tokenizer

# Where a file is or how a run was begun says nothing about how it learned.
NO_HYPERPARAMETERS = ("run_dir", "resume", "logger")


def make_logger(run_dir: Path, cfg: TrainConfig, resumed_step: int | None) -> TensorBoardLogger:
    """Writes to `tensorboard/` in the run folder, first the config; a resumed run takes away what it will do again."""
    logger = TensorBoardLogger(
        save_dir=run_dir,
        name="",
        version="",
        sub_dir="tensorboard",
        default_hp_metric=False,
        purge_step=None if resumed_step is None else resumed_step + 1,
    )
    if resumed_step is None:
        logger.experiment.add_text("config", _verbatim(to_yaml(cfg)), 0)
    return logger


class Samples(L.Callback):
    """At each validation, what the model writes for a fixed prompt and seed, so that one can watch it learn."""

    def __init__(self, cfg: LoggerConfig, tokenizer: Tokenizer, context: int) -> None:
        self._cfg = cfg
        self._tokenizer = tokenizer
        self._context = context

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Samples with a generator of its own, so that training draws the same numbers with and without it."""
        if not self._cfg.sample_tokens:
            return
        assert isinstance(pl_module, GPTModule)
        sampling = Sampling(max_new_tokens=self._cfg.sample_tokens)
        [text] = continue_text(pl_module.net, self._tokenizer, self._cfg.sample_prompt, self._context, sampling)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("sample", _verbatim(text), trainer.global_step)


def log_hyperparameters(trainer: L.Trainer, cfg: TrainConfig, metrics: dict[str, float]) -> None:
    """A row of the HPARAMS tab: every setting, by the same names in every run, and what was reached."""
    settings = {key: value for key, value in to_plain(cfg).items() if key not in NO_HYPERPARAMETERS}
    flat = {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in _flat(settings)}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(flat, metrics, step=trainer.global_step)


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found.extend(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)])
    return found


def _verbatim(text: str) -> str:
    """Markdown that shows a text as it is: indented lines are a code block."""
    return "\n".join("    " + line for line in text.split("\n"))
