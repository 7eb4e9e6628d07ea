"""NLTK's words: sentences by a Punkt model (Kiss & Strunk 2006, doi:10.1162/coli.2006.32.4.485) trained on the
training text itself, words by NLTK's improved Treebank tokenizer. No download of NLTK data is needed.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from nltk.tokenize.destructive import NLTKWordTokenizer
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer, PunktTrainer

from hp_lightning.config import TokenizerConfig
from hp_lightning.tokenization.spacing import Spacing
from hp_lightning.tokenization.vocabulary import EOS, SPECIAL_TOKENS, Vocabulary

LINE_BREAK = "\n"


class WordTokenizer:
    """Words and punctuation marks; the end of a paragraph is a token of its own."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(state["vocabulary"])
        self._punkt_state = state["punkt"]
        self._sentences = PunktSentenceTokenizer(_punkt_parameters(state["punkt"]))
        self._words = NLTKWordTokenizer()
        self._spacing = Spacing(state["spacing"])

    @classmethod
    def fit(cls, cfg: TokenizerConfig, texts: list[str]) -> "WordTokenizer":
        """Learns where sentences end, the vocabulary, and between which tokens a space stands."""
        punkt_state = _train_punkt(texts)
        bare = cls({"vocabulary": list(SPECIAL_TOKENS), "punkt": punkt_state, "spacing": None})
        lines = [(line, bare.tokens(line)) for text in texts for line in text.split(LINE_BREAK)]
        counts = Counter(token for _, tokens in lines for token in tokens)
        counts[LINE_BREAK] = len(lines) - len(texts)
        vocabulary = Vocabulary.fit(+counts, cfg)
        spacing = Spacing.fit(lines)
        return cls({"vocabulary": vocabulary.tokens, "punkt": punkt_state, "spacing": spacing.state()})

    def state(self) -> dict[str, Any]:
        return {
            "kind": "word",
            "vocabulary": self.vocabulary.tokens,
            "punkt": self._punkt_state,
            "spacing": self._spacing.state(),
        }

    def tokens(self, text: str) -> list[str]:
        found: list[str] = []
        for number, line in enumerate(text.split(LINE_BREAK)):
            if number:
                found.append(LINE_BREAK)
            for sentence in self._sentences.tokenize(line):
                found.extend(self._words.tokenize(sentence))
        return found

    def encode(self, text: str) -> list[int]:
        return self.vocabulary.encode(self.tokens(text))

    def decode(self, token_ids: Iterable[int]) -> str:
        text: list[str] = []
        before: str | None = None  # the token before, on the same line
        for token_id in token_ids:
            token = self.vocabulary.tokens[token_id]
            if token == EOS:
                continue
            if token == LINE_BREAK:
                text.append(LINE_BREAK)
                before = None
                continue
            if before is not None and self._spacing.stands_between(before, token):
                text.append(" ")
            text.append(self._spacing.written(token))
            before = token
        return "".join(text)


def _train_punkt(texts: list[str]) -> dict[str, Any]:
    trainer = PunktTrainer()
    for text in texts:
        trainer.train(text, finalize=False)
    trainer.finalize_training()
    parameters = trainer.get_params()
    return {
        "abbreviations": sorted(parameters.abbrev_types),
        "collocations": sorted([first, second] for first, second in parameters.collocations),
        "sentence_starters": sorted(parameters.sent_starters),
        "orthographic_context": {word: int(flags) for word, flags in sorted(parameters.ortho_context.items())},
    }


def _punkt_parameters(state: dict[str, Any]) -> PunktParameters:
    parameters = PunktParameters()
    parameters.abbrev_types = set(state["abbreviations"])
    parameters.collocations = {(first, second) for first, second in state["collocations"]}
    parameters.sent_starters = set(state["sentence_starters"])
    parameters.ortho_context.update(state["orthographic_context"])
    return parameters
