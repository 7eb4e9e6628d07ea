"""Compiled training: the same run, resumable, and none the worse where compiling fails."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._functorch.config as functorch
from helpers.processes import launch
from helpers.runs import expect_same_run, finished_run, wait_for_step
from torch._inductor import compile_fx

from hp_lightning.common.hardware import missing_for_compile
from hp_lightning.training.compile import compiled as compiled_function
from hp_lightning.training.compile import keep_compiled_in

SETTINGS = (
    "experiment=smoke",
    "model.num_layers=1",
    "max_steps=60",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.compile=true",
    "trainer.val_every_steps=20",
    "optim.lr=0.01",
    "optim.warmup_steps=10",
    "logger.sample_tokens=5",
    "logger.images=false",
    "run_dir=run",
)

MISSING = missing_for_compile(torch.device("cpu"))
pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=f"{MISSING} is missing"),
    pytest.mark.slow,  # half a minute of compiling
]


@pytest.fixture(scope="module")
def settings(first_book: Path) -> list[str]:
    return [*SETTINGS, f"data.path={first_book}"]


@pytest.fixture(scope="module")
def compiled(settings: list[str], once: Callable) -> Path:
    """The folder of an unbroken compiled run, which said nothing on stderr."""
    return once("compiled", lambda folder: finished_run(folder, *settings)) / "run"


def best_loss(run_dir: Path) -> float:
    return float(json.loads((run_dir / "summary.json").read_text())["best/val/loss"])


def test_a_compiled_run_is_quiet_and_learns_the_same(
    compiled: Path, settings: list[str], cache_home: Path, run_script: Callable, tmp_path: Path
) -> None:
    """As much as a run whose compiler fails, which goes on without."""
    said = (compiled / "train.log").read_text()
    assert re.search("compile +on", said)
    assert "compiling failed" not in said
    kept = cache_home / "hp_lightning" / "compiled"
    assert any((kept / "aotautograd").iterdir()), "what was traced and differentiated is kept for the next run, too"

    done = run_script(
        "train.py", *settings, CXX=str(shutil.which("false")), TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "fresh")
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    [warning] = [line for line in done.stdout.splitlines() if "compiling failed; training without" in line]
    assert "trainer.compile=false" in warning
    assert warning in (tmp_path / "run" / "train.log").read_text()
    assert best_loss(compiled) == pytest.approx(best_loss(tmp_path / "run"), rel=0.01)
    assert best_loss(compiled) < 6, "what knows nothing has 7, the logarithm of the vocabulary"


def test_a_compiled_run_killed_and_resumed_is_the_unbroken_run(
    compiled: Path, settings: list[str], run_script: Callable, tmp_path: Path
) -> None:
    """Dropout draws the same numbers, compiled or resumed."""
    process: subprocess.Popen[str] = launch(tmp_path, "train.py", *settings)
    wait_for_step(tmp_path / "run", 30)
    process.kill()
    process.communicate()
    done = run_script("train.py", "resume=run")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    [resumed_at] = re.findall(r"resumed at step (\d+)", done.stdout)
    assert int(resumed_at) in (20, 40)
    assert "compile    on" in done.stdout
    expect_same_run(tmp_path / "run", compiled)


def test_a_gradient_that_cannot_be_compiled_ends_no_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compile_inner = compile_fx._compile_fx_inner

    def broken(*arguments: Any, **settings: Any) -> Any:
        if settings.get("is_backward"):
            raise RuntimeError("no kernel for this gradient")
        return compile_inner(*arguments, **settings)

    monkeypatch.setattr(compile_fx, "_compile_fx_inner", broken)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(functorch, "force_non_lazy_backward_lowering", False)
    monkeypatch.setattr(functorch, "autograd_cache_allow_custom_autograd_functions", False)
    keep_compiled_in(tmp_path)
    x = torch.randn(64, requires_grad=True)
    with caplog.at_level("WARNING", "hp_lightning"):
        compiled_function(lambda x: (x.sin() * x).sum(), "cpu")(x).backward()
    torch.testing.assert_close(x.grad, (x.cos() * x + x.sin()).detach())
    [warning] = [record.getMessage() for record in caplog.records]
    assert "no kernel for this gradient" in warning
