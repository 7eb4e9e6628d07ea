import json
import os
import random
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nltk
import pytest
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTrainer

from hp_lightning.config import TokenizerConfig, TrainConfig
from hp_lightning.corpus import Document, Splits, read_documents, split_documents
from hp_lightning.tokenization import EOS, UNK, Tokenizer, fit_tokenizer, tokenizer_from_state

PROJECT = Path(__file__).resolve().parent.parent
WORD = TokenizerConfig(kind="word", vocab_size=None, min_frequency=1)
CHAR = replace(WORD, kind="char")
MakeConfig = Callable[..., TrainConfig]


class Fitted:
    """A tokenizer, the texts it was learned from, and NLTK by itself, trained on the same texts."""

    def __init__(self, cfg: TokenizerConfig, texts: list[str], unseen: list[str]) -> None:
        self.texts, self.unseen = texts, unseen
        self.tokenizer = fit_tokenizer(cfg, texts)
        trainer = PunktTrainer()
        for text in texts:
            trainer.train(text, finalize=False)
        trainer.finalize_training()
        self._punkt = PunktSentenceTokenizer(trainer.get_params())
        self._words = NLTKWordTokenizer()

    def sentences(self, text: str) -> Iterator[str]:
        for paragraph in text.split("\n"):
            yield from self._punkt.tokenize(paragraph)

    def tokens(self, text: str) -> list[str]:
        """NLTK's words, a line break between paragraphs."""
        found: list[str] = []
        for paragraph in text.split("\n"):
            for sentence in self._punkt.tokenize(paragraph):
                found += self._words.tokenize(sentence)
            found.append("\n")
        return found[:-1]


@pytest.fixture(scope="module")
def splits(make_config: MakeConfig) -> Splits:
    cfg = make_config().data
    return split_documents(read_documents(cfg), cfg)


def texts_of(documents: list[Document]) -> list[str]:
    return [document.text for document in documents]


@pytest.fixture(scope="module")
def stories(make_config: MakeConfig, splits: Splits) -> Fitted:
    """The bundled corpus with the settings of a plain run."""
    return Fitted(make_config().tokenizer, texts_of(splits.train), texts_of(splits.val + splits.test))


@pytest.fixture(scope="module")
def addresses(make_config: MakeConfig, shared_data: Path) -> Fitted:
    """Seven State of the Union addresses of seven presidents, and three others that are not learned from."""
    path = shared_data / "state_union.csv"
    cfg = make_config("data=csv", f"data.path='{path}'", "data.group_columns=[president,year]")
    texts = texts_of(read_documents(cfg.data))
    return Fitted(cfg.tokenizer, texts[2::9], texts[6::20])


@pytest.fixture(params=["stories", "addresses"])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    found: Fitted = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def few(splits: Splits) -> list[str]:
    """Two chapters: enough to learn a vocabulary from, again and again."""
    return texts_of(splits.train[:2])


def test_word_tokens_are_those_of_nltk(fitted: Fitted) -> None:
    vocabulary = fitted.tokenizer.vocabulary
    for text in fitted.texts[::6] + fitted.unseen:
        tokens = fitted.tokens(text)
        assert fitted.tokenizer.tokens(text) == tokens
        known = [token if token in vocabulary.ids else UNK for token in tokens]
        assert [vocabulary.tokens[token_id] for token_id in fitted.tokenizer.encode(text)] == known


def test_learned_collocations_are_those_of_nltk() -> None:
    days = [f"day{letter}" for letter in "abcdefghijklm"]
    text = " ".join(f"The {day} was held on the 4. May of that year. Then all went home by night." for day in days)
    fitted = Fitted(WORD, [text], [])
    assert "4." in fitted.tokens(text)  # a stop before a capital letter that ends no sentence
    assert fitted.tokenizer.tokens(text) == fitted.tokens(text)


def test_words_need_no_nltk_data(monkeypatch: pytest.MonkeyPatch, few: list[str]) -> None:
    def no_download(*_: Any, **__: Any) -> None:
        pytest.fail("a download was tried")

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", no_download)
    tokenizer = fit_tokenizer(WORD, few)
    tokenizer = tokenizer_from_state(tokenizer.state())
    assert tokenizer.vocabulary.unk_id not in tokenizer.encode(few[0])


@pytest.mark.parametrize("min_frequency", [1, 2, 5])
@pytest.mark.parametrize("vocab_size", [None, 1_000_000, 100, 3])
@pytest.mark.parametrize("kind", ["word", "char"])
def test_vocabulary_is_the_most_common_tokens(
    few: list[str], kind: str, vocab_size: int | None, min_frequency: int
) -> None:
    tokenizer = fit_tokenizer(TokenizerConfig(kind, vocab_size, min_frequency), few)
    counts = Counter(token for text in few for token in (text if kind == "char" else tokenizer.tokens(text)))
    frequent = [token for token, count in counts.items() if count >= min_frequency]
    special, kept = tokenizer.vocabulary.tokens[:2], tokenizer.vocabulary.tokens[2:]
    assert set(special) == {UNK, EOS}
    assert len(kept) == min(len(frequent), len(frequent) if vocab_size is None else vocab_size - 2)
    assert len(set(kept)) == len(kept)
    frequencies = [counts[token] for token in kept]
    assert frequencies == sorted(frequencies, reverse=True)
    assert frequencies[-1] >= max((counts[token] for token in set(frequent) - set(kept)), default=min_frequency)


def test_vocabulary_of_the_stories_is_learned_from_them_alone(stories: Fitted) -> None:
    counts = Counter(token for text in stories.texts for token in stories.tokens(text))
    vocabulary = stories.tokenizer.vocabulary
    assert set(vocabulary.tokens) == {UNK, EOS} | {token for token, count in counts.items() if count >= 2}
    # A word is <UNK> though it may be common where it must not be learned from.
    unseen = Counter(token for text in stories.unseen for token in stories.tokens(text) if token not in counts)
    word, times = unseen.most_common(1)[0]
    assert times >= 2
    assert stories.tokenizer.encode(word) == [vocabulary.unk_id]
    assert stories.tokenizer.decode(stories.tokenizer.encode(word)) == UNK


LEARN = """
import json, sys
from hp_lightning.config import TokenizerConfig
from hp_lightning.tokenization import fit_tokenizer
tokenizer = fit_tokenizer(TokenizerConfig("word", 300, 1), json.load(sys.stdin))
print(json.dumps(tokenizer.state()))
"""


def test_learning_is_deterministic(few: list[str]) -> None:
    # In another process, where Python's sets have another order.
    process = subprocess.run(
        [sys.executable, "-c", LEARN],
        input=json.dumps(few),
        cwd=PROJECT,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    state = fit_tokenizer(replace(WORD, vocab_size=300), few).state()
    assert fit_tokenizer(replace(WORD, vocab_size=300), few).state() == state
    assert json.loads(process.stdout) == state


def test_state_survives_json(fitted: Fitted) -> None:
    before = fitted.tokenizer
    after = tokenizer_from_state(json.loads(json.dumps(before.state())))
    assert after.state() == before.state()
    for text in fitted.texts[:2] + fitted.unseen[:1]:
        token_ids = before.encode(text)
        assert after.encode(text) == token_ids
        assert after.decode(token_ids) == before.decode(token_ids)


def test_char_state_survives_json(few: list[str]) -> None:
    before = fit_tokenizer(CHAR, few)
    after = tokenizer_from_state(json.loads(json.dumps(before.state())))
    assert after.state() == before.state()
    assert after.decode(after.encode(few[0])) == few[0]


def share_restored(fitted: Fitted, texts: list[str]) -> float:
    """Of the sentences without `<UNK>`, how many come back as they were."""
    tokenizer, restored = fitted.tokenizer, []
    for text in texts:
        for sentence in fitted.sentences(text):
            token_ids = tokenizer.encode(sentence)
            if tokenizer.vocabulary.unk_id not in token_ids:
                restored.append(tokenizer.decode(token_ids) == sentence)
    assert len(restored) >= 100
    return sum(restored) / len(restored)


def test_sentences_of_the_stories_come_back(stories: Fitted) -> None:
    assert share_restored(stories, stories.texts[::4]) >= 0.99
    assert share_restored(stories, stories.unseen) >= 0.99


def test_sentences_of_the_addresses_come_back(addresses: Fitted) -> None:
    assert share_restored(addresses, addresses.texts) >= 0.96
    assert share_restored(addresses, addresses.unseen) >= 0.96


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
    ],
)
def test_text_comes_back_after_a_checkpoint(text: str) -> None:
    tokenizer = tokenizer_from_state(json.loads(json.dumps(fit_tokenizer(WORD, [text] * 2).state())))
    assert tokenizer.tokens(text).count("\n") == text.count("\n")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_stories_come_back_with_their_paragraphs(stories: Fitted) -> None:
    for text in stories.texts[:3] + stories.unseen[:3]:
        written = stories.tokenizer.decode(stories.tokenizer.encode(text))
        assert written.count("\n") == text.count("\n")


def some_token_ids(tokenizer: Tokenizer, text: str) -> Iterator[list[int]]:
    """Passages as they were written, and tokens as a model that has learned nothing draws them."""
    rng = random.Random(0)
    token_ids = tokenizer.encode(text)
    for _ in range(30):
        begin = rng.randrange(len(token_ids))
        yield token_ids[begin : begin + rng.randrange(60)]
        yield rng.choices(range(len(tokenizer.vocabulary)), k=rng.randrange(60))


@pytest.mark.parametrize("kind", ["word", "char"])
def test_decoded_prefix_is_a_prefix(stories: Fitted, kind: str) -> None:
    tokenizer = stories.tokenizer if kind == "word" else fit_tokenizer(CHAR, stories.texts)
    for token_ids in some_token_ids(tokenizer, stories.texts[0]):
        whole = tokenizer.decode(token_ids)
        for end in range(len(token_ids)):
            assert whole.startswith(tokenizer.decode(token_ids[:end]))


@pytest.mark.parametrize("kind", ["word", "char"])
def test_eos_writes_nothing(stories: Fitted, kind: str) -> None:
    tokenizer = stories.tokenizer if kind == "word" else fit_tokenizer(CHAR, stories.texts)
    eos_id = tokenizer.vocabulary.eos_id
    rng = random.Random(0)
    assert tokenizer.decode([eos_id, eos_id]) == ""
    for token_ids in some_token_ids(tokenizer, stories.texts[0]):
        place = rng.randrange(len(token_ids) + 1)
        marked = [eos_id, *token_ids[:place], eos_id, *token_ids[place:], eos_id]
        assert tokenizer.decode(marked) == tokenizer.decode(token_ids)


def test_characters_come_back(stories: Fitted) -> None:
    tokenizer = fit_tokenizer(CHAR, stories.texts)
    alphabet = sorted(set("".join(stories.texts)))
    rng = random.Random(0)
    made_up = ["".join(rng.choices(alphabet, k=rng.randrange(200))) for _ in range(100)]
    for text in [*stories.texts[:5], *made_up, ""]:
        token_ids = tokenizer.encode(text)
        assert len(token_ids) == len(text)
        assert tokenizer.decode(token_ids) == text


def test_unseen_characters_are_unknown(few: list[str]) -> None:
    tokenizer = fit_tokenizer(CHAR, few)
    unk_id = tokenizer.vocabulary.unk_id
    assert [token_id == unk_id for token_id in tokenizer.encode("aß🙂b")] == [False, True, True, False]
    assert tokenizer.decode(tokenizer.encode("aßb")) == f"a{UNK}b"


HOSTILE: dict[str, list[str]] = {
    "quotes and stops": list("\"'`.?!,;:()[]{}-—…“”‘’«» \na1"),
    "printable": list(string.printable),
    "anything": [
        "\x00",
        "\x1c",
        "\x85",
        "\u00a0",
        "\u200b",
        "\u2028",
        "\u3000",
        "\u0301",
        "\ufeff",
        *"éß漢字🙂\r\t\n a.",
    ],
    "what tokenizers treat apart": [
        EOS,
        UNK,
        "``",
        "''",
        "...",
        "--",
        "can't",
        "cannot",
        "Mr. ",
        "$1,000.50",
        "%",
        " ",
    ],
}


@pytest.mark.parametrize("pieces", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_borne(stories: Fitted, pieces: list[str]) -> None:
    rng = random.Random(0)
    texts = ["", *("".join(rng.choices(pieces, k=rng.randrange(40))) for _ in range(200))]
    learned = fit_tokenizer(WORD, texts)
    for tokenizer in (stories.tokenizer, learned):
        for text in texts:
            token_ids = tokenizer.encode(text)
            assert tokenizer.vocabulary.eos_id not in token_ids  # a text cannot end its document
            assert tokenizer.decode(token_ids).count("\n") == text.count("\n")
    assert all(learned.vocabulary.unk_id not in learned.encode(text) for text in texts)


@pytest.mark.parametrize("cfg", [WORD, CHAR], ids=["word", "char"])
def test_nothing_is_encoded_as_nothing(cfg: TokenizerConfig) -> None:
    for texts in ([""], ["One.\nTwo."]):
        tokenizer = fit_tokenizer(cfg, texts)
        assert tokenizer.encode("") == []
        assert tokenizer.decode([]) == ""
