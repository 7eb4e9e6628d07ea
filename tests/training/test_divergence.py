"""A run that goes wrong ends at once, says where and on what, and leaves what it had when all was well."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.errors import expect_refusal

from hp_lightning import checkpoint
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.schema.train import TrainConfig

NO_DECAY = "regularization.weight_decay=0"  # a rate times decay of 1 and more is refused


def test_an_exploding_run_is_stopped_and_goes_on_with_a_lower_rate(
    first_book: Path, run_script: Callable, tmp_path: Path
) -> None:
    settings = [f"data.path={first_book}", "experiment=smoke", "checkpoint.every_steps=1", "run_dir=run", NO_DECAY]
    assert run_script("train.py", *settings, "max_steps=20", "optim.warmup_steps=5").returncode == 0
    done = run_script("train.py", "resume=run", "optim.lr=3000", "max_steps=60")
    line = expect_refusal(done, "run.diverged", status=1)
    found = re.search(
        r" loss is ([\w.+]+)\b.* step (\d+),.* norm ([\w.+]+),.* (The Ferry to Vesperhold / .*?); .*resume=run "
        r"optim\.lr=750\b",
        line,
    )
    assert found is not None, line
    step = int(found[2])
    assert 20 < step < 60
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    kept = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert kept.step == step - 1, "nothing is saved once it has diverged"
    assert all(weight.isfinite().all() for weight in kept.net().state_dict().values())
    done = run_script("train.py", "resume=run/checkpoints/best.ckpt", "optim.lr=0.001", "max_steps=40")
    assert done.returncode == 0, done.stderr


def test_a_run_that_explodes_before_its_first_checkpoint_begins_again(first_book: Path, run_script: Callable) -> None:
    """As its last line says, with a lower rate, though there is a summary of how it failed."""
    settings = [f"data.path={first_book}", "experiment=smoke", "optim.warmup_steps=0", "run_dir=run", NO_DECAY]
    settings.append("trainer.precision=32-true")
    done = run_script("train.py", *settings, "optim.lr=1e30")
    code = "run.gradients_not_finite"
    expect_refusal(done, code, "resume=run optim.lr=", status=1)
    assert "trainer.precision" not in done.stderr, "it is exact already"
    done = run_script("train.py", "resume=run", "optim.lr=0.001")
    assert done.returncode == 0, done.stderr
    assert "starting over" in done.stdout


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_documents_of_a_step_are_named(
    accumulate: int, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """Here each document has a word of its own, which is its name, too."""
    words = [first + second for first, second in itertools.product("bcdfg", "aeiou")]
    rows = [f"{' '.join([word] * (3 + 7 * number % 40))},{word}" for number, word in enumerate(words)]
    (tmp_path / "corpus.csv").write_text("text,chapter\n" + "\n".join(rows) + "\n")
    cfg = make_config(
        f"data.path={tmp_path / 'corpus.csv'}",
        "data.seq_len=8",
        "data.batch_size=2",
        "tokenizer.min_frequency=1",
        f"trainer.accumulate_grad_batches={accumulate}",
    )
    data = CorpusDataModule(cfg)
    batches = itertools.chain.from_iterable(itertools.repeat(data.train_dataloader()))
    eos = data.tokenizer.vocabulary.eos_id
    for step in range(1, 3 * data.steps_per_epoch):
        seen = set()
        for _, targets in itertools.islice(batches, accumulate):
            for window in targets.tolist():
                seen |= {data.tokenizer.decode([token]).strip() for token in window if token != eos}
        named = data.documents_of_step(step)
        assert seen <= set(named)
        assert len(named) - len(seen) <= 2 * accumulate, "but for documents of which a window has the end alone"
        assert named == [document.name for document in data.corpus.documents["train"] if document.name in named]
