"""The run folder: its files, its lock, its summary; and how a run is found."""

import json
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import AcquireReturnProxy, FileLock, Timeout

from hp_lightning.common.errors import InputError
from hp_lightning.common.files import atomic_write_text
from hp_lightning.common.hydra_grammar import slug

OUTPUTS = Path("outputs")
RUNS = OUTPUTS / "runs"  # those of sweeps lie elsewhere
COMPLETE = ("completed", "stopped early")  # statuses in summary.json of a run that came to its end


class RunDir:
    """The folder of a run; everything in it has its name here.

    Args:
        path: of the folder, there or not
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / ".hydra" / "config.yaml"  # of the start, with `auto` resolved
        self.overrides = path / ".hydra" / "overrides.yaml"  # of the command line
        self.versions = path / ".hydra" / "versions.json"  # of the format, of the packages, of the project's code
        self.hydra = path / ".hydra" / "hydra.yaml"  # Hydra's own config
        self.checkpoints = path / "checkpoints"
        self.best_checkpoint = self.checkpoints / "best.ckpt"  # with the lowest validation loss
        self.last_checkpoint = self.checkpoints / "last.ckpt"  # to resume from
        self.previous_checkpoint = self.checkpoints / "previous.ckpt"  # that was the last before
        self.metrics = path / "metrics.csv"
        self.summary = path / "summary.json"
        self.log = path / "train.log"
        self.errors = path / "error.txt"  # of a job that failed: all that it said of it
        self.profile = path / "profile"
        self.by_tokens = path / "by_tokens"  # curves whose axis is the number of tokens seen
        self.events = path / "events.out.tfevents.*"  # SummaryWriter's files
        # The row in the HPARAMS tab: before SummaryWriter's files in the alphabet: TensorBoard reads it first.
        self.hparams = path / "events.out.tfevents.0000000000.settings"
        self.embeddings = path / "projector" / "vectors.bytes"
        self.embedding_labels = path / "projector" / "tokens.tsv"
        self.course = path / "course.html"
        self.slurm_job = path / ".slurm_job"  # the number of the job that made the folder
        self._lock = path / ".lock"

    def __str__(self) -> str:
        """The path, for messages."""
        return str(self.path)

    @classmethod
    def create(cls, wanted: str | None, overrides: Iterable[str]) -> "RunDir":
        """Make the folder of a new run, with `.hydra/` in it: `wanted`, or outputs/runs/<date>_<time>_<slug>.

        Raises:
            InputError: `wanted` is not empty, or the folder cannot be made
        """
        stem = RUNS / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{slug(overrides)}"
        path, count = (stem if wanted is None else Path(wanted)), 1
        while wanted is None and path.exists():  # a run of the same name was started in the same second
            count += 1
            path = stem.with_name(f"{stem.name}_{count}")
        run_dir = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            check_run_dir(wanted)
            run_dir.config.parent.mkdir()
        except OSError as error:
            raise InputError(
                "output.not_writable",
                f"the run folder {path} cannot be made ({error.strerror}): name another by run_dir=",
            ) from error
        return run_dir

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> "RunDir | None":
        """The run folder that a checkpoint lies in, by the name of the folder around it; None if it lies in none."""
        folder = checkpoint.parent if checkpoint.parent.name else Path.cwd()
        run_dir = cls(folder.parent)
        return run_dir if folder.name == run_dir.checkpoints.name else None

    def top_checkpoint(self, loss: float, step: int) -> Path:
        """Where a run that keeps several of its best checkpoints has one of them."""
        return self.checkpoints / f"step_{step:07}_loss_{loss:.4f}.ckpt"

    def top_checkpoints(self) -> list[Path]:
        """All of them."""
        return sorted(self.checkpoints.glob("step_*_loss_*.ckpt"))

    def lock(self) -> AcquireReturnProxy[FileLock]:
        """Keep other processes out until the block that holds it, or this process, ends, however it ends.

        Raises:
            InputError: another process is in it
        """
        try:
            return FileLock(self._lock).acquire(blocking=False)
        except Timeout as error:
            raise InputError(
                "run.locked", f"another process is training in {self}: wait until it has ended, or stop it"
            ) from error
        except OSError as error:
            raise InputError(
                "output.not_writable", f"{self} cannot be written ({error.strerror}): no run can resume in it"
            ) from error

    def is_running(self) -> bool:
        """Whether a process is training in it."""
        if not os.path.isfile(self._lock):
            return False
        held = FileLock(self._lock)
        try:
            held.acquire(blocking=False)
        except Timeout:
            return True
        except OSError:  # a folder that cannot be written
            return False
        held.release()
        return False

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json: flat, one key a figure; what is no finite number is null.

        Raises:
            OSError: it cannot be written
        """
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in summary.items()
        }
        atomic_write_text(self.summary, json.dumps(plain, indent=2) + "\n")

    def read_summary(self) -> dict[str, Any]:
        """What `write_summary` wrote; nothing where there is none that can be read."""
        with suppress(OSError, ValueError, TypeError):
            return dict(json.loads(self.summary.read_text(encoding="utf-8")))
        return {}

    def read_overrides(self) -> list[str]:
        """The overrides that were typed; none where the file is damaged."""
        with suppress(OSError, ValueError, yaml.YAMLError):
            return list(map(str, yaml.safe_load(self.overrides.read_text(encoding="utf-8")) or []))
        return []

    def is_complete(self, step: int) -> bool:
        """Whether the run was trained, tested and reported to an end after so many steps."""
        summary = self.read_summary()
        return summary.get("status") in COMPLETE and summary.get("steps") == step


def check_run_dir(wanted: str | None) -> None:
    """Whether a new run may have this folder.

    Raises:
        InputError: something is in it already
    """
    if wanted is not None and os.path.isdir(wanted) and os.listdir(wanted):
        run_dir = RunDir(Path(wanted))
        advice = f"resume its run with resume={run_dir}, or " if os.path.isfile(run_dir.config) else ""
        raise InputError("output.not_empty", f"run_dir={run_dir} is not empty: {advice}name a new folder")


@dataclass(frozen=True)
class Resumable:
    """A run to resume: from the first of its checkpoints that is whole; where it has none, from its start."""

    run_dir: RunDir
    checkpoints: list[Path]


def find_resumable(resume: str, key: str = "resume") -> Resumable:
    """The run that `resume` means: its folder, one of its checkpoints, or `latest`, the one saved or started last.

    Args:
        resume: what the person gave
        key: the config key by which it was given

    Raises:
        InputError: there is no such run
    """
    if resume == "latest":
        newest = _newest(ANY_RUN.last_checkpoint, ANY_RUN.config)
        if newest is None:
            raise InputError("run.none", f"{key}=latest: there is no run below {OUTPUTS.absolute()}: name its folder")
        return find_resumable(str(newest.parent.parent), key)
    path = Path(resume)
    if os.path.isdir(path):
        run_dir = RunDir(path)
        order = (run_dir.last_checkpoint, run_dir.previous_checkpoint, run_dir.best_checkpoint)
        checkpoints = [checkpoint for checkpoint in order if os.path.isfile(checkpoint)]
        if not checkpoints and run_dir.read_summary().get("best/step"):
            raise InputError(
                "run.no_checkpoint",
                f"{key}={resume}: the run has no checkpoint any more: bring one back, or start a new run",
            )
        if not checkpoints and not os.path.isfile(run_dir.config):
            raise InputError(
                "run.not_a_run", f"{key}={resume} holds no run: name a run folder (outputs/runs/...) or latest"
            )
        return Resumable(run_dir, checkpoints)
    if not os.path.isfile(path):
        raise InputError(
            "run.not_found", f"{key}={resume} does not exist: name a run folder (outputs/runs/...), or latest"
        )
    around = RunDir.of_checkpoint(path.absolute())
    if around is None:
        raise InputError("run.not_a_run", f"{key}={resume} is not in a run folder: name a run folder")
    run_dir = RunDir(Path(os.path.relpath(around.path)))
    return Resumable(run_dir, [run_dir.checkpoints / path.name])


def find_checkpoint(ckpt: str | None, key: str = "ckpt") -> Path:
    """The checkpoint file that `ckpt` means: a file, a run folder's best, or with None the newest run's best.

    Args:
        ckpt: what the person gave
        key: the config key by which it was given

    Raises:
        InputError: there is no such checkpoint.
    """
    if ckpt is None:
        newest = _newest(ANY_RUN.best_checkpoint)
        if newest is None:
            raise InputError(
                "run.none",
                f"no trained run below {OUTPUTS.absolute()}: train one by `make train`, or name ckpt=",
            )
        return newest
    path = Path(ckpt)
    if os.path.isdir(path):  # unlike Path.is_dir, no error where one may not look
        best = RunDir(path).best_checkpoint
        if not os.path.isfile(best):
            raise InputError(
                "checkpoint.not_in_folder",
                f"{key}={ckpt} holds no checkpoints/best.ckpt: name a run folder or a .ckpt file",
            )
        return best
    if not os.path.isfile(path):
        raise InputError(
            "checkpoint.not_found", f"{key}={ckpt} does not exist: name a run folder (outputs/runs/...) or a .ckpt file"
        )
    return path


ANY_RUN = RunDir(Path("**"))  # its paths are patterns


def _newest(*patterns: Path) -> Path | None:
    """The file below `OUTPUTS` that was written last, of those that match."""
    files = [path for pattern in patterns for path in OUTPUTS.glob(str(pattern)) if path.is_file()]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def short_reason(summary: dict[str, Any]) -> str:
    """Why a run did not end well, without the advice."""
    return str(summary.get("reason")).partition("; ")[0]
