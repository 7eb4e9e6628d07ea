"""`hp-lightning corpus` as a person starts it, and `tokenizer.from_run` in it and in train.py."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.errors import expect_refusal, refused
from helpers.in_process import run_in_process
from helpers.processes import Finished, run_program

from hp_lightning import checkpoint
from hp_lightning.checkpoint import LoadedCheckpoint
from hp_lightning.data.dataset import tokenize_corpus
from hp_lightning.data.documents import read_documents
from hp_lightning.data.splits import split_documents
from hp_lightning.schema.train import TrainConfig
from hp_lightning.training.run import chosen_tokenizer

MakeConfig = Callable[..., TrainConfig]
TINY = ("experiment=smoke", "max_steps=2", "trainer.val_every_steps=2", "logger.tensorboard=false", "data.seq_len=32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder."""
    path = tmp_path / "here"
    path.mkdir()
    return path


@pytest.fixture
def look(folder: Path, tmp_path: Path) -> Callable[..., Finished]:
    """Runs the command in the empty folder."""

    def looked(*arguments: str) -> Finished:
        cache = f"data.cache_dir={tmp_path / 'cache'}"
        return run_program(folder, "corpus", *arguments, cache)

    return looked


def shown(look: Callable[..., Finished], *arguments: str) -> str:
    done = look(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def rows(output: str, first: str) -> list[list[str]]:
    """The cells of the tables' rows that begin with a word."""
    lines = [re.split(r"\s*[│┃]\s*", line.strip()) for line in output.splitlines()]
    return [cells[1:] for cells in lines if cells[0] == first and len(cells) > 1]


def test_tables_tell_of_the_corpus(
    look: Callable[..., Finished], folder: Path, first_book: Path, make_config: MakeConfig
) -> None:
    output = shown(look, str(first_book))
    cfg = make_config(f"data.path={first_book}")
    splits = split_documents(read_documents(cfg.data).documents, cfg.data)
    corpus = tokenize_corpus(cfg.data, cfg.tokenizer)
    for part, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        texts = [document.text for document in getattr(splits, part)]
        predicted = corpus.streams[part][1:]
        unknown = (predicted == corpus.tokenizer.vocabulary.unk_id).mean()
        numbers = (len(texts), sum(len(text.split()) for text in texts), sum(map(len, texts)), len(predicted))
        parts, coverage = rows(output, name)
        assert parts == [*(f"{number:,}" for number in numbers), f"{unknown:.2%}"]
        assert coverage == [f"{row.known[part]:.1%}" for row in corpus.coverage]
    assert f"{corpus.facts.rows:,} rows, columns separated by commas, text in column 'text'" in output
    assert re.search(rf"vocabulary +{len(corpus.tokenizer.vocabulary):,} tokens", output)
    assert re.search(rf"longest document +{corpus.facts.longest[0]}, {corpus.facts.longest[1]:,} words", output)
    assert re.search(rf"shortest +{corpus.facts.shortest[0]}, {corpus.facts.shortest[1]:,} words", output)
    assert re.search(r"duplicate documents +none\nunusual characters +none", output)
    assert list(folder.iterdir()) == []  # nothing is written but the cache

    again = shown(look, str(first_book))
    assert again == output.removeprefix(f"reading {first_book}\n")


def test_settings_can_be_given(look: Callable[..., Finished], first_book: Path) -> None:
    output = shown(look, str(first_book), "tokenizer.vocab_size=500", "data.test_fraction=0")
    assert re.search(r"vocabulary +500 tokens", output)
    parts, coverage = rows(output, "test")
    assert parts == ["0", "0", "0", "0", ""]
    assert set(coverage) == {""}  # of nothing there is no share
    output = shown(look, "tokenizer=bpe", str(first_book), "tokenizer.vocab_size=300")
    assert re.search(r"vocabulary +300 tokens", output)
    assert [cells[-1] for cells in rows(output, "train")] == ["none"]
    assert "Vocabulary coverage" not in output


def test_several_files_with_odd_names(look: Callable[..., Finished], folder: Path, tmp_path: Path) -> None:
    paths = []
    for number, name in enumerate(["Wren's, books (1).csv", "a=b [c].csv"]):
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "chapter"])
            writer.writerows([f"Book {number} has a chapter {chapter}. " * 9, chapter] for chapter in range(9))
            writer.writerow(["It isnâ€™t\u200b whole.", 10])
            writer.writerow(["The same in both.", 11])
        paths.append(str(path))
    output = shown(look, *paths, "data.split=documents")
    assert sum(int(rows(output, name)[0][0]) for name in ("train", "validation", "test")) == 22
    assert "22 rows" in output
    assert "Wren's, books (1) / 11 = a=b [c] / 11" in output
    assert "U+200B ZERO WIDTH SPACE (2)" in output
    assert "wrongly decoded UTF-8, such as â€™ (2)" in output


def test_bundled_books_where_no_file_is_named(look: Callable[..., Finished]) -> None:
    assert "one document per book, chapter" in shown(look)


@pytest.mark.parametrize(
    ("arguments", "code", "mentioned"),
    [
        (["nowhere.csv"], "data.not_found", ["data.path=nowhere.csv "]),
        (["nowhere/*.csv"], "data.no_match", ["data.path=nowhere/*.csv "]),
        (["tokenizer.vocab=500"], "config.unknown_key", ["tokenizer.vocab:", "tokenizer.vocab_size"]),
        (["tokenizer.vocab_size=2"], "config.out_of_range", ["tokenizer.vocab_size=2 ", "at least 3"]),
        (["tokenizer=bpe", "tokenizer.vocab_size=256"], "config.out_of_range", ["tokenizer.vocab_size=256 ", "257"]),
        (["tokenizer=sentence"], "config.unknown_choice", ["tokenizer=sentence", "bpe, char, word"]),
        (["tokenizer.kind=sentence"], "config.unknown_choice", ["tokenizer.kind=sentence", "word, char, bpe"]),
        (["tokenizer.min_frequency=0"], "config.out_of_range", ["tokenizer.min_frequency=0 "]),
        (["tokenizer.from_run=nowhere"], "checkpoint.not_found", ["tokenizer.from_run=nowhere "]),
        (["tokenizer.from_run="], "config.empty", ["tokenizer.from_run "]),
    ],
)
def test_mistakes_are_told_in_one_line(folder: Path, arguments: list[str], code: str, mentioned: list[str]) -> None:
    done = run_in_process(folder, "corpus", *arguments)
    assert expect_refusal(done, code, *mentioned).startswith("hp-lightning corpus: ")
    assert done.stdout == ""
    assert list(folder.iterdir()) == []


# A tokenizer of another run.


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, first_book: Path) -> Path:
    """The folder of a run on the first book, with a small vocabulary."""
    cwd = tmp_path_factory.mktemp("earlier")
    settings = (f"data.path={first_book}", "tokenizer.vocab_size=300", "tokenizer.lowercase=true", "run_dir=run")
    done = run_program(cwd, "train.py", *TINY, *settings)
    assert done.returncode == 0, done.stderr
    return cwd / "run"


def trained(run_dir: Path) -> LoadedCheckpoint:
    return checkpoint.load(run_dir / "checkpoints" / "best.ckpt")


def test_run_takes_the_tokenizer_of_another(earlier: Path, folder: Path) -> None:
    # On other text: the bundled books.
    done = run_program(folder, "train.py", *TINY, f"tokenizer.from_run={earlier}", "run_dir=run")
    assert done.returncode == 0, done.stderr
    before, after = trained(earlier), trained(folder / "run")
    assert after.tokenizer.state() == before.tokenizer.state()
    assert after.tokenizer.vocabulary.tokens == before.tokenizer.vocabulary.tokens
    assert after.cfg.model.vocab_size == before.cfg.model.vocab_size == 300
    assert (after.cfg.tokenizer.vocab_size, after.cfg.tokenizer.lowercase) == (300, True)
    assert Path(str(after.cfg.tokenizer.from_run)).is_absolute()

    # The run is complete in itself: it goes on though the other one is gone.
    moved = earlier.rename(earlier.parent / "moved")
    try:
        done = run_program(folder, "train.py", "resume=run", "max_steps=3")
        assert done.returncode == 0, done.stderr
        assert json.loads((folder / "run" / "summary.json").read_text())["steps"] == 3
        assert trained(folder / "run").tokenizer.state() == before.tokenizer.state()
    finally:
        moved.rename(earlier)


def test_corpus_is_shown_with_the_tokenizer_of_a_run(
    look: Callable[..., Finished], earlier: Path, first_book: Path
) -> None:
    output = shown(look, str(first_book), f"tokenizer.from_run={earlier}")
    assert re.search(r"vocabulary +300 tokens", output)
    assert (
        rows(output, "train")[0]
        == rows(shown(look, str(first_book), "tokenizer.vocab_size=300", "tokenizer.lowercase=true"), "train")[0]
    )


@pytest.mark.parametrize(
    "others", [["tokenizer=char"], ["tokenizer.vocab_size=500"], ["tokenizer.kind=word", "tokenizer.lowercase=false"]]
)
def test_tokenizer_of_a_run_is_taken_whole(make_config: MakeConfig, earlier: Path, others: list[str]) -> None:
    overrides = ["seed=3", *others, f"tokenizer.from_run={earlier}"]
    with refused("config.conflict", "tokenizer.from_run") as refusal:
        chosen_tokenizer(make_config(*overrides), overrides)
    assert str(refusal.value).endswith(" " + ", ".join(other.partition("=")[0] for other in others))


@pytest.mark.parametrize(
    ("arguments", "code", "mentioned"),
    [
        (["tokenizer.from_run=nowhere"], "checkpoint.not_found", "tokenizer.from_run=nowhere "),
        (["tokenizer.from_run={earlier}", "tokenizer.lowercase=true"], "config.conflict", "tokenizer.lowercase"),
    ],
)
def test_run_refuses_a_tokenizer(earlier: Path, folder: Path, arguments: list[str], code: str, mentioned: str) -> None:
    given = [argument.format(earlier=earlier) for argument in arguments]
    done = run_in_process(folder, "train.py", *TINY, *given)
    assert expect_refusal(done, code, mentioned).startswith("train.py: ")
    assert list(folder.iterdir()) == []


def test_help_says_what_can_be_given(look: Callable[..., Finished]) -> None:
    assert "hp-lightning corpus PATH... [key=value...]" in shown(look, "--help")
