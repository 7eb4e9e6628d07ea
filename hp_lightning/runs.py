"""Run folders: how they are named and made, and how a run or a checkpoint is found again."""

import hashlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from hp_lightning.errors import InputError

OUTPUTS = Path("outputs")
SLUG_LENGTH = 40
HANDED_OVER = "HP_LIGHTNING_RUN"  # environment variable of the processes that a run starts for its other devices
# Overrides that say where a run lies or how long it goes, not what it is.
UNNAMED_KEYS = {"run_dir", "resume", "max_steps", "max_epochs"}


def slug(overrides: Iterable[str]) -> str:
    """A short folder name that tells runs apart: ["model=small", "optim.lr=0.01"] gives "small_lr0.01".

    A name that would grow beyond `SLUG_LENGTH` is cut and ends in a hash of all the overrides.
    """
    overrides = [override for override in overrides if override.lstrip("+~").split("=")[0] not in UNNAMED_KEYS]
    words = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
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
        advice = f"go on with its run by resume={path}, or " if os.path.isfile(last_checkpoint(path)) else ""
        raise InputError(f"run_dir={path} is not empty: {advice}name a new folder")


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
            f"the run folder {path} cannot be made ({error.strerror}): name another by run_dir="
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


def script(name: str) -> str:
    """Where a script of the project lies, as seen from where this one was started."""
    return str(Path(sys.argv[0]).with_name(name))


def best_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the checkpoint with the lowest validation loss."""
    return run_dir / "checkpoints" / "best.ckpt"


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the checkpoint to resume from."""
    return run_dir / "checkpoints" / "last.ckpt"


def resumable_checkpoint(folder: str) -> Path:
    """The checkpoint from which the run in a folder goes on.

    Raises:
        InputError: there is none
    """
    path = last_checkpoint(Path(folder))
    if not os.path.isfile(path):
        raise InputError(f"resume={folder} holds no checkpoints/last.ckpt: name the folder of a run that has one")
    return path


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
            raise InputError(f"no trained run below {OUTPUTS.absolute()}: train one by `make train`, or name ckpt=")
        return max(found, key=lambda path: path.stat().st_mtime)
    path = Path(ckpt)
    if os.path.isdir(path):  # unlike Path.is_dir, no error where one may not look
        if not os.path.isfile(best_checkpoint(path)):
            raise InputError(f"{key}={ckpt} holds no checkpoints/best.ckpt: name a run folder or a .ckpt file")
        return best_checkpoint(path)
    if not os.path.isfile(path):
        raise InputError(f"{key}={ckpt} does not exist: name a run folder (outputs/runs/...) or a .ckpt file")
    return path
