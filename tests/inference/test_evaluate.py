"""`hp-lightning evaluate`: every token once, with the context that was asked for; and what is copied."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.errors import refused
from hydra import compose, initialize_config_dir
from torch.nn import functional as F

from hp_lightning.checkpoint import load
from hp_lightning.common.files import bundled
from hp_lightning.data.dataset import DocumentFacts
from hp_lightning.inference.evaluate import evaluate
from hp_lightning.inference.metrics import TokenScores, copied_share, metrics_by_document, score_tokens
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.evaluate import evaluate_config
from hp_lightning.schema.model import ModelConfig

SEQ_LEN = 6


@pytest.fixture(scope="module")
def gpt() -> GPT:
    torch.manual_seed(1)
    sizes = {"vocab_size": 13, "d_model": 16, "num_heads": 2, "num_layers": 2, "d_ff": 32, "max_seq_len": SEQ_LEN}
    form = {"position": "rotary", "norm": "rms", "norm_position": "pre", "activation": "gelu"}
    net = GPT(
        ModelConfig(
            **sizes,
            **form,
            bias=False,
            tie_embeddings=True,
            qk_norm=False,
        )
    )
    for parameter in net.parameters():
        if parameter.dim() == 2:  # larger than initially, so that the tokens before make a difference
            torch.nn.init.normal_(parameter, std=0.5)
    return net.eval()


def expected(net: GPT, stream: np.ndarray, place: int, begin: int) -> tuple[float, int]:
    """Loss and rank of the token at `place` by a forward pass over what stands before it from `begin` on."""
    logits = net(torch.from_numpy(stream[begin:place]).long()[None])[0, -1]
    wanted = int(stream[place])
    return float(F.cross_entropy(logits, torch.tensor(wanted))), sum(logit > logits[wanted] for logit in logits)


@pytest.mark.parametrize("length", [2, 3, 6, 7, 8, 9, 25])
@pytest.mark.parametrize("stride", [1, 2, 4, 6])
def test_every_token_is_predicted_from_its_window(gpt: GPT, length: int, stride: int) -> None:
    stream = np.random.default_rng(length).integers(0, 13, length).astype(np.int32)
    with torch.no_grad():
        scores = score_tokens(gpt, stream, SEQ_LEN, stride, batch_size=2)
        assert len(scores.losses) == len(scores.ranks) == length - 1
        for place in range(1, length):
            window = max(-(-(place - SEQ_LEN) // stride), 0)  # the first in which it is predicted
            begin = window * stride
            assert place <= SEQ_LEN or place - begin >= SEQ_LEN - stride + 1
            loss, rank = expected(gpt, stream, place, begin)
            assert scores.losses[place - 1] == pytest.approx(loss, abs=1e-5)
            assert scores.ranks[place - 1] == rank


def test_documents_have_the_figures_of_their_own_tokens() -> None:
    eos, unk = 0, 1
    stream = np.array([0, 5, 1, 0, 7, 7, 7, 0], np.int32)
    scores = TokenScores(np.array([1.0, 2, 3, 4, 4, 4, 8]), np.array([0, 5, 0, 0, 4, 9, 0]))
    documents = [DocumentFacts("one", 4), DocumentFacts("two", 10)]
    (first, of_first), (second, of_second) = metrics_by_document(scores, stream, documents, eos, unk)
    assert (first, of_first.tokens, of_first.loss, of_first.perplexity) == ("one", 3, 2.0, pytest.approx(math.exp(2)))
    assert of_first.bits_per_char == pytest.approx(6 / math.log(2) / 4)
    assert (of_first.unk_rate, of_first.accuracy_1, of_first.accuracy_5) == pytest.approx((1 / 3, 2 / 3, 2 / 3))
    assert (second, of_second.tokens, of_second.loss, of_second.unk_rate) == ("two", 4, 5.0, 0.0)
    assert (of_second.accuracy_1, of_second.accuracy_5) == (0.5, 0.75)


@pytest.mark.parametrize(
    ("written", "n", "share"),
    [
        (["a b c d"], 2, 2 / 3),  # "a b", "b c"; the source has "c" and "d" in other documents
        (["a b c d"], 4, 0.0),
        (["a b", "a b", "x y"], 2, 2 / 3),  # each counts as often as it was written
        (["a b <UNK> d"], 2, 1.0),  # nobody knows what the word was
        (["a,b"], 3, 0.0),
        (["a , b"], 3, 0.0),
        (["a"], 2, None),
    ],
)
def test_copied_share(written: list[str], n: int, share: float | None) -> None:
    assert copied_share(written, ["a b c", "d e", "a<UNK>"], n) == (None if share is None else pytest.approx(share))


# With a real run


@pytest.fixture(scope="module")
def run_dir(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(small_run, tmp_path_factory.mktemp("evaluation") / "run"))


def evaluated(run_dir: Path, *overrides: str) -> None:
    with initialize_config_dir(str(bundled("conf")), version_base="1.3"):
        cfg = compose("evaluate", overrides=[f"ckpt={run_dir}", "num_samples=2", "max_new_tokens=30", *overrides])
    evaluate(evaluate_config(cfg))


def test_agrees_with_the_run(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated(run_dir, "stride=16")
    report = json.loads((run_dir / "checkpoints" / "best.evaluation.json").read_text())
    summary = json.loads((run_dir / "summary.json").read_text())
    assert report["trained_on_this_corpus"]
    for split, name in (("val", "best/val"), ("test", "test")):
        found = report["splits"][split]
        for metric in ("loss", "bits_per_char"):
            assert found[metric] == pytest.approx(summary[f"{name}/{metric}"], abs=1e-4)
        assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
        assert 0 < found["accuracy_1"] < found["accuracy_5"] < 1
        assert found["sliding"]["tokens"] == found["tokens"]
        assert found["sliding"]["loss"] != found["loss"]
        weighted = sum(document["loss"] * document["tokens"] for document in found["documents"]) / found["tokens"]
        assert weighted == pytest.approx(found["sliding"]["loss"])
        assert sum(document["characters"] for document in found["documents"]) == found["characters"]
    assert report["splits"]["val"]["unk_rate"] == pytest.approx(summary["unk_rate"])
    assert report["copied_n_grams"].keys() == {"5", "8", "12"}
    said = capsys.readouterr().out
    assert f"{summary['best/val/loss']:.4f}" in said
    assert "trained on: what" not in said


def test_other_corpus_is_read_as_it_is_and_told_apart(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.csv"
    sentences = [f"{number},The lantern was lit again by number {number}." for number in range(60)]
    other.write_text("\n".join(["letter,line", *sentences]), encoding="utf-8")
    data = [f"data.path={other}", "data.text_column=line", "data.group_columns=[letter]"]
    evaluated(run_dir, *data, "splits=[train,val,test]")
    report = json.loads((run_dir / "checkpoints" / "best.evaluation.other.json").read_text())
    assert not report["trained_on_this_corpus"]
    assert "not the corpus that this model was trained on" in capsys.readouterr().out
    documents = [document for split in report["splits"].values() for document in split["documents"]]
    assert len(documents) == 60, "the three parts are the whole corpus"
    assert report["copied_n_grams"] == {}, "from the text that it was trained on, which is not here"


def test_a_short_text_is_cut_as_told_and_measured_elsewhere(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "*.csv").write_text("text\nhi\n", encoding="utf-8")
    target = tmp_path / "figures.json"
    data = [f"data.path={tmp_path}/*.csv", "data.group_columns=[]", "data.text_column=text"]
    with refused("data.empty_split", "data.split=tail"):
        evaluated(run_dir, *data)
    data += ["data.split=tail", "data.val_fraction=0.5", "data.test_fraction=0"]
    evaluated(run_dir, *data, f"out={target}")
    assert json.loads(target.read_text())["splits"].keys() == {"val"}
    with refused("output.is_source", f"out={tmp_path}/*.csv "):
        evaluated(run_dir, *data, f"out={tmp_path}/*.csv")
    evaluated(run_dir, *data)
    assert (run_dir / "checkpoints" / "best.evaluation._.json").is_file(), "a pattern's stars are in no file's name"


@pytest.mark.parametrize(
    ("overrides", "code", "named"),
    [
        (["stride=65"], "evaluate.stride_too_long", ["stride=65 ", " 64 "]),
        (["splits=[all]"], "config.unknown_choice", ["splits=[all] "]),
        (["splits=[]"], "config.unknown_choice", ["splits=[] "]),
        (["stride=0"], "config.out_of_range", ["stride=0"]),
        (["data.split=middle"], "config.unknown_choice", ["data.split=middle "]),
        (["data.val_fraction=1"], "config.out_of_range", ["data.val_fraction=1.0 "]),
        (["out=no/such/folder.json"], "output.no_folder", ["out=no/such/folder.json "]),
        (["num_samples=100000000"], "machine.out_of_memory", ["num_samples=100000000 "]),
        (["data.path=gone.csv"], "data.not_found", ["data.path=gone.csv "]),
    ],
)
def test_refusals(run_dir: Path, overrides: list[str], code: str, named: list[str]) -> None:
    with refused(code, *named):
        evaluated(run_dir, *overrides)


def test_a_copy_of_the_checkpoint_is_enough(run_dir: Path, run_script: Callable, tmp_path: Path) -> None:
    shutil.copy(run_dir / "checkpoints" / "best.ckpt", tmp_path / "a, 'b'.ckpt")
    done = run_script("evaluate", "ckpt=a, 'b'.ckpt", "num_samples=1", "max_new_tokens=5")
    assert done.returncode == 0, done.stderr
    assert (
        load(run_dir / "checkpoints" / "best.ckpt").step
        == json.loads((tmp_path / "a, 'b'.evaluation.json").read_text())["step"]
    )
