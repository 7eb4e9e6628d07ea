"""One token a character."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hp_lightning.config import TokenizerConfig
from hp_lightning.tokenization.vocabulary import EOS, Vocabulary


class CharTokenizer:
    """Every character of the training text is a token; others are `<UNK>`."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(state["vocabulary"])

    @classmethod
    def fit(cls, cfg: TokenizerConfig, texts: list[str]) -> "CharTokenizer":
        """Learns the vocabulary from the texts."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        return cls({"vocabulary": Vocabulary.fit(counts, cfg).tokens})

    def state(self) -> dict[str, Any]:
        return {"kind": "char", "vocabulary": self.vocabulary.tokens}

    def tokens(self, text: str) -> list[str]:
        return list(text)

    def encode(self, text: str) -> list[int]:
        return self.vocabulary.encode(text)

    def decode(self, token_ids: Iterable[int]) -> str:
        tokens = (self.vocabulary.tokens[token_id] for token_id in token_ids)
        return "".join(token for token in tokens if token != EOS)
