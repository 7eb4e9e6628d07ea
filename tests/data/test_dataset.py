"""A corpus is encoded once: from then on it comes from the cache, exactly as it was, or is made again."""

import csv
import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.processes import environment

from hp_lightning.common import failpoints
from hp_lightning.data.cache import Cache
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.data.dataset import TokenizedCorpus, tokenize_corpus
from hp_lightning.data.documents import read_documents
from hp_lightning.data.splits import split_documents
from hp_lightning.schema.train import TrainConfig
from hp_lightning.tokenizers import EOS, UNK, learn_tokenizer, tokenizer_from_state

PROJECT = Path(__file__).resolve().parents[2]
SPLITS = ("train", "val", "test")
KINDS = ("word", "char", "bpe")
MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cfg(make_config: MakeConfig, first_book: Path, cache_dir: Path) -> TrainConfig:
    """The first book, with a cache of its own."""
    return make_config(f"data.path={first_book}", f"data.cache_dir={cache_dir}", "data.seq_len=32")


def encoded(cfg: TrainConfig) -> TokenizedCorpus:
    return tokenize_corpus(cfg.data, cfg.tokenizer)


def of_kind(cfg: TrainConfig, kind: str) -> TrainConfig:
    return replace(cfg, tokenizer=replace(cfg.tokenizer, kind=kind))


def with_data(cfg: TrainConfig, **values: Any) -> TrainConfig:
    return replace(cfg, data=replace(cfg.data, **values))


def as_plain(corpus: TokenizedCorpus) -> dict[str, Any]:
    """All that an encoded corpus tells."""
    return {
        "tokenizer": corpus.tokenizer.state(),
        "streams": {split: (stream.dtype, stream.tolist()) for split, stream in corpus.streams.items()},
        "facts": corpus.facts,
        "coverage": corpus.coverage,
    }


def cache_files(cache_dir: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(cache_dir.rglob("*")) if path.is_file()}


def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(moment: str) -> None:
        assert moment != "corpus.read"

    monkeypatch.setattr(failpoints, "on_reached", fail)


def is_read(monkeypatch: pytest.MonkeyPatch, cfg: TrainConfig) -> bool:
    """Whether the documents are read, and not all comes from the cache."""
    moments: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "on_reached", moments.append)
        encoded(cfg)
    return "corpus.read" in moments


def write_csv(path: Path, texts: Iterable[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "chapter"])
        writer.writerows([text, number] for number, text in enumerate(texts))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_from_the_cache_all_is_as_it_was(cfg: TrainConfig, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    cfg = of_kind(cfg, kind)

    def module() -> CorpusDataModule:
        return CorpusDataModule(cfg, encoded(cfg))

    first = module()
    no_reading(monkeypatch)
    second = module()
    assert as_plain(second.corpus) == as_plain(first.corpus)
    assert second.digest == first.digest
    assert [batch[0].tolist() for batch in second.train_dataloader()] == [
        batch[0].tolist() for batch in first.train_dataloader()
    ]
    text = "Unseen before: “the lantern--and 🙂”.\n"
    assert second.tokenizer.encode(text).tolist() == first.tokenizer.encode(text).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_known_tokenizer_is_used_as_it_is(cfg: TrainConfig, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    state = encoded(of_kind(cfg, kind)).tokenizer.state()
    known = tokenizer_from_state(json.loads(json.dumps(state)))
    no_reading(monkeypatch)  # as when a run is resumed: what it was encoded with tells what is in the cache
    corpus = tokenize_corpus(cfg.data, known)
    assert corpus.tokenizer is known
    assert as_plain(corpus) == as_plain(encoded(of_kind(cfg, kind)))


def test_other_tokenizer_is_used_as_it_is(cfg: TrainConfig) -> None:
    settings = replace(cfg.tokenizer, min_frequency=1)
    other = learn_tokenizer(settings, ["The lantern. The boat of the lamplighter.", "A lamp, and a tower!"]).tokenizer
    corpus = tokenize_corpus(cfg.data, other)
    assert corpus.tokenizer is other
    texts = [document.text for document in split_documents(read_documents(cfg.data).documents, cfg.data).train]
    words = [token for text in texts for token in [*other.tokens(text), EOS]]
    known = [token if token in other.vocabulary.tokens else UNK for token in words]
    assert [other.vocabulary.tokens[token_id] for token_id in corpus.streams["train"][1:].tolist()] == known


@pytest.mark.parametrize("split", ["documents", "tail"])
def test_vocabulary_is_of_the_training_part_alone(
    cfg: TrainConfig, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    cfg = with_data(cfg, split=split)
    cfg = replace(cfg, tokenizer=replace(cfg.tokenizer, min_frequency=1, vocab_size=None))
    splits = split_documents(read_documents(cfg.data).documents, cfg.data)
    cold = encoded(cfg)
    no_reading(monkeypatch)
    for corpus in (cold, encoded(cfg)):
        tokens = {
            split: [token for document in getattr(splits, split) for token in corpus.tokenizer.tokens(document.text)]
            for split in SPLITS
        }
        vocabulary = corpus.tokenizer.vocabulary
        assert set(vocabulary.tokens) == {UNK, EOS, *tokens["train"]}
        unseen = set(tokens["val"]) - set(tokens["train"])
        assert unseen
        for word in unseen:
            assert corpus.tokenizer.encode(word).tolist() == [vocabulary.unk_id]
        unknown = sum(token not in set(tokens["train"]) for token in tokens["val"])
        assert np.count_nonzero(corpus.streams["val"] == vocabulary.unk_id) == unknown
        assert vocabulary.unk_id not in corpus.streams["train"]


# When the cache is used.


OTHER_DATA = {
    "split": "tail",
    "val_fraction": 0.2,
    "test_fraction": 0.1,
    "split_seed": 1,
    "row_separator": "|",
    "group_columns": ["book"],
    "collapse_spaces": False,
    "delimiter": ",",
}
OTHER_TOKENIZER = {"kind": "char", "vocab_size": 200, "min_frequency": 3, "lowercase": True}


@pytest.mark.parametrize("key", OTHER_DATA)
def test_other_data_settings_are_encoded_anew(cfg: TrainConfig, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    encoded(cfg)
    other = with_data(cfg, **{key: OTHER_DATA[key]})
    assert is_read(monkeypatch, other)
    assert not is_read(monkeypatch, other)
    assert not is_read(monkeypatch, cfg)


@pytest.mark.parametrize("key", OTHER_TOKENIZER)
def test_other_tokenizer_settings_are_learned_anew(cfg: TrainConfig, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    plain = encoded(cfg)
    other = replace(cfg, tokenizer=replace(cfg.tokenizer, **{key: OTHER_TOKENIZER[key]}))
    assert is_read(monkeypatch, other)
    assert not is_read(monkeypatch, other)
    assert encoded(other).tokenizer.state() != plain.tokenizer.state()
    assert encoded(cfg).tokenizer.state() == plain.tokenizer.state()


def test_windows_and_places_do_not_matter(cfg: TrainConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    encoded(cfg)
    original = Path(cfg.data.path)
    elsewhere = tmp_path / "elsewhere" / original.name
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(original.read_bytes())
    for values in ({"seq_len": 16}, {"batch_size": 5}, {"path": str(elsewhere)}, {"path": [str(elsewhere)]}):
        assert not is_read(monkeypatch, with_data(cfg, **values))


def test_content_matters_though_size_and_time_are_the_same(cfg: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    content = Path(cfg.data.path).read_bytes()
    path.write_bytes(content)
    times = path.stat()
    cfg = with_data(cfg, path=str(path))
    before = encoded(cfg)
    path.write_bytes(content.replace(b"lantern", b"nretnal"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    after = encoded(cfg)
    assert after.tokenizer.vocabulary.unknown(["lantern", "nretnal"]) == ["lantern"]
    assert before.tokenizer.vocabulary.unknown(["lantern", "nretnal"]) == ["nretnal"]


def test_name_matters_where_documents_are_named_by_it(cfg: TrainConfig, tmp_path: Path) -> None:
    names = []
    for name in ("one.csv", "two.csv"):
        path = tmp_path / name
        path.write_bytes(Path(cfg.data.path).read_bytes())
        names.append(encoded(with_data(cfg, path=[str(path)], group_columns=[])).facts.longest[0])
    assert names == ["one", "two"]


# A cache that fails.


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(place: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        damaged = bytearray(content)
        damaged[int(place * (len(content) - 1))] ^= 1
        return bytes(damaged)

    return flip


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half": truncated,
    "cut at the digest": lambda content: content[:32],
    "short of the digest": lambda content: content[:7],
    "without its last byte": lambda content: content[:-1],
    "with a byte too many": lambda content: content + b"\0",
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    **{f"a bit at {place}": flipped(place) for place in (0, 0.01, 0.3, 0.5, 0.9, 1)},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_files_are_made_anew(
    cfg: TrainConfig, cache_dir: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    cfg = of_kind(cfg, "char")
    before = encoded(cfg)
    whole = cache_files(cache_dir)
    assert len(whole) == 2  # the tokenizer, and what it was used on
    for path, content in whole.items():
        path.write_bytes(damage(content))
        with caplog.at_level(logging.WARNING, "hp_lightning"):
            assert as_plain(encoded(cfg)) == as_plain(before)
        [warning] = caplog.messages
        assert str(path) in warning
        assert cache_files(cache_dir) == whole
        caplog.clear()
        with caplog.at_level(logging.WARNING, "hp_lightning"):
            encoded(cfg)
        assert caplog.messages == []


def test_missing_file_is_made_anew(cfg: TrainConfig, cache_dir: Path) -> None:
    before = encoded(cfg)
    whole = cache_files(cache_dir)
    for path in whole:
        path.unlink()
        assert as_plain(encoded(cfg)) == as_plain(before)
        assert cache_files(cache_dir) == whole


def test_cache_that_cannot_be_written_is_no_obstacle(
    cfg: TrainConfig, cache_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_cache = encoded(with_data(cfg, cache_dir=str(cache_dir / "good")))
    blocked = cache_dir / "blocked"
    blocked.write_text("a file where a folder should be")
    with caplog.at_level(logging.WARNING, "hp_lightning"):
        without = encoded(with_data(cfg, cache_dir=str(blocked)))
    assert caplog.messages
    assert all("cannot be written" in message for message in caplog.messages)
    assert as_plain(without) == as_plain(with_cache)
    assert blocked.read_text() == "a file where a folder should be"


def test_what_cannot_be_stored_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    cache = Cache(tmp_path)
    monkeypatch.setattr(os, "replace", full)
    cache.store("key", {"numbers": np.arange(9)})
    assert list(tmp_path.iterdir()) == []
    assert cache.load("key") is None


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"none": np.zeros(0, np.int32), "flags": np.array([True, False]), "square": np.arange(6.0).reshape(2, 3)}
    cache = Cache(tmp_path / "some" / "folder")
    assert cache.load("key") is None
    cache.store("key", arrays)
    found = cache.load("key")
    assert found is not None
    assert {name: (array.dtype, array.tolist()) for name, array in found.items()} == {
        name: (array.dtype, array.tolist()) for name, array in arrays.items()
    }
    assert cache.load("other") is None


def test_two_may_store_the_same_at_once(tmp_path: Path) -> None:
    """As two processes do: the second begins and ends while the first is writing."""
    cache = Cache(tmp_path)

    class Slow:
        def __array__(self, *_: Any, **__: Any) -> Any:
            Cache(tmp_path).store("key", {"numbers": np.arange(9)})
            return np.arange(9)

    arrays: dict[str, Any] = {"numbers": Slow()}
    cache.store("key", arrays)
    found = cache.load("key")
    assert found is not None
    assert found["numbers"].tolist() == list(range(9))
    assert len(list(tmp_path.iterdir())) == 1, "something unfinished was left"


ENCODE = """
import sys
from hp_lightning.schema.data import DataConfig
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.data.dataset import tokenize_corpus
import json
data, tokenizer = json.load(sys.stdin)
print("ready", flush=True)
corpus = tokenize_corpus(DataConfig(**data), TokenizerConfig(**tokenizer))
print(json.dumps([corpus.tokenizer.state(), {split: stream.tolist() for split, stream in corpus.streams.items()}]))
"""


def test_processes_may_encode_at_once(cfg: TrainConfig, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = json.dumps([vars(cfg.data), vars(cfg.tokenizer)])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ENCODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=environment(),
        )
        for _ in range(2)
    ]
    ended = [process.communicate(settings, timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    no_reading(monkeypatch)
    corpus = encoded(cfg)
    expected = [corpus.tokenizer.state(), {split: stream.tolist() for split, stream in corpus.streams.items()}]
    for printed, _ in ended:
        assert json.loads(printed.splitlines()[-1]) == json.loads(json.dumps(expected))
    assert {path.suffix for path in cache_files(cache_dir)} == {".cache"}, "something unfinished was left"
    assert len(cache_files(cache_dir)) == 2


# What is found in a corpus.


@pytest.fixture
def small(make_config: MakeConfig, tmp_path: Path, cache_dir: Path) -> Callable[..., TokenizedCorpus]:
    """Encodes a corpus of a few texts, a document each."""

    def make(texts: list[str], *overrides: str) -> TokenizedCorpus:
        path = write_csv(tmp_path / "mine.csv", texts)
        cfg = make_config(f"data.path={path}", f"data.cache_dir={cache_dir}", "tokenizer.min_frequency=1", *overrides)
        return encoded(cfg)

    return make


def test_facts_of_the_parts(cfg: TrainConfig) -> None:
    reading = read_documents(cfg.data)
    splits = split_documents(reading.documents, cfg.data)
    facts = encoded(cfg).facts
    assert list(facts.splits) == list(SPLITS)
    for split in SPLITS:
        texts = [document.text for document in getattr(splits, split)]
        found = facts.splits[split]
        assert found.documents == len(texts)
        assert found.characters == sum(map(len, texts))
        assert found.words == sum(len(text.split()) for text in texts)
    assert (facts.rows, facts.text_column, facts.group_columns) == (
        reading.rows, reading.text_column, reading.group_columns,
    )  # fmt: skip
    words = {document.name: len(document.text.split()) for document in reading.documents}
    assert tuple(facts.longest) == max(words.items(), key=lambda item: item[1])
    assert tuple(facts.shortest) == min(words.items(), key=lambda item: item[1])
    assert facts.duplicates == []


TEXTS = [f"Chapter {number} tells of the boat, and of the {word} in it." for number, word in enumerate("abcdefghij")]


def test_duplicates_are_found(small: Callable[..., TokenizedCorpus]) -> None:
    facts = small([*TEXTS, TEXTS[3], "Short.", TEXTS[3], TEXTS[0]], "data.split=documents").facts
    assert facts.duplicates == [["0", "13"], ["3", "10", "12"]]
    assert tuple(facts.shortest) == ("11", 1)
    assert facts.rows == 14


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("zero\u200bwidth \u200b", "U+200B ZERO WIDTH SPACE", 2),
        ("lost \ufffd\ufffd\ufffd letters", "U+FFFD REPLACEMENT CHARACTER", 3),
        ("It isnâ€™t, is it? â€œNoâ€\x9d", "wrongly decoded UTF-8, such as â€™", 3),
        ("cafÃ© Ã¨", "wrongly decoded UTF-8, such as â€™", 2),
        ("a bell\x07", "U+0007", 1),
        ("private \ue000 use", "U+E000", 1),
    ],
)
def test_odd_characters_are_found(small: Callable[..., TokenizedCorpus], text: str, name: str, count: int) -> None:
    assert small(TEXTS, "data.split=documents").facts.odd_characters == {}
    assert small([*TEXTS, text, "A quiet end."], "data.split=documents").facts.odd_characters[name] == count


def test_usual_characters_are_not_odd(small: Callable[..., TokenizedCorpus]) -> None:
    usual = ["“Café” — «naïve» … 漢字", "Ã CORUÑA, SÃO", "tab\there", "two\nlines"]
    assert small([*TEXTS, *usual], "data.split=documents").facts.odd_characters == {}


def test_coverage_by_counting(cfg: TrainConfig) -> None:
    corpus = encoded(cfg)
    splits = split_documents(read_documents(cfg.data).documents, cfg.data)
    counts = {
        split: Counter(token for document in getattr(splits, split) for token in corpus.tokenizer.tokens(document.text))
        for split in SPLITS
    }
    assert [row.size for row in corpus.coverage] == [1_000, len(counts["train"])]
    assert 1_000 < len(counts["train"]) < 2_000
    for row in corpus.coverage:
        # Tokens that are as frequent as the last of them may be others: then the training share is the same.
        known = {token for token, _ in counts["train"].most_common(row.size)}
        assert row.known["train"] == pytest.approx(
            sum(counts["train"][token] for token in known) / counts["train"].total()
        )
        for split in ("val", "test"):
            share = sum(counts[split][token] for token in known) / counts[split].total()
            assert row.known[split] == pytest.approx(share, abs=0.02)
    last = corpus.coverage[-1]
    assert last.known["train"] == 1
    for split in ("val", "test"):
        seen = sum(count for token, count in counts[split].items() if token in counts["train"])
        assert last.known[split] == seen / counts[split].total() < 1


def test_nothing_is_unknown_to_byte_pairs(cfg: TrainConfig) -> None:
    corpus = encoded(of_kind(cfg, "bpe"))
    assert corpus.coverage == []
