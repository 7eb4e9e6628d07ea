"""Run folders: how they are named and made, and how a run or a checkpoint is found again."""

import hashlib
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from hp_lightning.errors import InputError

OUTPUTS = Path("outputs")
SLUG_LENGTH = 40
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


def make_run_dir(wanted: str | None, overrides: Iterable[str], outputs: Path = OUTPUTS) -> Path:
    """Makes the folder of a new run: `wanted`, or outputs/runs/<date>_<time>_<slug>.

    Raises:
        InputError: `wanted` already holds a run, or the folder cannot be made.
    """
    if wanted is not None and (Path(wanted) / ".hydra").exists():
        raise InputError(f"run_dir={wanted} already holds a run: go on with it by resume={wanted}, or name another")
    stem = outputs / "runs" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{slug(overrides)}"
    path, count = (Path(wanted) if wanted is not None else stem), 1
    while True:
        try:
            path.mkdir(parents=True, exist_ok=wanted is not None)
            return path
        except FileExistsError as error:
            if wanted is not None:
                raise InputError(f"run_dir={wanted} is a file: name a folder") from error
            count += 1  # a run with the same name began in the same second
            path = stem.with_name(f"{stem.name}_{count}")
        except OSError as error:
            raise InputError(f"the run folder {path} cannot be made ({error.strerror}): choose run_dir=") from error


def best_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the checkpoint with the lowest validation loss."""
    return run_dir / "checkpoints" / "best.ckpt"


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps the checkpoint to resume from."""
    return run_dir / "checkpoints" / "last.ckpt"


def find_checkpoint(ckpt: str | None, outputs: Path = OUTPUTS) -> Path:
    """The checkpoint file that `ckpt` means: a file, a run folder's best, or with None the newest run's best.

    Raises:
        InputError: there is no such checkpoint.
    """
    if ckpt is None:
        found = [path for path in outputs.glob("**/checkpoints/best.ckpt") if path.is_file()]
        if not found:
            raise InputError(f"no trained run below {outputs.absolute()}: train one by `make train`, or name ckpt=")
        return max(found, key=lambda path: path.stat().st_mtime)
    path = Path(ckpt)
    if path.is_dir():
        if not best_checkpoint(path).is_file():
            raise InputError(f"ckpt={ckpt} holds no checkpoints/best.ckpt: name a run folder or a .ckpt file")
        return best_checkpoint(path)
    if not path.is_file():
        raise InputError(f"ckpt={ckpt} does not exist: name a run folder (outputs/runs/...) or a .ckpt file")
    return path
