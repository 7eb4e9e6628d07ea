"""What every tokenizer offers, and the vocabulary that all of them share."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from hp_lightning.config import TokenizerConfig

UNK = "<UNK>"  # stands for every token that is not in the vocabulary
EOS = "<EOS>"  # follows every document
SPECIAL_TOKENS = (UNK, EOS)


class Tokenizer(Protocol):
    """Text to token ids and back."""

    vocabulary: "Vocabulary"

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens, without `<EOS>`."""

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of the ids; what it gives for the first n ids stays as it is when more follow."""

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text, known or not."""

    def state(self) -> dict[str, Any]:
        """All there is to it, as plain JSON values."""


class Vocabulary:
    """Tokens and their ids; the special tokens come first."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.ids = {token: token_id for token_id, token in enumerate(tokens)}
        self.unk_id = self.ids[UNK]
        self.eos_id = self.ids[EOS]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def fit(cls, counts: Counter[str], cfg: TokenizerConfig) -> "Vocabulary":
        """The most common tokens that occur `min_frequency` times, by frequency, ties in alphabetical order."""
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [token for token, count in ranked if count >= cfg.min_frequency]
        bound = None if cfg.vocab_size is None else cfg.vocab_size - len(SPECIAL_TOKENS)
        return cls([*SPECIAL_TOKENS, *kept[:bound]])

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Ids of the tokens, `<UNK>` for those that are not in the vocabulary."""
        return [self.ids.get(token, self.unk_id) for token in tokens]

    def unknown(self, tokens: Iterable[str]) -> list[str]:
        """The tokens that are not in the vocabulary, each once, in their order."""
        return [token for token in dict.fromkeys(tokens) if token not in self.ids]
