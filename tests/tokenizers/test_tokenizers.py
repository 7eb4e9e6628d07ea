"""Text to ids and back: NLTK's words token for token, characters, and byte pairs."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import nltk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTrainer

from hp_lightning.data.documents import Document, read_documents
from hp_lightning.data.splits import Splits, split_documents
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.schema.train import TrainConfig
from hp_lightning.tokenizers import EOS, UNK, Tokenizer, learn_tokenizer, punkt, tokenizer_from_state

PROJECT = Path(__file__).resolve().parents[2]
WORD = TokenizerConfig(kind="word", vocab_size=None, min_frequency=1, lowercase=False, from_run=None)
CHAR = replace(WORD, kind="char")
BPE = replace(WORD, kind="bpe", vocab_size=400)
EACH_KIND = pytest.mark.parametrize("cfg", [WORD, CHAR, BPE], ids=lambda cfg: cfg.kind)
MakeConfig = Callable[..., TrainConfig]

fuzz = settings(
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "150")),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# What tokenizers treat apart, to be thrown together.
HOSTILE: dict[str, list[str]] = {
    "marks": list(".?!,;:()[]{}<>-—–…*#&@%$/\\^~|+=_"),
    "quotes": [*"\"'`“”‘’«»", "``", "''", "\"'", "'\"", ' " ', " ' ", '"" ', "'''", ".\"", ".'", "?'", '" \'', "' ."],
    "stops": ["...", "..", ". . .", ".. .", "....", "?!", "!!", ".)", ").", ".]", ".”", "”.", " .", " ?", "--", "---"],
    "contractions": [
        "cannot", "Cannot,", "gonna", "Gotta", "wanna?", "gimme", "lemme", "'tis", "'Twas", "d'ye", "more'n", "can't",
        "n't", "won't", "it's", "It'S", "they're", "I'll", "James'", "'em", "can-cannot", "not-gonna", "gotta-be", "'s",
        "cannot's", "can’t", "o'clock",
    ],
    "numbers": ["1", "1,000", "$1,000.50", "1.5", "3.", "1,", ",5", "12-13", "4th", "'90s", "10%", "5:30", "II.", ".5"],
    "words": [
        "a", "I", "The", "the", "day", "Mr.", "Mrs.", "e.g.", "U.S.", "J.", "K.", "etc.", "Smith", "smith", "May",
        "p.m.", "well-known", "two-", "-two", "a--b", "_a_", "But", "he", "He", "said.", "é", "ß", "İ", "漢字", "don",
    ],
    "white space": [" ", "  ", "\t", "\n", "\n\n", "\xa0", "\x1c", "\x85", "\u2028", "\u3000", "\r", "\x0b", "\u2009"],
    "odd characters": [
        "\ue000", "\ue000.", 'a\ue000"', "\u200b", "\ufeff", "\x00", "\u0301", "e\u0301", "🙂", "ﬁ", "²", "½", "Ⅷ.",
        "٣.", "。", "‥", "\u00ad", "\ufffd", "ǅ", "я.", EOS, UNK,
    ],
}  # fmt: skip


def hostile_text(rng: random.Random) -> str:
    """Pieces of some kinds, with single spaces between many of them."""
    kinds = rng.sample(list(HOSTILE), rng.randint(1, len(HOSTILE)))
    share_of_spaces = rng.random()
    drawn = (rng.choice(HOSTILE[rng.choice(kinds)]) for _ in range(rng.randrange(40)))
    return "".join(piece + " " * (rng.random() < share_of_spaces) for piece in drawn)


hostile_texts = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.lists(st.sampled_from([" ", *(piece for pieces in HOSTILE.values() for piece in pieces)])).map("".join),
        st.lists(st.sampled_from(HOSTILE["words"] + HOSTILE["numbers"] + ["."]), max_size=40).map(" ".join),
    ),
    max_size=6,
)


class Nltk:
    """NLTK by itself: its own Punkt, trained on the texts, and its own words."""

    def __init__(self, texts: list[str]) -> None:
        trainer = PunktTrainer()
        trainer.train("\n".join(texts))
        self._parameters = trainer.get_params()
        self._punkt = PunktSentenceTokenizer(self._parameters)
        self._words = NLTKWordTokenizer()

    def punkt_state(self) -> dict[str, Any]:
        """The parameters as the word tokenizer keeps them."""
        return {
            "abbreviations": sorted(self._parameters.abbrev_types),
            "collocations": sorted(map(list, self._parameters.collocations)),
            "sentence_starters": sorted(self._parameters.sent_starters),
            "orthographic_context": {word: flags for word, flags in self._parameters.ortho_context.items() if flags},
        }

    def sentences(self, text: str) -> Iterator[str]:
        for line in text.split("\n"):
            yield from self._punkt.tokenize(line)

    def tokens(self, text: str) -> list[str]:
        """Words line by line, a line break between lines."""
        found: list[str] = []
        for line in text.split("\n"):
            for sentence in self._punkt.tokenize(line):
                found += self._words.tokenize(sentence)
            found.append("\n")
        return found[:-1]


@dataclass(frozen=True)
class Case:
    """A corpus, what was learned from it, and NLTK beside it."""

    texts: list[str]
    unseen: list[str]
    tokenizer: Tokenizer

    @cached_property
    def nltk(self) -> Nltk:
        return Nltk(self.texts)


def texts_of(documents: list[Document]) -> list[str]:
    return [document.text for document in documents]


def split(cfg: TrainConfig) -> Splits:
    return split_documents(read_documents(cfg.data).documents, cfg.data)


def make_case(cfg: TrainConfig) -> Case:
    splits = split(cfg)
    texts = texts_of(splits.train)
    return Case(texts, texts_of(splits.val + splits.test), learn_tokenizer(cfg.tokenizer, texts).tokenizer)


def word_tokenizer(*texts: str) -> Tokenizer:
    return learn_tokenizer(WORD, list(texts)).tokenizer


def through_json(tokenizer: Tokenizer) -> Tokenizer:
    return tokenizer_from_state(json.loads(json.dumps(tokenizer.state())))


@pytest.fixture(scope="module")
def stories(make_config: MakeConfig) -> Case:
    """The bundled corpus with the settings of a plain run."""
    return make_case(make_config())


@pytest.fixture(scope="module")
def addresses(make_config: MakeConfig, shared_data: Path) -> Case:
    """The whole of the State of the Union addresses."""
    path = shared_data / "state_union.csv"
    return make_case(make_config("data=csv", f"data.path='{path}'", "data.group_columns=[president,year]"))


@pytest.fixture(params=["stories", pytest.param("addresses", marks=pytest.mark.slow)])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def few(make_config: MakeConfig) -> list[str]:
    """Two chapters: enough to learn a vocabulary from, again and again."""
    return texts_of(split(make_config()).train[:2])


# The words are NLTK's.


def test_word_tokens_are_those_of_nltk(case: Case) -> None:
    tokenizer = case.tokenizer
    vocabulary = tokenizer.vocabulary
    for text in case.texts + case.unseen:
        tokens = case.nltk.tokens(text)
        assert tokenizer.tokens(text) == tokens
        encoded = [vocabulary.tokens[token_id] for token_id in tokenizer.encode(text)]
        assert len(encoded) == len(tokens)
        assert {
            (known, token) for known, token in zip(encoded, tokens, strict=True) if known not in (token, UNK)
        } == set()


def test_sentence_ends_are_learned_as_by_nltk(case: Case) -> None:
    assert case.tokenizer.state()["punkt"] == punkt.train(case.texts) == case.nltk.punkt_state()


@fuzz
@given(texts=hostile_texts, repeated=st.integers(1, 20))
def test_hostile_texts_are_learned_from_and_cut_as_by_nltk(texts: list[str], repeated: int) -> None:
    # NLTK goes through a set while it learns; no result was found that depends on the set's order.
    expected = Nltk(texts * repeated)
    tokenizer = word_tokenizer(*texts * repeated)
    assert tokenizer.state()["punkt"] == expected.punkt_state()
    for text in texts:
        assert tokenizer.tokens(text) == expected.tokens(text)


@pytest.mark.parametrize("seed", range(8))
def test_hostile_texts_are_cut_as_by_nltk(stories: Case, seed: int) -> None:
    rng = random.Random(seed)
    tokenizer = through_json(stories.tokenizer)  # another order of what is met first
    for text in [hostile_text(rng) for _ in range(250)]:
        assert tokenizer.tokens(text) == stories.nltk.tokens(text)


def test_learned_from_many_hostile_texts_as_by_nltk() -> None:
    rng = random.Random(0)
    for _ in range(20):
        texts = [hostile_text(rng) for _ in range(rng.randint(1, 8))]
        texts = rng.choices(texts, k=rng.randint(1, 60))  # repeated, so that there is something to be learned
        assert punkt.train(texts) == Nltk(texts).punkt_state()


def test_learned_collocations_are_those_of_nltk() -> None:
    days = [f"day{letter}" for letter in "abcdefghijklm"]
    text = " ".join(f"The {day} was held on the 4. May of that year. Then all went home by night." for day in days)
    expected = Nltk([text])
    assert expected.punkt_state()["collocations"]
    assert "4." in expected.tokens(text)  # a stop before a capital letter that ends no sentence
    assert word_tokenizer(text).tokens(text) == expected.tokens(text)


def test_words_need_no_nltk_data(monkeypatch: pytest.MonkeyPatch, few: list[str]) -> None:
    def no_download(*_: Any, **__: Any) -> None:
        pytest.fail("a download was tried")

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", no_download)
    tokenizer = through_json(word_tokenizer(*few))
    assert tokenizer.vocabulary.unk_id not in tokenizer.encode(few[0])


# What a vocabulary holds.


@pytest.mark.parametrize("min_frequency", [1, 2, 5])
@pytest.mark.parametrize("kind", ["word", "char"])
def test_vocabulary_is_the_most_common_tokens(few: list[str], kind: str, min_frequency: int) -> None:
    cfg = replace(WORD, kind=kind, min_frequency=min_frequency)
    learned = learn_tokenizer(cfg, few)
    counts = Counter(token for text in few for token in learned.tokenizer.tokens(text))
    assert learned.counts == counts
    special, kept = learned.tokenizer.vocabulary.tokens[:2], learned.tokenizer.vocabulary.tokens[2:]
    assert special == [UNK, EOS]
    assert sorted(kept) == sorted(token for token, count in counts.items() if count >= min_frequency)
    assert [counts[token] for token in kept] == sorted((counts[token] for token in kept), reverse=True)
    for vocab_size in (3, 30, 1_000_000):
        vocabulary = learn_tokenizer(replace(cfg, vocab_size=vocab_size), few).tokenizer.vocabulary
        assert vocabulary.tokens == [*special, *kept][:vocab_size]


def test_vocabulary_of_the_stories_is_learned_from_them_alone(stories: Case) -> None:
    counts = Counter(token for text in stories.texts for token in stories.nltk.tokens(text))
    vocabulary = stories.tokenizer.vocabulary
    assert set(vocabulary.tokens) == {UNK, EOS} | {token for token, count in counts.items() if count >= 2}
    # A word is <UNK> though it may be common where it must not be learned from.
    unseen = Counter(token for text in stories.unseen for token in stories.nltk.tokens(text) if token not in counts)
    word, times = unseen.most_common(1)[0]
    assert times >= 2
    assert stories.tokenizer.encode(word).tolist() == [vocabulary.unk_id]
    assert stories.tokenizer.decode([vocabulary.unk_id]) == UNK


@EACH_KIND
def test_lowercase_makes_one_token_of_both(cfg: TokenizerConfig, few: list[str]) -> None:
    text = "The lantern. THE LANTERN! Éa"
    plain = learn_tokenizer(cfg, [*few, text]).tokenizer
    lower = learn_tokenizer(replace(cfg, lowercase=True), [*few, text]).tokenizer
    assert plain.decode(plain.encode(text)) == text
    assert lower.decode(lower.encode(text)) == text.lower()
    if cfg.kind != "bpe":
        assert lower.tokens(few[0]) == [token.lower() for token in plain.tokens(few[0])]
        assert lower.encode("The").tolist() == lower.encode("THE").tolist() == lower.encode("the").tolist()
        assert len(lower.vocabulary) < len(plain.vocabulary)
    assert through_json(lower).encode(text).tolist() == lower.encode(text).tolist()


@pytest.mark.parametrize("vocab_size", [257, 258, 300, 1_000, 2**31, None])
def test_byte_pairs_fill_the_vocabulary(few: list[str], vocab_size: int | None) -> None:
    vocabulary = learn_tokenizer(replace(BPE, vocab_size=vocab_size), few).tokenizer.vocabulary
    assert vocabulary.unk_id is None
    assert len(set(vocabulary.tokens)) == len(vocabulary)
    assert len(vocabulary) == vocab_size if vocab_size in (257, 258, 300, 1_000) else len(vocabulary) > 1_000


def test_rare_byte_pairs_are_not_merged(few: list[str]) -> None:
    sizes = []
    for min_frequency in (2, 5, 50):
        learned = learn_tokenizer(replace(BPE, vocab_size=None, min_frequency=min_frequency), few)
        sizes.append(len(learned.tokenizer.vocabulary))
        joined = "".join(few).encode()
        for first, second in learned.tokenizer.state()["merges"]:
            merged = "".join(learned.tokenizer.decode([learned.tokenizer.vocabulary.tokens.index(first + second)]))
            assert joined.count(merged.encode()) >= min_frequency
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


# Learning.


@EACH_KIND
def test_learned_texts_are_encoded(cfg: TokenizerConfig, few: list[str]) -> None:
    texts = [*few, "", "One", "\n\n", few[0][:100] + "🙂"]
    for setting in (cfg, replace(cfg, min_frequency=2), replace(cfg, vocab_size=300, lowercase=True)):
        learned = learn_tokenizer(setting, texts)
        afresh = through_json(learned.tokenizer)
        assert [ids.tolist() for ids in learned.encoded] == [afresh.encode(text).tolist() for text in texts]
        assert dict(learned.counts) == Counter(token for text in texts for token in afresh.tokens(text))
        assert sum(learned.counts.values()) == sum(map(len, learned.encoded))


LEARN = """
import json, sys
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.tokenizers import learn_tokenizer
texts = json.load(sys.stdin)
learned = [learn_tokenizer(TokenizerConfig(kind, 300, 2, False, None), texts) for kind in ("word", "char", "bpe")]
print(json.dumps([[found.tokenizer.state(), [ids.tolist() for ids in found.encoded]] for found in learned]))
"""


def test_learning_is_deterministic(few: list[str]) -> None:
    # In processes where Python's sets have another order.
    printed = {
        subprocess.run(
            [sys.executable, "-c", LEARN],
            input=json.dumps(few),
            cwd=PROJECT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    learned = [learn_tokenizer(replace(cfg, vocab_size=300, min_frequency=2), few) for cfg in (WORD, CHAR, BPE)]
    here = [[found.tokenizer.state(), [ids.tolist() for ids in found.encoded]] for found in learned]
    assert [json.loads(found) for found in printed] == [here]


def test_state_survives_json(case: Case) -> None:
    before, after = case.tokenizer, through_json(case.tokenizer)
    assert after.state() == before.state()
    for text in reversed(case.texts[:2] + case.unseen[:2]):
        token_ids = before.encode(text).tolist()
        assert after.encode(text).tolist() == token_ids
        assert after.decode(token_ids) == before.decode(token_ids)


@EACH_KIND
def test_small_state_survives_json(cfg: TokenizerConfig, few: list[str]) -> None:
    before = learn_tokenizer(cfg, few).tokenizer
    after = through_json(before)
    assert after.state() == before.state()
    token_ids = before.encode(few[0] + "🙂").tolist()
    assert after.encode(few[0] + "🙂").tolist() == token_ids
    assert after.decode(token_ids) == before.decode(token_ids)


# What comes back.


def share_restored(case: Case, texts: list[str]) -> float:
    """Of the sentences without `<UNK>`, how many come back as they were."""
    tokenizer, restored = case.tokenizer, []
    for text in texts:
        for sentence in case.nltk.sentences(text):
            token_ids = tokenizer.encode(sentence)
            if tokenizer.vocabulary.unk_id not in token_ids:
                restored.append(tokenizer.decode(token_ids) == sentence)
    assert len(restored) >= 100
    return sum(restored) / len(restored)


def test_sentences_come_back(case: Case) -> None:
    assert share_restored(case, case.texts[::3]) >= 0.99
    assert share_restored(case, case.unseen) >= 0.99


@pytest.mark.parametrize(
    "text",
    [
        "One.\nTwo. Three.\n\nFour.",
        "\nOne.\n",
        "\n",
        "One",
        '"One," she said.\n"Two!"\n\'Three?\'',
        "``One,'' she said. ``Two!''",
        "I cannot go. I can see, and it is not far.",
        "It's gonna rain, isn't it? They're $5 (or 3%) each [sic] -- 'tis dear...",
        "“One,” she said. ‘Two’—“three” … «four»",
    ],
)
def test_text_comes_back_after_a_checkpoint(text: str) -> None:
    tokenizer = through_json(word_tokenizer(text, text))
    assert tokenizer.tokens(text).count("\n") == text.count("\n")
    assert tokenizer.decode(tokenizer.encode(text)) == text


NAMES = ["Anna", "Bert", "Cleo", "Dora", "Emil", "Fred", "Gina", "Hugo", "Ivan", "Jane"]


@pytest.mark.parametrize(
    ("token", "ways"),
    [
        ("--", ["{} came -- late", "{} came--late", "{} came-- late"]),
        ("—", ["{} came — late", "{} came—late"]),
        ("...", ["{} came ... late", "{} came... late", "{} came...late"]),
        ("''", ['"{}" came late', "``{}'' came late"]),
        ("``", ['"{}" came late', "``{}'' came late"]),
        ("(", ["all came ({})", "all came({})", "all came ( {} )"]),
        ("'", ["the '{}' came late", "the {}' dog came"]),
    ],
)
def test_each_way_of_writing_a_token_comes_back(token: str, ways: list[str]) -> None:
    texts = [way.format(name) for way in ways for name in NAMES]
    tokenizer = through_json(word_tokenizer(*texts))
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    vocabulary = tokenizer.vocabulary
    ids = {i for way in ways for i in tokenizer.encode(way.format("Anna")).tolist() if vocabulary.tokens[i] == token}
    assert len(ids) == len(ways), "a way of writing it has no id of its own"


def test_documents_come_back_with_their_lines(stories: Case) -> None:
    for text in stories.texts[:3] + stories.unseen[:3]:
        written = stories.tokenizer.decode(stories.tokenizer.encode(text))
        assert written.count("\n") == text.count("\n")


@fuzz
@given(text=st.text(), lowercase=st.booleans())
@pytest.mark.parametrize("vocab_size", [257, 400])
def test_any_text_comes_back_from_byte_pairs(few: list[str], vocab_size: int, text: str, lowercase: bool) -> None:
    tokenizer = byte_pairs(tuple(few), vocab_size, lowercase)
    token_ids = tokenizer.encode(text).tolist()
    assert tokenizer.decode(token_ids) == (text.lower() if lowercase else text)
    assert tokenizer.vocabulary.eos_id not in token_ids


BYTE_PAIRS: dict[Any, Tokenizer] = {}


def byte_pairs(texts: tuple[str, ...], vocab_size: int, lowercase: bool = False) -> Tokenizer:
    """Learned once for the many examples of a test."""
    key = (texts, vocab_size, lowercase)
    if key not in BYTE_PAIRS:
        cfg = replace(BPE, vocab_size=vocab_size, lowercase=lowercase)
        BYTE_PAIRS[key] = learn_tokenizer(cfg, list(texts)).tokenizer
    return BYTE_PAIRS[key]


ODD_TEXTS = [
    "👩‍👩‍👧",
    "e\u0301",
    "\x00\x00",
    "\r",
    "a\r\nb",
    " \n ",
    "\n\n\n",
    "\u2028",
    "\ufeffa",
    " ",
    "漢字",
    "\ud7ff",
    "🙂" * 9,
]


@pytest.mark.parametrize("text", [*ODD_TEXTS, EOS, UNK, f"a{EOS}b {UNK}\n{EOS}"])
def test_odd_text_comes_back(few: list[str], text: str) -> None:
    for texts in (few, [*few, text * 9]):
        tokenizer = byte_pairs(tuple(texts), 400)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    tokenizer = learn_tokenizer(CHAR, [text]).tokenizer
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_byte_pairs_keep_to_their_line() -> None:
    text = "One.\n\n\nOne.\n  One.\n \nOne\r\nOne" * 50
    tokenizer = learn_tokenizer(replace(BPE, vocab_size=None, min_frequency=1), [text]).tokenizer
    [line_break] = tokenizer.encode("\n").tolist()
    written = [tokenizer.decode([token_id]) for token_id in range(1, len(tokenizer.vocabulary))]
    assert [token for token in written if "\n" in token] == ["\n"]
    assert tokenizer.encode(text).tolist().count(line_break) == text.count("\n")


def test_characters_come_back(stories: Case) -> None:
    tokenizer = learn_tokenizer(CHAR, stories.texts).tokenizer
    alphabet = sorted(set("".join(stories.texts)))
    rng = random.Random(0)
    made_up = ["".join(rng.choices(alphabet, k=rng.randrange(200))) for _ in range(100)]
    for text in [*stories.texts[:5], *made_up, ""]:
        token_ids = tokenizer.encode(text)
        assert len(token_ids) == len(text)
        assert tokenizer.decode(token_ids) == text


@EACH_KIND
def test_bytes_that_could_not_be_decoded_are_borne(cfg: TokenizerConfig, few: list[str]) -> None:
    tokenizer = learn_tokenizer(cfg, few).tokenizer
    token_ids = tokenizer.encode("the \udcff wing").tolist()  # a prompt as Python reads it from a command line
    unknown = "?" if cfg.kind == "bpe" else UNK
    assert tokenizer.decode(token_ids) == f"the {unknown} wing"


def test_unseen_characters_are_unknown(few: list[str]) -> None:
    tokenizer = learn_tokenizer(CHAR, few).tokenizer
    unk_id = tokenizer.vocabulary.unk_id
    assert [token_id == unk_id for token_id in tokenizer.encode("aß🙂b")] == [False, True, True, False]
    assert tokenizer.decode(tokenizer.encode("aßb")) == f"a{UNK}b"
    assert tokenizer.vocabulary.unknown(tokenizer.tokens("ßaß🙂")) == ["ß", "🙂"]


# What is written token by token.


def some_token_ids(tokenizer: Tokenizer, text: str) -> Iterator[list[int]]:
    """Passages as they were written, and tokens as a model that has learned nothing draws them."""
    rng = random.Random(0)
    token_ids = tokenizer.encode(text).tolist()
    for _ in range(30):
        begin = rng.randrange(len(token_ids))
        yield token_ids[begin : begin + rng.randrange(60)]
        yield rng.choices(range(len(tokenizer.vocabulary)), k=rng.randrange(60))


@pytest.fixture(params=["word", "char", "bpe"])
def writer(request: pytest.FixtureRequest, stories: Case) -> Tokenizer:
    """A tokenizer of each kind, of the bundled stories."""
    kind: str = request.param
    return stories.tokenizer if kind == "word" else learn_tokenizer(replace(BPE, kind=kind), stories.texts).tokenizer


def test_decoded_prefix_is_a_prefix(stories: Case, writer: Tokenizer) -> None:
    for token_ids in some_token_ids(writer, "“Café” 🙂 " + stories.texts[0]):
        whole = writer.decode(token_ids)
        for end in range(len(token_ids)):
            assert whole.startswith(writer.decode(token_ids[:end]))


def test_pieces_are_what_each_id_adds(stories: Case, writer: Tokenizer) -> None:
    """As soon as the id is there: a list is read while it grows."""
    for token_ids in some_token_ids(writer, "“Café” 🙂 " + stories.texts[0]):
        grown: list[int] = []
        text, pieces = "", writer.pieces(grown)
        for token_id in token_ids:
            grown.append(token_id)
            text += next(pieces)
            assert text == writer.decode(grown)


@pytest.mark.parametrize("character", ["é", "—", "漢", "🙂"])
def test_incomplete_character_is_held_back(few: list[str], character: str) -> None:
    tokenizer = byte_pairs(tuple(few), 257)
    token_ids = tokenizer.encode(f"a{character}").tolist()
    assert len(token_ids) == 1 + len(character.encode())
    assert [tokenizer.decode(token_ids[:end]) for end in range(1, len(token_ids))] == ["a"] * (len(token_ids) - 1)
    assert tokenizer.decode(token_ids) == f"a{character}"
    eos_id, [letter] = tokenizer.vocabulary.eos_id, tokenizer.encode("b").tolist()
    assert tokenizer.decode([*token_ids[:-1], eos_id, token_ids[-1]]) == f"a{character}"
    assert tokenizer.decode([*token_ids[:-1], letter]) == "a\ufffdb"  # it can never become whole


def test_eos_writes_nothing(stories: Case, writer: Tokenizer) -> None:
    eos_id = writer.vocabulary.eos_id
    rng = random.Random(0)
    assert writer.decode([eos_id, eos_id]) == ""
    for token_ids in some_token_ids(writer, stories.texts[0]):
        place = rng.randrange(len(token_ids) + 1)
        marked = [eos_id, *token_ids[:place], eos_id, *token_ids[place:], eos_id]
        assert writer.decode(marked) == writer.decode(token_ids)


@EACH_KIND
@pytest.mark.parametrize("text", [EOS, UNK, f"One {EOS} two{EOS}. {UNK}, {UNK}", f"{EOS}\n{EOS}"])
def test_text_cannot_become_a_special_token(cfg: TokenizerConfig, text: str) -> None:
    for tokenizer in (learn_tokenizer(cfg, [text] * 9).tokenizer, learn_tokenizer(cfg, ["One two."]).tokenizer):
        assert tokenizer.vocabulary.eos_id not in tokenizer.encode(text)
    learned = learn_tokenizer(cfg, [text] * 9)
    assert learned.tokenizer.vocabulary.unk_id not in learned.tokenizer.encode(text)
    assert learned.tokenizer.decode(learned.encoded[0]) == text


@pytest.mark.parametrize("seed", range(3))
def test_hostile_text_is_borne(stories: Case, seed: int) -> None:
    rng = random.Random(seed)
    texts = ["", *(hostile_text(rng) for _ in range(150))]
    learned = learn_tokenizer(WORD, texts)
    for tokenizer in (stories.tokenizer, learned.tokenizer):
        for text in texts:
            token_ids = tokenizer.encode(text)
            assert tokenizer.vocabulary.eos_id not in token_ids  # a text cannot end its document
            assert tokenizer.decode(token_ids).count("\n") == text.count("\n")
    assert all(learned.tokenizer.vocabulary.unk_id not in token_ids for token_ids in learned.encoded)
    assert [ids.tolist() for ids in learned.encoded] == [learned.tokenizer.encode(text).tolist() for text in texts]


@EACH_KIND
def test_nothing_is_encoded_as_nothing(cfg: TokenizerConfig) -> None:
    for texts in ([], [""], ["One.\nTwo."]):
        tokenizer = learn_tokenizer(cfg, texts).tokenizer
        assert tokenizer.encode("").tolist() == []
        assert tokenizer.decode([]) == ""


def test_a_token_joined_to_a_single_other_stands_close_to_that_alone() -> None:
    tokenizer = word_tokenizer(*["The boat at pier #5 lies east.", "The boat at pier #5 lies west."] * 3)
    for text in ("The boat at pier #5 lies west.", "The # boat lies at 5 east."):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_rare_word_stands_close_to_nothing(stories: Case) -> None:
    # "knaves'" is joined once, to its apostrophe; that says nothing of what else may follow "knaves".
    rare = ["The knaves' boat came in.", "What do these knaves, and who are those knaves?"] * 2
    tokenizer = learn_tokenizer(WORD, [*stories.texts, "\n".join(rare)]).tokenizer
    assert tokenizer.decode(tokenizer.encode("these knaves came")) == "these knaves came"
