"""Fixtures of all tests: composed configs, the real data beside the project, programs in an empty folder."""

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.processes import PROJECT, Finished, end_all, run_program
from hydra import compose, initialize_config_dir

from hp_lightning import cli  # noqa: F401  makes schemas and resolvers known
from hp_lightning.config import TrainConfig, train_config

SHARED_DATA = PROJECT.parent / "shared" / "data"

torch.set_num_threads(1)  # the tests run side by side
sys.path.append(str(PROJECT / ".venv" / "transformers"))  # for the tests alone, not for the processes: see Makefile

# A shell ignores SIGINT for a job in the background, nohup SIGHUP, and children inherit that. With a handler here, one
# that does nothing either, they begin with what the system does by default.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


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
    """The real corpora; a user's clone has none beside it, one that is told to require them must."""
    if not SHARED_DATA.is_dir():
        if os.environ.get("HP_LIGHTNING_REQUIRE_DATA") == "1":
            pytest.fail(f"{SHARED_DATA} is missing, though HP_LIGHTNING_REQUIRE_DATA=1")
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


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., Finished]:
    """Runs a program to its end in an empty folder; see helpers/processes.py."""
    return functools.partial(run_program, tmp_path)


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """A test that fails leaves no process to disturb the others."""
    yield
    end_all()
