"""Packages for a machine without a network: wheels are collected where there is one, and unpacked there."""

import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path


def collect(folder: Path) -> None:
    """Wheels of all pure-Python packages installed here; what is compiled, PyTorch above all, is not carried."""
    pure = {package for package in distributions() if "Root-Is-Purelib: true" in (package.read_text("WHEEL") or "")}
    pins = sorted(f"{package.name}=={package.version}" for package in pure if package.name != "hp_lightning")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), *pins]
    subprocess.run(command, check=True)
    size = sum(wheel.stat().st_size for wheel in folder.glob("*.whl"))
    print(f"{folder}: {len(pins)} wheels, {size / 2**20:.1f} MiB")


def unpack_missing(wheels: Path, site: Path) -> list[str]:
    """Unpacks the wheels of what this Python lacks into a folder; gives their names."""
    missing = [wheel for wheel in sorted(wheels.glob("*.whl")) if not _is_installed(wheel.name.split("-")[0])]
    for wheel in missing:
        with zipfile.ZipFile(wheel) as archive:  # pip would do no more for pure Python, and may be missing, too
            archive.extractall(site)
    return [wheel.name.split("-")[0] for wheel in missing]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
