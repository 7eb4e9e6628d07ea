"""What the tests share: composed configs, the real data beside the project, and the scripts as real processes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from hp_lightning import cli  # noqa: F401  makes schemas and resolvers known
from hp_lightning.config import TrainConfig, train_config

PROJECT = Path(__file__).resolve().parent.parent
SHARED_DATA = PROJECT.parent / "shared" / "data"

torch.set_num_threads(1)  # the tests run side by side


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test uses the user's own cache, nor fills it; the processes that a test starts do not either."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(path))
        yield path


@pytest.fixture(scope="session")
def make_config() -> Callable[..., TrainConfig]:
    """Composes conf/train.yaml with overrides, as train.py does."""

    def make(*overrides: str) -> TrainConfig:
        with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
            return train_config(compose("train", overrides=list(overrides)))

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real corpora; a user's clone has none beside it, CI must."""
    if not SHARED_DATA.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{SHARED_DATA} is missing")
        pytest.skip("no shared data beside the project")
    return SHARED_DATA


@pytest.fixture(scope="session")
def first_book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of the bundled books as a CSV of its own: a corpus that is read and tokenized in a second."""
    lines = (PROJECT / "books" / "lanterns_of_saltmere.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path_factory.mktemp("corpus") / "first_book.csv"
    path.write_text(
        "".join(line for line in lines if "Ferry to Vesperhold" in line or line == lines[0]), encoding="utf-8"
    )
    return path


def script_command(script: str, *arguments: str) -> list[str]:
    """How a person starts a script of the project."""
    return [sys.executable, str(PROJECT / script), *arguments]


def script_environment() -> dict[str, str]:
    """One thread a process, since the tests run side by side."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script to its end in an empty folder."""

    def run(script: str, *arguments: str, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            script_command(script, *arguments),
            cwd=cwd,
            env=script_environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
