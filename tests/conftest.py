"""Fixtures of all tests: composed configs, the real data beside the project, programs in an empty folder."""

import functools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from helpers.processes import PROJECT, Finished, end_all, run_program
from helpers.runs import finished_run
from hydra import compose, initialize_config_dir

from hp_lightning.schema.compose import SCHEMAS, store_schema
from hp_lightning.schema.train import TrainConfig, train_config

Once = Callable[[str, Callable[[Path], object]], Path]

SHARED_DATA = PROJECT.parent / "shared" / "data"

for root in SCHEMAS:
    store_schema(root)
torch.set_num_threads(1)  # the tests run side by side
sys.path.append(str(PROJECT / ".venv" / "transformers"))  # for the tests alone, not for the processes: see Makefile

# A shell ignores SIGINT for a job in the background, nohup SIGHUP, and children inherit that. With a handler here, one
# that does nothing either, they begin with what the system does by default.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session", autouse=True)
def cache_home(once: Once) -> Iterator[Path]:
    """No test uses the user's own cache, nor fills it; the processes that a test starts do not either."""
    with pytest.MonkeyPatch.context() as patch:
        path = once("cache", lambda folder: None)
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
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder once for all workers; they share it, so that whoever changes something in it takes a copy."""
    own = tmp_path_factory.getbasetemp()
    common = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder = common / f"shared_{name}"
        with FileLock(f"{folder}.lock"):
            if not folder.with_suffix(".done").exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                fill(folder)
                folder.with_suffix(".done").touch()
        return folder

    return make


@pytest.fixture(scope="session")
def first_book(once: Once) -> Path:
    """The first of the bundled books as a CSV of its own: a corpus that is read and tokenized in a second."""

    def fill(folder: Path) -> None:
        lines = (PROJECT / "books" / "lanterns_of_saltmere.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if "Ferry to Vesperhold" in line or line == lines[0]]
        (folder / "first_book.csv").write_text("".join(kept), encoding="utf-8")

    return once("corpus", fill) / "first_book.csv"


@pytest.fixture(scope="session")
def small_run(once: Once, first_book: Path) -> Path:
    """The folder of a finished run of 60 steps on the first book; tests take a copy."""
    settings = [
        "experiment=smoke",
        f"data.path={first_book}",
        "optim=adamw",  # the quicker steps
        "max_steps=60",
        "max_epochs=25",
        "trainer.val_every_steps=20",
        "trainer.precision=32-true",
        "checkpoint.every_steps=10",
        "checkpoint.top_k=2",
        "logger.sample_tokens=0",
        "logger.images=false",
    ]
    return once("small_run", lambda folder: finished_run(folder, *settings, "run_dir=run")) / "run"


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., Finished]:
    """Runs a program to its end in an empty folder; see helpers/processes.py."""
    return functools.partial(run_program, tmp_path)


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """A test that fails leaves no process to disturb the others."""
    yield
    end_all()
