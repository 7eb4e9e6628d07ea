"""Run folders read back: what a run was told, how it ended, what it came to. Nothing heavy is imported."""

import json
import math
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from hp_lightning.common import run_dir as runs
from hp_lightning.common.errors import InputError
from hp_lightning.common.hydra_grammar import parted
from hp_lightning.schema.train import plain_from_yaml
from hp_lightning.sweeps.comparison.curve import Validation, number, read_metrics, with_the_known_best
from hp_lightning.sweeps.comparison.settings import hyperparameters
from hp_lightning.training.summary import COMPLETE


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run as its folder tells it, whole or not."""

    folder: Path
    status: str  # as in summary.json; without one: running, or not finished
    reason: str | None  # of an end that is no good one
    overrides: dict[str, str]  # the command line's, as they were typed
    choices: dict[str, str]  # of the config groups
    settings: dict[str, Any] | None  # hyperparameters by dotted key; None: the run was refused before it began
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
        """As text, since a refused run has only what was typed."""
        return str(self.overrides.get("seed") if self.settings is None else self.settings.get("seed"))

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

    def figure(self, name: str) -> float:
        """One of summary.json; NaN where it is not known."""
        return number(self.summary.get(name))


def find_run_folders(named: Sequence[Path]) -> list[Path]:
    """The run folders among, and anywhere below, the named folders; each once.

    Raises:
        InputError: a name is none of a folder, or leads to no run
    """
    found: dict[Path, Path] = {}
    for folder in named:
        if not os.path.isdir(folder):
            raise InputError(
                "run.not_found", f"{folder} is no folder: name a run folder, or one with runs in it (outputs/runs/...)"
            )
        below = list(_run_folders(folder))
        if not below:
            raise InputError(
                "run.not_a_run", f"{folder} holds no run: name a run folder, or one with runs in it (outputs/runs/...)"
            )
        for path in below:
            found.setdefault(path.resolve(), path)
    return list(found.values())


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
    kept = runs.kept_config(folder)
    return os.path.isfile(kept) or os.path.isfile(kept.with_name("overrides.yaml"))


def read_run(folder: Path) -> RunRecord | None:
    """What a run folder tells; None if it is not there any more."""
    damage: list[str] = []
    hydra = runs.kept_config(folder).parent
    overrides = _yaml(hydra / "overrides.yaml", damage)
    typed = dict(map(parted, map(str, overrides))) if isinstance(overrides, list) else {}
    settings = _settings(runs.kept_config(folder), damage)
    summary = _summary(folder / "summary.json", damage)
    curve, speeds = read_metrics(_text(folder / "metrics.csv", damage) or "")
    status = str(summary.get("status", ""))
    if not status:
        status = "running" if runs.is_running(folder) else "not finished"
    reason = summary.get("reason")
    record = RunRecord(
        folder=folder,
        status=status,
        reason=None if reason is None else str(reason),
        overrides=typed,
        choices=_choices(hydra / "hydra.yaml", damage),
        settings=settings,
        summary=summary,
        curve=with_the_known_best(curve, summary),
        tokens_per_second=statistics.median(speeds) if speeds else math.nan,
        damage=damage,
    )
    return record if _is_run_folder(folder) else None


def _text(path: Path, damage: list[str]) -> str | None:
    """The text of a file; None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        damage.append(f"{path} cannot be read: {error.strerror}")
        return None


def _yaml(path: Path, damage: list[str]) -> Any:
    text = _text(path, damage)
    try:
        return None if text is None else yaml.safe_load(text)
    except yaml.YAMLError as error:
        damage.append(f"{path} is damaged: {_first_line(error)}")
        return None


def _choices(path: Path, damage: list[str]) -> dict[str, str]:
    node = _yaml(path, damage)
    for key in ("hydra", "runtime", "choices"):
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return {}
    return {str(group): "null" if choice is None else str(choice) for group, choice in node.items()}


def _settings(path: Path, damage: list[str]) -> dict[str, Any] | None:
    text = _text(path, damage)
    try:
        return None if text is None else hyperparameters(plain_from_yaml(text))
    except (ValueError, yaml.YAMLError, OmegaConfBaseException, InputError) as error:
        damage.append(f"{path} is damaged: {_first_line(error)}")
        return None


def _summary(path: Path, damage: list[str]) -> dict[str, Any]:
    text = _text(path, damage)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        damage.append(f"{path} is damaged: {_first_line(error)}")
        return {}
    if not isinstance(found, dict):
        damage.append(f"{path} is damaged: keys and values were expected")
        return {}
    return found


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
