"""Short runs that find something out, and say what."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.in_process import run_in_process

import hp_lightning as hp

SMALL = [
    *("model.d_model=32", "model.num_layers=1", "model.d_ff=64", "model.max_seq_len=16", "logger=csv"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true"),
]


@pytest.fixture
def debug(first_book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[hp.Run, str]]:
    def run(mode: str, *overrides: str, **settings: Any) -> tuple[hp.Run, str]:
        run = hp.train(first_book, overrides=[*SMALL, f"debug={mode}", *overrides], run_dir=str(tmp_path / "run"),
                       **settings)  # fmt: skip
        [outcome] = [line for line in (tmp_path / "run" / "train.log").read_text().splitlines() if "debug  " in line]
        return run, outcome

    return run


def test_overfit_tells_whether_a_few_sequences_are_learned(debug: Callable[..., tuple[hp.Run, str]]) -> None:
    run, outcome = debug("overfit")
    losses = [row["train/loss"] for row in run.metrics if row["train/loss"] is not None]
    assert losses[-1] < 0.1 < losses[0]
    assert run.summary["val/loss"] > 3, "which it has learned instead of the language"
    assert "known by heart" in outcome


def test_overfit_tells_that_nothing_is_learned(debug: Callable[..., tuple[hp.Run, str]]) -> None:
    _, outcome = debug("overfit", "optim.lr=1e-9", "optim.muon_lr=1e-9", max_steps=20)
    assert "is wrong" in outcome


def test_fast_goes_through_every_stage(debug: Callable[..., tuple[hp.Run, str]]) -> None:
    run, outcome = debug("fast")
    assert run.summary["steps"] == 3
    assert {"val/loss", "test/loss"} <= run.summary.keys()
    assert "every stage" in outcome


def test_profile_says_where_the_time_goes(debug: Callable[..., tuple[hp.Run, str]]) -> None:
    run, outcome = debug("profile")
    assert (run.folder / "profile" / "operators.txt").is_file()
    assert str(run.folder / "profile") in outcome


def test_anomaly_names_the_operation(debug: Callable[..., tuple[hp.Run, str]]) -> None:
    class Broken(L.Callback):
        """From the fourth step on, the gradient of a root at 0 makes NaN of another."""

        def on_train_batch_start(self, trainer: L.Trainer, module: Any, *_: Any, **__: Any) -> None:
            if trainer.global_step == 3:
                loss = module._training_loss
                module._training_loss = lambda *batch: loss(*batch) + (module.net.head.weight * 0).sum().sqrt()

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with pytest.raises(RuntimeError, match="MulBackward0"):
        debug("anomaly", callbacks=[Broken()])
    assert torch.is_anomaly_enabled() is False


def test_anomaly_says_that_nothing_was_wrong(debug: Callable[..., tuple[hp.Run, str]]) -> None:
    _, outcome = debug("anomaly", max_steps=5)
    assert "no gradient was NaN or infinite in 5 steps" in outcome


def test_from_is_a_word_of_the_command_line(tmp_path: Path) -> None:
    done = run_in_process(tmp_path, "train", "from=nowhere")
    assert done.returncode == 2
    assert "error[run.not_found]: from=nowhere" in done.stderr
    done = run_in_process(tmp_path, "train", "from=latest", "resume=latest")
    assert "error[config.conflict]" in done.stderr
