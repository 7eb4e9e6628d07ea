"""`hp-lightning sentiment`: the words that come next, calibrated or not; finetuning with labels; files in and out."""

import csv
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.errors import refused
from helpers.processes import run_program
from hydra import compose, initialize_config_dir

from hp_lightning import checkpoint
from hp_lightning.common.files import bundled
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.migrations import FORMAT
from hp_lightning.schema.sentiment import sentiment_config
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.schema.train import TrainConfig, to_plain
from hp_lightning.tasks.sentiment.finetune import fit_temperature
from hp_lightning.tasks.sentiment.labels import LabelReader
from hp_lightning.tasks.sentiment.metrics import measure
from hp_lightning.tasks.sentiment.naive_bayes import word_evidence
from hp_lightning.tasks.sentiment.run import run
from hp_lightning.tasks.sentiment.zero_shot import NextWordReader, WordLists, known_words, next_word_log_probs, word_ids
from hp_lightning.tokenizers import Tokenizer, learn_tokenizer

GOOD, BAD = ["good", "great", "fine"], ["bad", "awful", "poor"]
THINGS = ["film", "plot", "cast", "song", "joke"]


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts of which a single word says what they are, and their labels by turns."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        label, words = (("positive", GOOD), ("negative", BAD))[number % 2]
        found.append((f"a {draw.choice(words)} {draw.choice(THINGS)} with a {draw.choice(THINGS)} .", label))
    return found


def tokenizer(kind: str) -> Tokenizer:
    cfg = TokenizerConfig(kind=kind, vocab_size=None, min_frequency=1, lowercase=False, from_run=None)
    texts = [f"{text} it is {label} the" for text, label in sentences(40, seed=1)]
    return learn_tokenizer(cfg, texts).tokenizer


def network(cfg: TrainConfig, vocab_size: int) -> GPT:
    torch.manual_seed(1)
    cfg.model.vocab_size = vocab_size
    net = GPT(cfg.model)
    for parameter in net.parameters():
        if parameter.dim() == 2:  # larger than initially, so that the tokens before make a difference
            torch.nn.init.normal_(parameter, std=0.3)
    return net.eval()


@pytest.fixture(scope="module")
def small(make_config: Callable[..., TrainConfig]) -> Callable[[], TrainConfig]:
    sizes = ["model.d_model=32", "model.num_heads=2", "model.num_layers=1", "model.d_ff=64", "model.max_seq_len=32"]
    return lambda: make_config(*sizes, "data.path=reviews.csv")


@pytest.fixture
def ckpt(small: Callable[[], TrainConfig], tmp_path: Path) -> Path:
    """A checkpoint of a language model with random weights."""
    words, cfg = tokenizer("word"), small()
    net = network(cfg, len(words.vocabulary))
    contents = {
        "state_dict": {f"net.{name}": weights for name, weights in net.state_dict().items()},
        **{"optimizer_states": [], "schedule": {}, "loops": {}, "callbacks": {}, "global_step": 3},
        checkpoint.CHECKPOINT_KEY: {
            "format": FORMAT,
            "config": to_plain(cfg),
            "tokenizer": words.state(),
            "corpus": "",
            "record": {"best": [], "validations_since_best": 0, "validation_due": False},
        },
    }
    torch.save(contents, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def write_reviews(path: Path, count: int, seed: int) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *sentences(count, seed)])
    return path


def sentiment(*overrides: str) -> None:
    with initialize_config_dir(str(bundled("conf")), version_base="1.3"):
        cfg = compose("sentiment", overrides=["positive=[good,great,lovely]", "negative=[bad,awful]", *overrides])
    run(sentiment_config(cfg))


# The words that come next


@pytest.mark.parametrize("kind", ["word", "char", "bpe"])
def test_word_probabilities_are_those_of_their_tokens(kind: str, small: Callable[[], TrainConfig]) -> None:
    found = tokenizer(kind)
    net = network(small(), len(found.vocabulary))
    texts = ["a good film", "", "a plot with a joke"]
    words = ["good", "great", "bad"]
    contexts = [[found.vocabulary.eos_id, *found.encode(text).tolist()] for text in texts]
    ids = [word_ids(found, word) for word in words]
    log_probs = next_word_log_probs(net, contexts, ids, context=32)
    for row, context in enumerate(contexts):
        for column, word in enumerate(ids):
            logits = net(torch.tensor([[*context, *word]]))[0].double().log_softmax(dim=-1)
            expected = sum(logits[len(context) - 1 + place, token] for place, token in enumerate(word))
            assert log_probs[row, column] == pytest.approx(expected.item(), abs=1e-4)
    spoken = found.decode([*found.encode("a film").tolist(), *ids[0]])
    assert spoken == "a film good", "the word follows as it would in a text"


def test_long_texts_lose_their_beginning(small: Callable[[], TrainConfig]) -> None:
    found = tokenizer("char")
    net = network(small(), len(found.vocabulary))
    ids = [word_ids(found, "good")]
    long, end = ([1, *found.encode(text).tolist()] for text in ("a film " * 20, "film " + "a film " * 9))
    assert torch.equal(next_word_log_probs(net, [long], ids, 32), next_word_log_probs(net, [end], ids, 32))


def test_slide_and_calibration(small: Callable[[], TrainConfig]) -> None:
    found = tokenizer("word")
    net = network(small(), len(found.vocabulary))
    lists = WordLists.known_to(found, ["good", "great", "lovely"], ["bad"])
    assert lists == WordLists(["good", "great"], ["bad"])

    def next_words(text: str) -> list[float]:
        token_ids = torch.tensor([[found.vocabulary.eos_id, *found.encode(text).tolist()]])
        probabilities = net(token_ids)[0, -1].softmax(dim=-1)
        return [probabilities[word_ids(found, word)[0]].item() for word in ("good", "great", "bad")]

    good, great, bad = next_words("a film .")
    slide = NextWordReader(net, found, lists, "", False, 32)
    assert slide.probabilities("a film .") == pytest.approx((good + great, bad), rel=1e-4)
    share = (good + great) / (good + great + bad)
    assert float(slide.log_odds(["a film ."]).sigmoid()) == pytest.approx(share, rel=1e-4)

    calibrated = NextWordReader(net, found, lists, "it is", True, 32)
    with_text, without = next_words("a film . it is"), next_words("it is")
    good, great, bad = (math.log(p / q) for p, q in zip(with_text, without, strict=True))
    assert float(calibrated.log_odds(["a film ."])) == pytest.approx((good + great) / 2 - bad, abs=1e-4)
    assert calibrated.log_odds([""]).tolist() == [0.0], "without a text there is nothing to go by"


def test_words_too_unlikely_for_a_float_are_compared(small: Callable[[], TrainConfig]) -> None:
    found = tokenizer("word")
    net = network(small(), len(found.vocabulary))
    with torch.no_grad():
        net.head.weight.mul_(1e4)
    log_odds = NextWordReader(net, found, WordLists(["good"], ["bad"]), "", False, 32).log_odds(["a film", ""])
    assert log_odds.isfinite().all()
    assert (log_odds != 0).all()


def test_lists_without_a_known_word_are_refused() -> None:
    with refused("sentiment.unknown_words", "negative="):
        WordLists.known_to(tokenizer("word"), ["good"], ["dreadful", "good dreadful"])
    assert known_words(tokenizer("bpe"), ["dreadful"]) == ["dreadful"]


# Finetuning


def test_counting_is_naive_bayes_by_the_other_texts() -> None:
    texts = [np.array(ids) for ids in ([2, 3, 3], [3], [3, 4])]
    first, second, third = word_evidence(texts, [True, True, False], vocab_size=5)
    # Shares of the texts that have the word, and one more: of 6 and 7, of 7 and 7, of 8 and 5.
    assert first.tolist() == pytest.approx([math.log((1 / 6) / (1 / 7)), *[math.log((2 / 6) / (2 / 7))] * 2])
    assert second.tolist() == pytest.approx([math.log((2 / 7) / (2 / 7))])
    assert third.tolist() == pytest.approx([math.log((3 / 8) / (1 / 5)), math.log((1 / 8) / (1 / 5))])


# How far it can be trusted


def test_measures() -> None:
    probabilities = torch.tensor([0.95, 0.95, 0.95, 0.65, 0.25, 0.25, 0.65, 0.35]).double()
    labels = torch.tensor([True, True, False, True, False, False, False, True])
    found = measure(probabilities, labels)
    assert (found.rows, found.accuracy) == (8, 5 / 8)
    assert found.f1 == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))
    # Of the 16 pairs: 0.95 twice over three and beside one, 0.65 over two and beside one, 0.35 over two.
    assert found.auc == pytest.approx((2 * 3.5 + 2.5 + 2) / 16)
    # Confidences 0.95 (2 of 3 right), 0.65 (1 of 3), 0.75 (2 of 2).
    gap = (3 * abs(0.95 - 2 / 3) + 3 * abs(0.65 - 1 / 3) + 2 * abs(0.75 - 1)) / 8
    assert found.calibration_error == pytest.approx(gap, abs=1e-5)


def test_calibration_is_of_the_confidence_in_either_sentiment() -> None:
    """What is said with 75% is right three times of four, though more often where it is called positive."""
    probabilities = torch.tensor([0.75, 0.75, 0.25, 0.25]).double()
    found = measure(probabilities, torch.tensor([True, True, True, False]))
    assert found.mean_confidence == found.accuracy == 0.75
    assert found.calibration_error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_temperature_is_found(temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    honest = 2 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    labels = torch.rand(20_000, generator=generator, dtype=torch.float64) < honest.sigmoid()
    assert fit_temperature(honest * temperature, labels) == pytest.approx(temperature, rel=0.05)


# As a person uses it


def test_text_is_predicted_and_what_is_unknown_named(ckpt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentiment(f"ckpt={ckpt}", "text='a  good \"movie\"'")
    said = capsys.readouterr()
    assert 'a good "movie"' in said.out
    assert "P(next word is positive) = " in said.out
    assert "confidence" in said.out
    assert "read as <UNK>: " in said.err
    assert "movie" in said.err
    assert "left out of the lists: lovely" in said.err


def test_a_model_is_finetuned_and_predicted(ckpt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ckpt.parent
    before = ckpt.read_bytes()
    learned, held_out = write_reviews(folder / "a.csv", 200, seed=2), write_reviews(folder / "b.csv", 100, seed=3)
    settings = [
        "finetune.networks=2",
        "finetune.epochs=8",
        "finetune.lr=0.01",
        "finetune.dropout=0",
        "finetune.embedding_dropout=0",
        "finetune.word_deletion=0.1",
    ]
    sentiment(f"ckpt={ckpt}", f"train={learned}", *settings)
    finetuned = folder / "sentiment.ckpt"
    assert finetuned.is_file()
    assert ckpt.read_bytes() == before
    capsys.readouterr()

    sentiment(f"ckpt={finetuned}", f"evaluate={held_out}")
    report = json.loads((folder / "sentiment.sentiment_label.b.json").read_text())
    assert report["accuracy"] >= 0.97
    assert report["auc"] >= 0.97
    said = capsys.readouterr()
    assert f"accuracy {report['accuracy']:.1%}" in said.out
    seen = {text for text, _ in sentences(200, seed=2)}
    again = sum(text in seen for text, _ in sentences(100, seed=3))
    assert 0 < again < 100
    assert f"{again} of 100 rows were in the training data" in said.err

    unseen = folder / "unseen.csv"
    unseen.write_text("text,label\na new good film,positive\na new bad film,negative\n", encoding="utf-8")
    sentiment(f"ckpt={finetuned}", f"evaluate={unseen}", f"out={folder / 'unseen'}")
    assert "training data" not in capsys.readouterr().err

    with refused("checkpoint.finetuned", finetuned):
        checkpoint.load(finetuned)
    with refused("sentiment.other_method", "method=calibrated ", finetuned):
        sentiment(f"ckpt={finetuned}", "text=a", "method=calibrated")

    sentiment(f"ckpt={finetuned}", "text=what a poor film")
    assert "negative, confidence" in capsys.readouterr().out

    sentiment(f"ckpt={finetuned}", f"file={held_out}", f"out={folder / 'scores.csv'}")
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["text"], row["label"]) for row in rows] == sentences(100, seed=3)
    assert sum(row["label"] == row["sentiment"] for row in rows) == round(100 * report["accuracy"])
    for row in rows:
        probability = float(row["positive_probability"])
        assert float(row["confidence"]) == pytest.approx(max(probability, 1 - probability), abs=1e-4)


def test_each_network_keeps_back_rows_of_its_own(ckpt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept_back: list[list[str]] = []
    log_odds = LabelReader.log_odds

    def noted(reader: LabelReader, texts: list[str]) -> torch.Tensor:
        kept_back.append(texts)
        return log_odds(reader, texts)

    monkeypatch.setattr(LabelReader, "log_odds", noted)
    reviews = ckpt.parent / "reviews.csv"
    rows = [(f"{word} {thing} {place}", label) for word, label in (("good", "positive"), ("bad", "negative"))
            for thing in THINGS for place in (1, 2)]  # fmt: skip
    with reviews.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    settings = ["finetune.networks=3", "finetune.epochs=1", "finetune.val_fraction=0.2"]
    sentiment(f"ckpt={ckpt}", f"train={reviews}", *settings)
    assert [len(texts) for texts in kept_back] == [4, 4, 4]
    assert len({text for texts in kept_back for text in texts}) == 12, "no row twice"
    assert all(sum(text.startswith("good") for text in texts) == 2 for texts in kept_back), "of each sentiment"


def test_first_weights_are_those_of_the_model_if_wanted(ckpt: Path) -> None:
    reviews = write_reviews(ckpt.parent / "reviews.csv", 40, seed=2)
    weights = {}
    for kept in ("true", "false"):
        target = ckpt.parent / f"{kept}.ckpt"
        settings = [
            "finetune.networks=1",
            "finetune.epochs=1",
            "finetune.lr=1e-9",
            "finetune.weight_decay=0",
            f"out={target}",
        ]
        sentiment(f"ckpt={ckpt}", f"train={reviews}", f"finetune.from_weights={kept}", *settings)
        contents = torch.load(target, weights_only=True)["hp_lightning_sentiment"]
        weights[kept] = contents["networks"][0]["head.weight"]
    original = checkpoint.load(ckpt).net().head.weight.detach()
    torch.testing.assert_close(weights["true"], original)
    assert not torch.allclose(weights["false"], original, atol=0.1)


def test_columns_that_the_rows_have_already_are_kept(ckpt: Path) -> None:
    reviews, scores = ckpt.parent / "reviews.csv", ckpt.parent / "scores.csv"
    reviews.write_text("text,sentiment\na good film,positive\n", encoding="utf-8")
    sentiment(f"ckpt={ckpt}", f"file={reviews}", f"out={scores}")
    with scores.open(newline="") as file:
        [row] = csv.DictReader(file)
    assert row["sentiment"] == "positive"
    assert row["sentiment_predicted"] in ("positive", "negative")


def test_a_rate_that_is_too_high_leaves_no_model(ckpt: Path) -> None:
    reviews = write_reviews(ckpt.parent / "reviews.csv", 40, seed=2)
    with refused("sentiment.diverged", "finetune.lr=1e+30:"):
        sentiment(f"ckpt={ckpt}", f"train={reviews}", "finetune.networks=1", "finetune.lr=1e30")
    assert not (ckpt.parent / "sentiment.ckpt").exists()


@pytest.mark.parametrize(
    ("overrides", "code", "named"),
    [
        ([], "config.missing", ["text=", "file=", "evaluate=", "train="]),
        (["text=a", "file=b.csv"], "config.conflict", ["text", "file"]),
        (["text=a", "method=vibes"], "config.unknown_choice", ["method=vibes "]),
        (["text=a", "positive=[]"], "config.empty", ["positive=[] ", "[good,great]"]),
        (["text=a", "positive=[lovely]"], "sentiment.unknown_words", ["positive=[...]"]),
        (["file=gone.csv"], "data.not_found", ["file=gone.csv "]),
        (
            ["evaluate={numbers}"],
            "sentiment.no_label_column",
            ["evaluate={numbers} ", "text, number", "data.label_column"],
        ),
        (["evaluate={numbers}", "data.label_column=number"], "sentiment.unknown_label", ["line 2:", "'7'"]),
        (["evaluate={one}"], "sentiment.one_label", ["evaluate={one}:"]),
        (["train={one}"], "sentiment.too_few_rows", ["train= ", " 0 negative "]),
        (["train={one}", "finetune.epochs=0"], "config.out_of_range", ["finetune.epochs=0"]),
        (["train={one}", "finetune.distillation=2"], "config.out_of_range", ["finetune.distillation=2.0 "]),
        (["file={one}", "out=no/such/folder.csv"], "output.no_folder", ["out=no/such/folder.csv "]),
        (["train={one}", "out=no/such/folder.ckpt"], "output.no_folder", ["out=no/such/folder.ckpt ", "no/such:"]),
        (["file={one}", "out={folder}"], "output.is_folder", ["out={folder} "]),
        (["file={one}", "out={one}"], "output.is_source", ["out={one} "]),
        (["train={one}", "out={one}"], "output.is_source", ["out={one} "]),
        (["train={one}", "out={numbers}"], "output.would_be_lost", ["out={numbers} "]),
        (["text='   '"], "config.empty", ['text="   " ']),
        (["train={one}", "out={ckpt}"], "output.is_source", ["out={ckpt} "]),
        (["file={gap}"], "data.blank", ["line 3:", " text:"]),
        (["text=a", "out=a.csv"], "config.conflict", ["out= ", "text= "]),
        (["text=a", "positive=[good]", "negative=[good]"], "config.conflict", ["positive", "negative", " good:"]),
    ],
)
def test_refusals(overrides: list[str], code: str, named: list[str], ckpt: Path, tmp_path: Path) -> None:
    files = {
        "numbers": "text,number\na film,7\n",
        "one": "text,label\n" + 20 * "a film,positive\n",
        "gap": "text,label\na film,positive\n ,negative\n",
    }
    for name, content in files.items():
        (tmp_path / f"{name}.csv").write_text(content, encoding="utf-8")
    paths = {"folder": tmp_path, "ckpt": ckpt} | {name: tmp_path / f"{name}.csv" for name in files}
    before = {path: path.read_bytes() for path in (ckpt, *tmp_path.glob("*.csv"))}
    with refused(code, *(thing.format(**paths) for thing in named)):
        sentiment(f"ckpt={ckpt}", *(override.format(**paths) for override in overrides))
    assert before == {path: path.read_bytes() for path in before}
    assert not list(tmp_path.rglob("*unfinished"))


def test_damaged_files_are_refused(ckpt: Path) -> None:
    ckpt.write_bytes(ckpt.read_bytes()[:-100])
    with refused("checkpoint.damaged", ckpt):
        sentiment(f"ckpt={ckpt}", "text=a film")


def test_lines_of_standard_input_are_predicted(ckpt: Path, tmp_path: Path) -> None:
    given = ["file=-", "positive=[good]", "negative=[bad]"]
    done = run_program(tmp_path, "sentiment", f"ckpt={ckpt}", *given, text='a "good", great film\n\n   a bad plot\n')
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["text"] for row in rows] == ['a "good", great film', "   a bad plot"]
    assert {row["sentiment"] for row in rows} <= {"positive", "negative"}
