"""Run folders: how they are named and made, what lies where in them, and how a run is found again."""

import hashlib
import json
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hp_lightning.common.errors import InputError, RunError
from hp_lightning.common.files import atomic_write
from hp_lightning.common.hydra_grammar import parted

OUTPUTS = Path("outputs")
COMPLETE = ("completed", "stopped early")  # statuses in summary.json of a run that came to its end
SLUG_LENGTH = 40
HANDED_OVER = "HP_LIGHTNING_RUN"  # environment variable of the processes that a run starts for its other devices
IN_SWEEP = "HP_LIGHTNING_SWEEP"  # environment variable of the jobs of a sweep: its folder
# Overrides that say where a run lies or how long it goes, not what it is.
UNNAMED_KEYS = {"run_dir", "resume", "max_steps", "max_epochs"}


def slug(overrides: Iterable[str]) -> str:
    """A short folder name that tells runs apart: ["model=small", "optim.lr=0.01"] gives "small_lr0.01".

    A name that would grow beyond `SLUG_LENGTH` is cut and ends in a hash of all the overrides.
    """
    overrides = [override for override in overrides if parted(override)[0] not in UNNAMED_KEYS]
    words = []
    for override in overrides:
        key, value = parted(override)
        value = Path(value).stem if "/" in value else value
        words.append(key.rpartition(".")[2] + value if _needs_name(key) else value)
    name = re.sub(r"[^\w.-]+", "-", "_".join(words)).strip("-_.")
    if len(name) > SLUG_LENGTH:
        name = f"{name[: SLUG_LENGTH - 9]}-{hashlib.sha256(' '.join(overrides).encode()).hexdigest()[:8]}"
    return name or "default"


def _needs_name(key: str) -> bool:
    """Whether a value says little without its key: "0.1" does, the choice of a group or the name of a file does not."""
    return ("." in key and key != "data.path") or key == "seed"


def check_run_dir(wanted: str | None) -> None:
    """Whether a new run may have this folder.

    Raises:
        InputError: something is in it already
    """
    if wanted is not None and os.path.isdir(wanted) and os.listdir(wanted):
        path = Path(wanted)
        advice = f"go on with its run by resume={path}, or " if os.path.isfile(kept_config(path)) else ""
        raise InputError("output.not_empty", f"run_dir={path} is not empty: {advice}name a new folder")


def make_run_dir(wanted: str | None, overrides: Iterable[str]) -> Path:
    """Makes the folder of a new run, with `.hydra/` in it: `wanted`, or outputs/runs/<date>_<time>_<slug>.

    Raises:
        InputError: `wanted` is not empty, or the folder cannot be made
    """
    stem = OUTPUTS / "runs" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{slug(overrides)}"
    path, count = (stem if wanted is None else Path(wanted)), 1
    while wanted is None and path.exists():  # a run with the same name began in the same second
        count += 1
        path = stem.with_name(f"{stem.name}_{count}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_run_dir(wanted)
        (path / ".hydra").mkdir()
    except OSError as error:
        raise InputError(
            "output.not_writable", f"the run folder {path} cannot be made ({error.strerror}): name another by run_dir="
        ) from error
    return path


def command(program: str, *arguments: str) -> str:
    """A command line that works in the shell this process was started from, its virtual environment active or not."""
    folder = Path(sys.executable).parent
    found = shutil.which(program)
    if found is None or Path(found).parent != folder:
        here = Path.cwd()
        program = str((folder / program).relative_to(here) if folder.is_relative_to(here) else folder / program)
    return shlex.join([program, *arguments])


def own_command(name: str, *arguments: str) -> str:
    """A command line of this project, as in `hp-lightning train resume=...`."""
    if (Path(sys.executable).parent / "hp-lightning").exists():
        return command("hp-lightning", name, *arguments)
    return command("python", "-m", "hp_lightning", name, *arguments)


def best_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the checkpoint with the lowest validation loss."""
    return run_dir / "checkpoints" / "best.ckpt"


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the checkpoint to resume from."""
    return run_dir / "checkpoints" / "last.ckpt"


def previous_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the checkpoint that was the last before."""
    return run_dir / "checkpoints" / "previous.ckpt"


def top_checkpoint(run_dir: Path, loss: float, step: int) -> Path:
    """Where a run that keeps several of its best checkpoints has one of them."""
    return run_dir / "checkpoints" / f"step_{step:07}_loss_{loss:.4f}.ckpt"


def top_checkpoints(run_dir: Path) -> list[Path]:
    """All of them."""
    return sorted((run_dir / "checkpoints").glob("step_*_loss_*.ckpt"))


def kept_config(run_dir: Path) -> Path:
    """Where a run keeps the config that it began with."""
    return run_dir / ".hydra" / "config.yaml"


@dataclass(frozen=True)
class Resumable:
    """A run that can go on: from the first of its checkpoints that is whole; where it has none, from its beginning."""

    run_dir: Path
    checkpoints: list[Path]


def find_resumable(resume: str) -> Resumable:
    """The run that `resume` means: its folder, one of its checkpoints, or `latest`, the one saved or begun last.

    Raises:
        InputError: there is no such run
    """
    if resume == "latest":
        return find_resumable(str(_latest_run()))
    path = Path(resume)
    if os.path.isdir(path):
        order = (last_checkpoint(path), previous_checkpoint(path), best_checkpoint(path))
        found = [checkpoint for checkpoint in order if os.path.isfile(checkpoint)]
        if not found and _had_checkpoints(path):
            raise InputError(
                "run.no_checkpoint",
                f"resume={resume}: the run has no checkpoint any more: bring one back, or begin a new run",
            )
        if not found and not os.path.isfile(kept_config(path)):
            raise InputError(
                "run.not_a_run", f"resume={resume} holds no run: name a run folder (outputs/runs/...) or latest"
            )
        return Resumable(path, found)
    if not os.path.isfile(path):
        raise InputError(
            "run.not_found", f"resume={resume} does not exist: name a run folder (outputs/runs/...), or latest"
        )
    run_dir = Path(os.path.relpath(path.absolute().parent.parent))
    if path.absolute().parent.name != "checkpoints":
        raise InputError(
            "run.not_a_run", f"resume={resume} lies in no run folder, in which a run could go on: name a run folder"
        )
    return Resumable(run_dir, [run_dir / "checkpoints" / path.name])


def _had_checkpoints(run_dir: Path) -> bool:
    """Whether a run without one had one once: it makes the folder for the first, and its summary names the best."""
    folder = run_dir / "checkpoints"
    if folder.is_dir() and not any(folder.iterdir()):
        return True
    try:
        return bool(json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))["best/step"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _latest_run() -> Path:
    marks = ("checkpoints/last.ckpt", ".hydra/config.yaml")
    found = [path for mark in marks for path in OUTPUTS.glob(f"**/{mark}") if path.is_file()]
    if not found:
        raise InputError("run.none", f"resume=latest: there is no run below {OUTPUTS.absolute()}: name its folder")
    return max(found, key=lambda path: path.stat().st_mtime).parent.parent


def lock(run_dir: Path) -> FileLock:
    """Keeps other processes out of a run folder until it is released; or this process ends, however it ends.

    Raises:
        InputError: another process is in it
    """
    held = FileLock(_lock_file(run_dir))
    try:
        held.acquire(blocking=False)
    except Timeout as error:
        raise InputError(
            "run.locked", f"another process is training in {run_dir}: wait until it has ended, or stop it"
        ) from error
    except OSError as error:
        raise InputError(
            "output.not_writable", f"{run_dir} cannot be written ({error.strerror}), so that no run can go on in it"
        ) from error
    return held


def is_running(run_dir: Path) -> bool:
    """Whether a process is training in a run folder."""
    if not os.path.isfile(_lock_file(run_dir)):
        return False
    held = FileLock(_lock_file(run_dir))
    try:
        held.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:  # a folder that cannot be written
        return False
    held.release()
    return False


def _lock_file(run_dir: Path) -> Path:
    return run_dir / ".lock"


def find_checkpoint(ckpt: str | None, key: str = "ckpt") -> Path:
    """The checkpoint file that `ckpt` means: a file, a run folder's best, or with None the newest run's best.

    Args:
        ckpt: what the person gave
        key: the config key by which it was given

    Raises:
        InputError: there is no such checkpoint.
    """
    if ckpt is None:
        found = [path for path in OUTPUTS.glob("**/checkpoints/best.ckpt") if path.is_file()]
        if not found:
            raise InputError(
                "run.none",
                f"no trained run below {OUTPUTS.absolute()}: train one by `make train`, or name ckpt=",
            )
        return max(found, key=lambda path: path.stat().st_mtime)
    path = Path(ckpt)
    if os.path.isdir(path):  # unlike Path.is_dir, no error where one may not look
        if not os.path.isfile(best_checkpoint(path)):
            raise InputError(
                "checkpoint.not_in_folder",
                f"{key}={ckpt} holds no checkpoints/best.ckpt: name a run folder or a .ckpt file",
            )
        return best_checkpoint(path)
    if not os.path.isfile(path):
        raise InputError(
            "checkpoint.not_found", f"{key}={ckpt} does not exist: name a run folder (outputs/runs/...) or a .ckpt file"
        )
    return path


def write_summary(run_dir: Path, summary: dict[str, Any]) -> None:
    """Writes summary.json: flat, one key a figure; what is no finite number is null.

    Raises:
        RunError: it cannot be written
    """
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in summary.items()
    }
    try:
        with atomic_write(run_dir / "summary.json") as file:
            file.write((json.dumps(plain, indent=2) + "\n").encode())
    except OSError as error:
        raise RunError(
            "output.not_writable",
            f"{run_dir}/summary.json cannot be written ({error.strerror}): make room, then finish by resume={run_dir}",
        ) from error


def is_complete(run_dir: Path, step: int) -> bool:
    """Whether a run was trained, tested and reported to an end after so many steps."""
    summary = read_summary(run_dir)
    return summary.get("status") in COMPLETE and summary.get("steps") == step


def read_summary(run_dir: Path) -> dict[str, Any]:
    """What `write_summary` wrote; nothing where there is none that can be read."""
    try:
        summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def short_reason(summary: dict[str, Any]) -> str:
    """Why a run did not end well, without the advice."""
    return str(summary.get("reason")).partition("; ")[0]
