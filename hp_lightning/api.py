"""The project from Python: `import hp_lightning as hp`.

    run = hp.train("mine.csv", model="small", max_steps=500)
    run.metrics                                  # a row per logged step, as pandas.DataFrame takes it
    run.best.generate("The lantern", num_samples=3)
    hp.load("outputs/runs/...").score("Once upon a time")

A refusal is an `InputError`, with the line that the command would print.
"""

import csv
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from hp_lightning.common.command_line import restored_environment
from hp_lightning.common.errors import InputError, Interrupted, reason
from hp_lightning.common.hydra_grammar import key_and_value, quoted, typed
from hp_lightning.common.run_dir import RunDir, find_checkpoint, find_resumable
from hp_lightning.schema.checks import settings as keys_of
from hp_lightning.schema.compose import compose_train
from hp_lightning.schema.train import TrainConfig, saved_config, with_overrides

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger

    from hp_lightning.inference.model import Model

Paths = str | Path | Sequence[str | Path]
OF_ONE_RUN = ("run_dir", "resume", "from_run")
PLAIN = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z/][\w./-]*", re.ASCII | re.IGNORECASE)  # text without quotes
NEEDED = ("++data.path=corpus.csv",)  # that some presets leave to the person


class Run:
    """A run, as its folder has it.

    Args:
        folder: of the run

    Raises:
        InputError: it is not there
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError("run.not_found", f"{folder} is not a folder: name a run folder (outputs/runs/...)")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, status={self.status!r})"

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json: the status, the metrics of the last and of the best validation, of the test split."""
        return RunDir(self.folder).read_summary()

    @property
    def status(self) -> str | None:
        """How it ended: completed, stopped early, interrupted, failed; None before its end."""
        status = self.summary.get("status")
        return None if status is None else str(status)

    @property
    def metrics(self) -> list[dict[str, float | None]]:
        """metrics.csv: a row per logged step, with None for what was not measured at it.

        Raises:
            InputError: there is none, or it is damaged
        """
        path = RunDir(self.folder).metrics
        try:
            rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
            return [{name: float(value) if value else None for name, value in row.items()} for row in rows]
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise InputError("run.no_metrics", f"{path} cannot be read: {reason(error)}") from error

    @cached_property
    def best(self) -> "Model":
        """The model with the lowest validation loss."""
        return load(RunDir(self.folder).best_checkpoint)

    @cached_property
    def last(self) -> "Model":
        """The model that was saved last."""
        return load(RunDir(self.folder).last_checkpoint)


def config(data: Paths | None = None, *, overrides: Sequence[str] = (), **settings: Any) -> TrainConfig:
    """The config of a run, checked: the presets of `conf/`, with what is given here.

    Args:
        data: a file, a glob or a URL, or several; the bundled stories where it is None
        overrides: further settings as the command line has them: "optim.lr=1e-3", "tokenizer=bpe"
        settings: presets and keys: model="small", max_steps=500, seed=2

    Raises:
        InputError: a key or preset is unknown, or a value is out of its range
    """
    cfg, _, _ = _composed(_words(data, overrides, settings))
    if cfg.resume is not None:
        raise InputError("config.conflict", "resume= continues a run, and hp.load(...).cfg is its config")
    return cfg


def train(
    data: Paths | None = None,
    *,
    overrides: Sequence[str] = (),
    callbacks: "Sequence[Callback]" = (),
    logger: "Sequence[Logger]" = (),
    **settings: Any,
) -> Run:
    """Train a model, or resume a run (`resume="outputs/runs/..."`), as `hp-lightning train` does.

    Ctrl-C saves and returns the run as interrupted; `resume=` continues it. Logging, signals and environment are as
    before when this returns.

    Args:
        data: a file, a glob or a URL, or several; the bundled stories where it is None
        overrides: further settings as the command line has them: "optim.lr=1e-3", "tokenizer=bpe"
        callbacks: of Lightning; called after those of the run
        logger: of Lightning; they get every metric of the run
        settings: presets and keys: model="small", max_steps=500, seed=2

    Raises:
        InputError: a setting, the corpus or the machine does not fit; nothing was written
        RunError: the run could not be finished
    """
    cfg, words, hydra = _composed(_words(data, overrides, settings))
    callbacks, loggers = _checked_list("callbacks", callbacks), _checked_list("logger", logger)
    if cfg.trainer.devices > 1:
        raise InputError(
            "config.conflict",
            f"trainer.devices={cfg.trainer.devices}: a Python program trains on one device: start several by "
            "hp-lightning train",
        )
    with restored_environment({}), _left_as_found():
        from lightning.pytorch.callbacks import LambdaCallback

        folders: list[Path] = []
        note = LambdaCallback(setup=lambda trainer, *_, **__: folders.append(Path(trainer.default_root_dir)))
        try:
            return Run(run_training(cfg, words, hydra, [note, *callbacks], loggers))
        except Interrupted as stop:
            if stop.exit_status != 128 + signal.SIGINT or not folders:
                raise
            return Run(folders[-1])


def reproduced(cfg: TrainConfig, overrides: list[str], run: str) -> tuple[TrainConfig, list[str]]:
    """The config that an earlier run started with, and its overrides, with what is told here.

    Args:
        cfg: of this command line
        overrides: what of it was typed
        run: the folder of the earlier run, or `latest`

    Raises:
        InputError: there is no such run, or its config is damaged
    """
    if cfg.resume is not None:
        raise InputError("config.conflict", "from= starts a new run, resume= continues one: leave one of the two out")
    run_dir = find_resumable(run, "from").run_dir
    own = [word for word in overrides if key_and_value(word)[0] != "from_run"]
    keys = [key for word in own for key in _keys_set_by(word)]
    before = [word for word in run_dir.read_overrides() if key_and_value(word)[0] not in {*keys, *OF_ONE_RUN}]
    saved = saved_config(run_dir)
    if "model.vocab_size" not in dict(map(key_and_value, [*before, *own])):
        saved.model.vocab_size = None  # the tokenizer's
    saved.run_dir = None
    return with_overrides(saved, cfg, [*keys, "data.cache_dir"]), [*before, *own]


def _keys_set_by(word: str) -> list[str]:
    """The key or group that an override sets; of a preset that has settings of several groups all that it changes."""
    key = key_and_value(word)[0]
    if key not in ("experiment", "debug"):
        return [key]
    preset, usual = (compose_train([*words, *NEEDED]).cfg for words in ([word], []))
    return [name for name, _ in keys_of(TrainConfig) if attrgetter(name)(preset) != attrgetter(name)(usual)]


def run_training(
    cfg: TrainConfig,
    overrides: list[str],
    hydra: DictConfig,
    callbacks: "Sequence[Callback]" = (),
    logger: "Sequence[Logger]" = (),
) -> Path:
    """Train by a checked config; return the run folder.

    Args:
        cfg: the config
        overrides: what of it was typed: they name the run, and say which keys of a resumed run change
        hydra: Hydra's own config, kept in the run folder
        callbacks: of Lightning
        logger: of Lightning
    """
    from hp_lightning.training.fit import Extras
    from hp_lightning.training.fit import train as fit

    return fit(cfg, overrides, hydra, Extras(callbacks, logger))


def _composed(words: list[str]) -> tuple[TrainConfig, list[str], DictConfig]:
    """The config that overrides stand for, those of the run that they start from among them, and Hydra's own."""
    composed = compose_train(words)
    if composed.from_run is None:
        return composed.cfg, words, composed.hydra
    return *reproduced(composed.cfg, words, composed.from_run), composed.hydra


def _words(data: Paths | None, overrides: Sequence[str], settings: dict[str, Any]) -> list[str]:
    """The overrides that the arguments stand for."""
    if isinstance(overrides, str) or not all(isinstance(word, str) for word in overrides):
        raise InputError("config.wrong_type", 'overrides must be a list of texts, as in ["optim.lr=1e-3"]')
    path = {} if data is None else {"data.path": data}
    given = {key: value for key, value in settings.items() if value is not None or key not in OF_ONE_RUN}
    return [f"{key}={_typed(value)}" for key, value in {**path, **given}.items()] + [
        word.replace("from=", "from_run=", 1) if word.startswith("from=") else word for word in overrides
    ]


def _typed(value: Any) -> str:
    """A value in Hydra's grammar."""
    if isinstance(value, Run):
        value = value.folder
    if isinstance(value, str | Path):
        text = str(value)
        return text if PLAIN.fullmatch(text) else quoted(text)
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_typed(item)}' for key, item in value.items())}}}"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return f"[{','.join(map(_typed, value))}]"
    return typed(value)


def _checked_list(name: str, given: Any) -> list[Any]:
    """Callbacks or loggers as a list, one alone included.

    Raises:
        InputError: there is something else among them
    """
    from lightning.pytorch import Callback
    from lightning.pytorch.loggers import Logger

    kind = Callback if name == "callbacks" else Logger
    items = [given] if isinstance(given, kind) else list(given) if isinstance(given, Sequence) else [given]
    if not all(isinstance(item, kind) for item in items):
        advice = "; what a run writes is overrides=['logger=csv']" if name == "logger" else ""
        raise InputError("config.wrong_type", f"{name} must be a list of Lightning's {kind.__name__}s{advice}")
    return items


@contextmanager
def _left_as_found() -> Iterator[None]:
    """Put back what training sets for a program of its own: signal handlers, settings of torch."""
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    import torch

    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    matmul = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(matmul)


@dataclass(frozen=True)
class Comparison:
    """Runs compared."""

    rows: list[dict[str, Any]]  # per configuration, the best first: settings, mean and standard deviation of metrics
    verdict: list[str]  # which is the best, by how much, and why


def compare(folders: "Paths | Run | Sequence[Run]") -> Comparison:
    """Compare runs, as `hp-lightning compare` does, without writing anything.

    Args:
        folders: run folders, or folders with runs anywhere below them

    Raises:
        InputError: there is no run
    """
    from hp_lightning.sweeps.comparison.runs import find_run_folders
    from hp_lightning.sweeps.comparison.verdict import verdict
    from hp_lightning.sweeps.comparison.write import compared, rows

    named = folders if isinstance(folders, Sequence) and not isinstance(folders, str) else [folders]
    if not named or "" in named:
        raise InputError("config.empty", "no folder is named: give a run folder, or one with runs in it")
    comparison, _ = compared(find_run_folders([_path(folder) for folder in named]))
    return Comparison(rows(comparison), verdict(comparison))


def _path(named: "str | Path | Run") -> Path:
    return named.folder if isinstance(named, Run) else Path(named)


def load(checkpoint: str | Path | Run | None = None) -> "Model":
    """A trained model: that of a run folder, with the lowest validation loss, or of a checkpoint file.

    Nothing in the file is executed.

    Args:
        checkpoint: None takes the newest run below outputs/

    Raises:
        InputError: there is none, or it is damaged
    """
    from hp_lightning.inference.model import Model

    return Model.load(find_checkpoint(None if checkpoint is None else str(_path(checkpoint))))
