"""Packages for a machine without a network: wheels are collected where there is one, and installed there."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from throughput_shapes import PROJECT

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
NOT_FOR_RUNNING = {"ruff", "mypy"}


def collect(folder: Path) -> None:
    """Wheels of all pure-Python packages that the project and its tests need, in the versions installed here.

    What is compiled for one machine, PyTorch above all, is not carried, nor what only that needs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in folder.glob("*.whl"):
        wheel.unlink()
    pins = sorted({f"{package.name}=={package.version}" for package in _pure(_named())})
    subprocess.run([*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), *pins], check=True)
    size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    print(f"{folder}: {len(pins)} wheels, {size / 2**20:.1f} MiB")


def _named() -> list[str]:
    """What pyproject.toml names."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["test"]]


def _pure(requirements: list[str]) -> Iterator[Distribution]:
    """The pure-Python ones among these and what they need in turn."""
    seen: set[str] = set(NOT_FOR_RUNNING)
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = _normalized(requirement)
        if name in seen or "extra ==" in requirement:
            continue
        seen.add(name)
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another platform or version of Python
            continue
        if "Root-Is-Purelib: true" in (package.read_text("WHEEL") or ""):
            yield package
            waiting += package.requires or []


def _normalized(requirement: str) -> str:
    """A package's name, as indexes compare names."""
    match = re.match(r"[\w.-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def install_missing(wheels: Path, site: Path) -> list[str]:
    """Installs those wheels whose packages this Python lacks into a folder of their own; gives their names."""
    missing = [wheel for wheel in sorted(wheels.glob("*.whl")) if not _is_installed(wheel.name.split("-")[0])]
    if missing:
        options = ["install", "--quiet", "--no-index", "--no-deps", "--upgrade", "--target", str(site)]
        subprocess.run([*PIP, *options, *map(str, missing)], check=True)
    return [wheel.name.split("-")[0] for wheel in missing]


def still_missing() -> list[str]:
    """What pyproject.toml names for running and neither this Python nor what was installed for it has."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [name for name in map(_normalized, project["dependencies"]) if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
