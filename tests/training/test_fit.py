"""A run as a person makes it: `train.py` in a process of its own, and what its folder then holds."""

import csv
import gzip
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import lightning as L
import psutil
import pytest
import torch
from helpers.errors import expect_refusal
from helpers.processes import Finished, launch, run_program
from helpers.runs import scalars
from lightning.pytorch.callbacks import LambdaCallback
from omegaconf import OmegaConf
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hp_lightning import checkpoint
from hp_lightning.data.documents import read_documents
from hp_lightning.data.splits import split_documents
from hp_lightning.schema.train import TrainConfig, to_plain
from hp_lightning.training.module import GPTModule

PLAIN = (int, float, str, bool, type(None))


@pytest.fixture(scope="module")
def finished(once: Callable) -> tuple[Path, str]:
    """A finished run's folder, and what it printed."""
    folder = once("training", train)
    return folder / "run", (folder / "printed").read_text()


def train(cwd: Path) -> None:
    settings = ["experiment=smoke", "optim.lr=0.02", "max_steps=45", "run_dir=run", "seed=7"]
    # Below, the losses are computed again in float32.
    settings += ["trainer.precision=32-true", "trainer.profile=true"]
    done = run_program(cwd, "train.py", *settings, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    (cwd / "printed").write_text(done.stdout)


def rows(run_dir: Path, column: str) -> dict[int, float]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row[column]}


def test_folder_is_complete(finished: tuple[Path, str]) -> None:
    run_dir, _ = finished
    for name in (
        ".hydra/config.yaml",
        ".hydra/overrides.yaml",
        ".hydra/hydra.yaml",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "by_tokens",
        "projector_config.pbtxt",
        "metrics.csv",
        "profile",
        "train.log",
        "summary.json",
    ):
        assert (run_dir / name).exists(), name
    assert list(run_dir.glob("events.out.tfevents.*"))
    assert not [path for path in run_dir.rglob(".*") if path.name not in (".hydra", ".lock")], (
        "something unfinished was left"
    )
    saved = OmegaConf.load(run_dir / ".hydra" / "config.yaml")
    assert saved.seed == 7
    assert "experiment=smoke" in OmegaConf.load(run_dir / ".hydra" / "overrides.yaml")


def test_summary_is_flat_and_consistent(finished: tuple[Path, str]) -> None:
    run_dir, _ = finished
    summary = json.loads((run_dir / "summary.json").read_text())
    assert all(isinstance(value, PLAIN) for value in summary.values())
    assert summary["status"] == "completed"
    assert summary["steps"] == 45
    assert summary["tokens_seen"] == 45 * 8 * 64
    losses = rows(run_dir, "val/loss")
    assert summary["val/loss"] == losses[45], "the last step is validated though 45 is no multiple of 10"
    assert (summary["best/val/loss"], summary["best/step"]) == min((loss, step) for step, loss in losses.items())
    for part in ("val", "best/val", "test"):
        assert summary[f"{part}/perplexity"] == pytest.approx(math.exp(summary[f"{part}/loss"]), rel=1e-4)
    assert 0 < summary["unk_rate"] < 0.1
    assert summary["seconds"] > 0


def test_it_learns(finished: tuple[Path, str]) -> None:
    run_dir, _ = finished
    losses = list(rows(run_dir, "val/loss").values())
    assert losses[-1] < losses[0] - 0.5


def test_losses_are_those_of_the_checkpoint_over_every_token(finished: tuple[Path, str]) -> None:
    run_dir, _ = finished
    trained = checkpoint.load(run_dir / "checkpoints" / "best.ckpt")
    cfg, net = trained.cfg, trained.net()
    splits = split_documents(read_documents(cfg.data).documents, cfg.data)
    summary = json.loads((run_dir / "summary.json").read_text())
    for part, name in (("val", "best/val"), ("test", "test")):
        documents = getattr(splits, part)
        eos_id = trained.tokenizer.vocabulary.eos_id
        token_ids = [[*trained.tokenizer.encode(document.text).tolist(), eos_id] for document in documents]
        stream = torch.tensor([eos_id, *(token_id for found in token_ids for token_id in found)])
        total = 0.0
        with torch.no_grad():
            for begin in range(0, len(stream) - 1, cfg.data.seq_len):
                window = stream[begin : begin + cfg.data.seq_len + 1]
                total += F.cross_entropy(net(window[None, :-1])[0], window[1:], reduction="sum").item()
        loss = total / (len(stream) - 1)
        assert summary[f"{name}/loss"] == pytest.approx(loss, rel=1e-5)
        text = sum(len(document.text) for document in documents)
        assert summary[f"{name}/bits_per_char"] == pytest.approx(total / math.log(2) / text, rel=1e-5)


def test_tensorboard_and_csv_tell_the_same(finished: tuple[Path, str]) -> None:
    run_dir, _ = finished
    shown_of = scalars(run_dir)
    for tag in (
        "train/loss",
        "val/loss",
        "val/perplexity",
        "val/bits_per_char",
        "val/gap",
        "lr",
        "grad_norm",
        "tokens_per_second",
        "mfu",
    ):
        assert dict(shown_of[tag]) == pytest.approx(rows(run_dir, tag), rel=1e-5), tag


def test_utilisation_is_a_share_of_what_the_machine_can_do(finished: tuple[Path, str]) -> None:
    run_dir, _ = finished
    speed, utilisation = rows(run_dir, "tokens_per_second"), rows(run_dir, "mfu")
    assert list(utilisation) == list(speed) == list(range(5, 50, 5))
    assert all(0 < share < 1 for share in utilisation.values())
    of_one_token = [utilisation[step] / speed[step] for step in speed]
    assert of_one_token == pytest.approx([of_one_token[0]] * len(speed), rel=1e-6)


def test_profile_shows_where_the_time_of_a_step_goes(finished: tuple[Path, str]) -> None:
    run_dir, printed = finished
    assert {path.name for path in (run_dir / "profile").iterdir()} == {"trace.json.gz", "operators.txt"}
    with gzip.open(run_dir / "profile" / "trace.json.gz", "rt") as file:
        events = json.load(file)["traceEvents"]
    operators = [event["name"] for event in events if event.get("cat") == "cpu_op"]
    assert {"aten::mm", "aten::_softmax"} & set(operators)
    assert operators.count("aten::embedding") == 5, "one a forward pass: of five steps"
    table = (run_dir / "profile" / "operators.txt").read_text()
    assert "aten::" in table
    assert "Self CPU" in table
    assert "profile    run/profile" in printed


def test_a_run_too_short_for_a_profile_says_so(run_script: Callable, first_book: Path, tmp_path: Path) -> None:
    settings = ["experiment=smoke", f"data.path={first_book}", "max_steps=3", "run_dir=run", "trainer.profile=true"]
    done = run_script("train.py", *settings)
    assert done.returncode == 0, done.stderr
    assert "no profile was made: it starts after 10 passes" in done.stdout
    assert not (tmp_path / "run" / "profile").exists()


def test_checkpoint_is_enough_and_plain(finished: tuple[Path, str]) -> None:
    run_dir, _ = finished
    contents = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert contents["global_step"] == 45
    held = contents["hp_lightning"]
    json.dumps(held)  # plain values only
    trained = checkpoint.load(run_dir / "checkpoints" / "last.ckpt")
    assert to_plain(trained.cfg) == held["config"]
    assert trained.cfg.model.vocab_size == len(trained.tokenizer.vocabulary) == len(held["tokenizer"]["vocabulary"])


def test_the_end_says_what_was_reached_and_what_to_do(finished: tuple[Path, str]) -> None:
    run_dir, printed = finished
    summary = json.loads((run_dir / "summary.json").read_text())
    for expected in (
        f"{summary['best/val/loss']:.4f}",
        f"{summary['unigram/val_loss']:.4f}",
        f"{summary['kneser_ney/val_loss']:.4f}",
        "Does not beat the 5-gram",  # of a few steps
        f"{summary['unk_rate']:.2%}",
        "Sample:",
        "tensorboard --logdir run",
        "generate ckpt=run",
        "train resume=run",
        "step 10/45",
    ):
        assert expected in printed, expected
    assert "\x1b" not in printed, "a log file gets no terminal codes"
    assert "Sample:" in (run_dir / "train.log").read_text()


def test_generate_from_the_newest_run(finished: tuple[Path, str], run_script: Callable, tmp_path: Path) -> None:
    run_dir, _ = finished
    outputs = tmp_path / "outputs" / "runs"
    outputs.mkdir(parents=True)
    shutil.copytree(run_dir, outputs / "mine")
    (outputs / "broken_off").mkdir()  # a run without a checkpoint is no run to write with
    arguments = ["prompt=The lantern, said Wren's Zorkian", "max_new_tokens=30", "num_samples=2", "seed=3"]
    first = run_script("generate.py", *arguments)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("The lantern, said Wren's Zorkian") == 2
    assert "<UNK>" not in first.stdout
    assert "Zorkian" in first.stderr, "unknown words are named"
    assert run_script("generate.py", *arguments).stdout == first.stdout
    assert run_script("generate.py", *arguments[:-1], "seed=4").stdout != first.stdout


def test_run_folders_are_never_overwritten(finished: tuple[Path, str], run_script: Callable) -> None:
    run_dir, _ = finished
    again = run_script("train.py", "experiment=smoke", f"run_dir={run_dir}")
    expect_refusal(again, "output.not_empty", f"run_dir={run_dir} ", f"resume={run_dir},")


def test_a_loss_that_explodes_ends_the_run(run_script: Callable, first_book: Path, tmp_path: Path) -> None:
    done = run_script(
        "train.py",
        "experiment=smoke",
        f"data.path={first_book}",
        "optim.lr=1e30",
        "regularization.weight_decay=0",
        "optim.warmup_steps=0",
        "logger.log_every_steps=1",
        "run_dir=x",
    )
    line = expect_refusal(done, "run.gradients_not_finite", "step 2,", "optim.lr=", status=1)
    summary = json.loads((tmp_path / "x" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert line.endswith(f": {summary['reason']}")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_with_accumulation(
    precision: str, run_script: Callable, first_book: Path, tmp_path: Path
) -> None:
    settings = ["experiment=smoke", f"data.path={first_book}", "max_steps=12", "run_dir=run"]
    done = run_script("train.py", *settings, f"trainer.precision={precision}", "trainer.accumulate_grad_batches=2")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["steps"], summary["tokens_seen"]) == (12, 12 * 2 * 8 * 64)
    assert list(rows(tmp_path / "run", "val/loss")) == [10, 12]
    assert list(rows(tmp_path / "run", "grad_norm")) == [5, 10]


def test_every_pass_of_a_step_draws_its_own_dropout(make_config: Callable[..., TrainConfig]) -> None:
    sizes = ["model.vocab_size=50", "model.d_model=16", "model.num_heads=2", "model.num_layers=1", "model.d_ff=16"]
    wanted = ["regularization.dropout=0.5", "trainer.accumulate_grad_batches=2", "trainer.precision=32-true"]
    cfg = make_config(*sizes, *wanted, "trainer.compile=false")
    torch.manual_seed(1)
    token_ids = torch.randint(50, (2, 8))

    def losses() -> list[float]:
        """Of two steps of two passes each, all with the same batch."""
        found: list[float] = []
        torch.manual_seed(1)
        module = GPTModule(cfg)
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=2,
            accumulate_grad_batches=2,
            callbacks=[LambdaCallback(on_train_batch_end=lambda *_: found.append(module.train_loss.item()))],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader([(token_ids, token_ids)] * 4, batch_size=None))
        return found

    first = losses()
    assert len(set(first)) == 4
    assert losses() == first, "by the seed and the step alone"


def test_early_stopping_keeps_the_best(run_script: Callable, first_book: Path, tmp_path: Path) -> None:
    done = run_script(
        "train.py",
        "experiment=smoke",
        f"data.path={first_book}",
        "run_dir=run",
        "max_steps=1000",
        "trainer.val_every_steps=5",
        "optim=adamw",
        "optim.lr=1e-9",  # the loss stands still
        "regularization.early_stopping_patience=3",
        "optim.warmup_steps=501",
    )
    assert done.returncode == 0, done.stderr
    assert "optim.warmup_steps=501 is more than half of them" in done.stdout
    assert "max_epochs=10 comes before max_steps=1000: max_epochs=null leaves it out" in done.stdout
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "stopped early"
    assert summary["steps"] == summary["best/step"] + 3 * 5


@pytest.mark.skipif(sys.platform != "linux" or torch.accelerator.is_available(), reason="a limit for processors")
def test_a_batch_too_large_for_the_memory_is_one_line(first_book: Path, tmp_path: Path) -> None:
    settings = ["experiment=smoke", f"data.path={first_book}", "run_dir=run", "data.batch_size=100000"]
    process = launch(tmp_path, "train.py", *settings, "model.max_seq_len=1024", "model.num_heads=16")
    program = psutil.Process(process.pid)
    room = program.memory_info().vms + 2 * 1024**3  # what PyTorch has taken by then differs from build to build
    program.rlimit(psutil.RLIMIT_AS, (room, room))
    output, errors = process.communicate(timeout=300)
    line = expect_refusal(
        Finished([], process.returncode, output, errors),
        "machine.out_of_memory",
        "data.seq_len=1024 ",
        "lower data.batch_size",
        status=1,
    )
    [sequences] = re.findall(r"data\.batch_size=(\d+) ", line)
    assert int(sequences) < 100, "as many sequences as the book has"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "lower data.batch_size" in summary["reason"], "what was said, not what PyTorch said"
