"""What a run was made with: the versions of the packages, and the state of the project's code."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hp_lightning.common.files import PACKAGE

PACKAGES = ("hp_lightning", "torch", "lightning", "hydra-core", "numpy", "nltk", "tokenizers")


def versions() -> dict[str, Any]:
    """By name; `git` is the commit of a checkout, and whether it was changed since, and null for an installed wheel."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}, "git": _git()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    if not (PACKAGE.parent / ".git").exists() or shutil.which("git") is None:
        return None
    try:
        commit, changes = _said_by_git("rev-parse", "HEAD"), _said_by_git("status", "--porcelain")
        return {"commit": commit.strip(), "changed": bool(changes)}
    except subprocess.CalledProcessError:
        return None


def _said_by_git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE.parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
