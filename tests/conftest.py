"""What the tests share: composed configs, the real data beside the project, and the scripts as real processes."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from hp_lightning import checkpoint, cli  # noqa: F401  cli makes schemas and resolvers known
from hp_lightning.config import TrainConfig, train_config
from hp_lightning.model import GPT
from hp_lightning.tokenization import Tokenizer

PROJECT = Path(__file__).resolve().parent.parent
SHARED_DATA = PROJECT.parent / "shared" / "data"
MEASURED = ("train/loss", "grad_norm", "lr", "val/loss", "val/perplexity", "val/bits_per_char", "val/gap")

torch.set_num_threads(1)  # the tests run side by side
sys.path.append(str(PROJECT / ".venv" / "transformers"))  # for the tests alone, not for the processes: see Makefile


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


def save_untrained(path: Path, cfg: TrainConfig, tokenizer: Tokenizer) -> GPT:
    """Writes the checkpoint of a network with random weights, larger than initially; gives the network."""
    cfg = replace(cfg, model=replace(cfg.model, vocab_size=cfg.model.vocab_size or len(tokenizer.vocabulary)))
    torch.manual_seed(1)
    net = GPT(cfg.model).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    contents: dict[str, Any] = {"optimizer_states": [], "schedule": {}, "loops": {}, "callbacks": {}, "global_step": 0}
    weights = {f"net.{name}": weight for name, weight in net.state_dict().items()}
    ours = checkpoint.our_part(cfg, tokenizer, "", checkpoint.Record())
    torch.save({**contents, "state_dict": weights, checkpoint.OURS: ours}, path)
    return net


def script_command(script: str, *arguments: str) -> list[str]:
    """How a person starts a script of the project."""
    return [sys.executable, str(PROJECT / script), *arguments]


def script_environment() -> dict[str, str]:
    """One thread a process, since the tests run side by side; and not what torch has set while it was imported here."""
    own = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    return {**own, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script to its end in an empty folder."""

    def run(script: str, *arguments: str, cwd: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            script_command(script, *arguments),
            cwd=cwd,
            env={**script_environment(), **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """A test that fails leaves no process to disturb the others."""
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def start(cwd: Path, *arguments: str, script: str = "train.py", **environment: str) -> subprocess.Popen[str]:
    """A script in a process group of its own, so that all that it starts can be killed with it."""
    process = subprocess.Popen(
        script_command(script, *arguments),
        cwd=cwd,
        env={**script_environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _started.append(process)
    return process


def signalled(cwd: Path, signal_name: str, place: str, count: int, *arguments: str) -> subprocess.Popen[str]:
    """train.py, with a signal from within when a function is called for the `count`th time; see kill_at.py."""
    return start(cwd, signal_name, place, str(count), *arguments, script="tests/kill_at.py")


def wait_for_step(run_dir: Path, step: int) -> None:
    """Until metrics.csv has come to a step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (run_dir / "metrics.csv").exists() and max([row["step"] for row in metrics(run_dir)], default=0) >= step:
            return
        time.sleep(0.01)
    pytest.fail(f"step {step} was not reached")


def metrics(run_dir: Path) -> list[dict]:
    """The whole rows of metrics.csv."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [{**row, "step": int(row["step"])} for row in csv.DictReader(file) if row["val/gap"] is not None]


def curves(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows, but for what depends on the machine's speed."""
    shown = {**scalars(run_dir), **scalars(run_dir / "by_tokens")}
    assert {*MEASURED, "loss_by_tokens/train", "loss_by_tokens/val"} <= shown.keys()
    return {tag: curve for tag, curve in shown.items() if tag not in ("tokens_per_second", "mfu")}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The steps and values of every scalar, by TensorBoard's own reader."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expect_same_run(run_dir: Path, unbroken: Path) -> None:
    """The same state to the last bit, the same figures at the same steps, each once."""
    ours, theirs = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (run_dir, unbroken)
    )
    for part in ("state_dict", "optimizer_states", "schedule", "global_step", "hp_lightning"):
        expect_equal(ours[part], theirs[part], part)
    loaders = [contents["loops"]["fit_loop"]["state_dict"]["combined_loader"] for contents in (ours, theirs)]
    expect_equal(*loaders, "where the loader is")
    figures = [{key: contents["callbacks"]["RunLog"][key] for key in ("best", "losses")} for contents in (ours, theirs)]
    expect_equal(*figures, "what the next figures are made of")
    assert curves(run_dir) == curves(unbroken)
    rows = [
        [{key: row[key] for key in ("step", *MEASURED)} for row in metrics(folder)] for folder in (run_dir, unbroken)
    ]
    assert rows[0] == rows[1]
    found, wanted = (json.loads((folder / "summary.json").read_text()) for folder in (run_dir, unbroken))
    assert {**found, "seconds": 0} == {**wanted, "seconds": 0}


def expect_equal(ours: Any, theirs: Any, where: str) -> None:
    """Nested dicts and lists with equal values; tensors to the last bit."""
    assert type(ours) is type(theirs), where
    if isinstance(theirs, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in theirs.items():
            expect_equal(ours[key], value, f"{where}.{key}")
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), where
        for place, value in enumerate(theirs):
            expect_equal(ours[place], value, f"{where}[{place}]")
    else:
        assert ours == theirs, where


def go_on_as_told(line: str, cwd: Path, step: int) -> None:
    """Runs the command that an interrupted run has printed; it goes on from that step to the end."""
    command = shlex.split(line.partition("go on with: ")[2])
    done = subprocess.run(
        command, cwd=cwd, env=script_environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"resumed at step {step}" in done.stdout


def inputs(*shape: int) -> Tensor:
    """Numbers near 1, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def turned(x: Tensor) -> Tensor:
    """Rotary positions in complex numbers: neighbouring features as one number, times e^(i t θ). (..., T, D)."""
    count = x.shape[-1] // 2
    theta = torch.tensor([10000 ** (-i / count) for i in range(count)], dtype=torch.float64)
    angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * theta
    z = torch.complex(x[..., 0::2].double(), x[..., 1::2].double()) * torch.exp(1j * angle)
    return torch.stack([z.real, z.imag], -1).flatten(-2).to(x.dtype)
