"""Run folders read back: the settings of a run, its end, its metrics. Nothing heavy is imported."""

import csv
import json
import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from hp_lightning.common.errors import InputError
from hp_lightning.common.errors import reason as in_one_line
from hp_lightning.common.hydra_grammar import key_and_value
from hp_lightning.common.run_dir import COMPLETE, RunDir
from hp_lightning.schema.train import plain_from_yaml


@dataclass(frozen=True)
class Validation:
    """The metrics of a validation; NaN is what is not known."""

    step: int
    tokens: float  # seen until then
    seconds: float  # of training until then
    loss: float
    perplexity: float
    bits_per_char: float
    gap: float  # the loss minus the mean of the training losses since the last validation


def read_metrics(text: str) -> tuple[list[Validation], list[float]]:
    """The validations in a metrics.csv, and the tokens per second of every row that has them."""
    curve: list[Validation] = []
    speeds: list[float] = []
    for row in _rows(text):
        numbers = {name: number(value) for name, value in row.items()}
        if not math.isfinite(numbers.get("step", math.nan)):
            continue
        if math.isfinite(speed := numbers.get("tokens_per_second", math.nan)):
            speeds.append(speed)
        if row.get("val/loss"):
            curve.append(_validation(numbers))
    return curve, speeds


def read_metric(text: str, name: str) -> list[tuple[int, float]]:
    """The steps and values of one metric in a metrics.csv, such as train/loss, where it has one."""
    points = [(number(row.get("step")), number(row.get(name))) for row in _rows(text)]
    return [(int(step), value) for step, value in points if math.isfinite(step) and math.isfinite(value)]


def _rows(text: str) -> Iterator[dict[str, str]]:
    """The rows that were written to their ends: a run that is training, or was killed, may be in the middle of one."""
    whole, _, _ = text.rpartition("\n")
    try:
        for row in csv.DictReader(whole.splitlines()):
            if None not in row and None not in row.values():
                yield row
    except csv.Error:
        return


def _validation(numbers: dict[str, float]) -> Validation:
    names = ("tokens", "seconds", "val/loss", "val/perplexity", "val/bits_per_char", "val/gap")
    return Validation(int(numbers["step"]), *(numbers.get(name, math.nan) for name in names))


def number(value: Any) -> float:
    """A value of a file as a number; NaN where it is not one."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


# Where a file is or how a run was started says nothing about how it learned.
NO_HYPERPARAMETERS = ("run_dir", "resume", "logger", "checkpoint")


def hyperparameters(plain: dict[str, Any]) -> dict[str, Any]:
    """The leaves of a config, as `to_plain` gives it, by their dotted keys."""
    return _leaves({key: value for key, value in plain.items() if key not in NO_HYPERPARAMETERS})


def _leaves(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in settings.items():
        leaves.update(_leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return leaves


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run as its folder has it, whole or not."""

    folder: Path
    status: str  # as in summary.json; without one: running, or not finished
    reason: str | None  # of an end that is not a good one
    overrides: dict[str, str]  # the command line's, as they were typed
    choices: dict[str, str]  # of the config groups
    settings: dict[str, Any]  # hyperparameters by dotted key; of a run that was refused, the overrides
    has_config: bool  # false where the run was refused before it started
    summary: dict[str, Any]
    curve: list[Validation]
    tokens_per_second: float  # median
    damage: list[str]  # a line for each file that cannot be read

    @property
    def is_complete(self) -> bool:
        """Whether it was trained to its end."""
        return self.status in COMPLETE

    @property
    def seed(self) -> str:
        """As text: a refused run has only what was typed."""
        return str(self.settings.get("seed"))

    @property
    def best(self) -> Validation | None:
        """The validation with the lowest loss; None before the first that gave a number."""
        return min(self._measured, key=lambda validation: validation.loss, default=None)

    @property
    def last(self) -> Validation | None:
        """The newest validation that gave a number."""
        return max(self._measured, key=lambda validation: validation.step, default=None)

    @property
    def _measured(self) -> list[Validation]:
        return [validation for validation in self.curve if math.isfinite(validation.loss)]

    def metric(self, name: str) -> float:
        """One of summary.json; NaN where it is not known."""
        return number(self.summary.get(name))


def find_run_folders(named: Sequence[Path]) -> list[Path]:
    """The run folders among, and anywhere below, the named folders; each once.

    Raises:
        InputError: a name is not that of a folder, or there is no run below it
    """
    folders: dict[Path, Path] = {}
    for folder in named:
        if not os.path.isdir(folder):
            raise InputError(
                "run.not_found",
                f"{folder} is not a folder: name a run folder, or one with runs in it (outputs/runs/...)",
            )
        below = list(_run_folders(folder))
        if not below:
            raise InputError(
                "run.not_a_run", f"{folder} holds no run: name a run folder, or one with runs in it (outputs/runs/...)"
            )
        for path in below:
            folders.setdefault(path.resolve(), path)
    return list(folders.values())


def _run_folders(folder: Path) -> Iterator[Path]:
    for path, names, _ in os.walk(folder):
        if _is_run_folder(Path(path)):
            names.clear()  # there is no run in a run
            yield Path(path)
        names.sort(key=_in_order)


def _in_order(name: str) -> tuple[int, str]:
    """Jobs of a sweep, <number>_<what was set>, by their number; others by name."""
    number = name.partition("_")[0]
    return (int(number) if number.isdecimal() else 0, name)


def _is_run_folder(folder: Path) -> bool:
    run_dir = RunDir(folder)
    return os.path.isfile(run_dir.config) or os.path.isfile(run_dir.overrides)


def read_run(folder: Path) -> RunRecord | None:
    """Read a run folder; None if it is not there any more."""
    damage: list[str] = []
    run_dir = RunDir(folder)
    overrides = _read(run_dir.overrides, yaml.safe_load, damage)
    typed = dict(map(key_and_value, map(str, overrides))) if isinstance(overrides, list) else {}
    settings = _read(run_dir.config, lambda text: hyperparameters(plain_from_yaml(text)), damage)
    summary = _read(run_dir.summary, _summary, damage) or {}
    curve, speeds = _read(run_dir.metrics, read_metrics, damage) or ([], [])
    running = "running" if run_dir.is_running() else "not finished"
    reason = summary.get("reason")
    record = RunRecord(
        folder=folder,
        status=str(summary.get("status") or running),
        reason=None if reason is None else str(reason),
        overrides=typed,
        choices=_read(run_dir.hydra, _choices, damage) or {},
        settings=typed if settings is None else settings,
        has_config=settings is not None,
        summary=summary,
        curve=curve,
        tokens_per_second=statistics.median(speeds) if speeds else math.nan,
        damage=damage,
    )
    return record if _is_run_folder(folder) else None


def _read(path: Path, parse: Callable[[str], Any], damage: list[str]) -> Any:
    """What a file holds; None where it is not there, or is damaged, which is noted."""
    try:
        return parse(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None
    except OSError as error:
        damage.append(f"{path} cannot be read: {error.strerror}")
    except (ValueError, yaml.YAMLError, OmegaConfBaseException, InputError) as error:
        damage.append(f"{path} is damaged: {in_one_line(error)}")
    return None


def _summary(text: str) -> dict[str, Any]:
    summary = json.loads(text)
    if not isinstance(summary, dict):
        raise ValueError("keys and values were expected")
    return summary


def _choices(text: str) -> dict[str, str]:
    """The choices of config groups in Hydra's own config."""
    node = yaml.safe_load(text)
    for key in ("hydra", "runtime", "choices"):
        node = node.get(key) if isinstance(node, dict) else None
    choices = node if isinstance(node, dict) else {}
    return {str(group): "null" if choice is None else str(choice) for group, choice in choices.items()}
