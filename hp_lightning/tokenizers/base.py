"""What every tokenizer offers, and the vocabulary that all of them share."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tokenizers

UNK = "<UNK>"  # stands for every token that is not in the vocabulary
EOS = "<EOS>"  # follows every document
SPECIAL_TOKENS = (UNK, EOS)


class Tokenizer(Protocol):
    """Text to token ids and back."""

    vocabulary: "Vocabulary"

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """The ids of a text's tokens, without `<EOS>`: (tokens,)."""

    def pieces(self, token_ids: Iterable[int]) -> Iterator[str]:
        """The text of the ids in pieces, one for each as soon as it is there: what it adds to those before."""

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of the ids; what it gives for the first n ids stays as it is when more follow."""

    def tokens(self, text: str) -> list[str]:
        """The tokens of a text, known or not."""

    def state(self) -> dict[str, Any]:
        """All there is to it, as plain JSON values."""

    def library_form(self) -> tokenizers.Tokenizer | None:
        """Its cutting, vocabulary and writing in the library `tokenizers`; None where that cannot do the same."""


@dataclass(frozen=True)
class Learned:
    """A tokenizer, and what was found on the way to it: the texts it was learned from have been cut already."""

    tokenizer: Tokenizer
    encoded: list[npt.NDArray[np.int32]]  # each text as `tokenizer.encode` gives it
    counts: Counter[str]  # of every token of the texts, those left out of the vocabulary too


class Vocabulary:
    """Tokens by their ids; a token that is written in several ways has an id for each.

    `unk_id` is None where every text can be written without `<UNK>`.
    """

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        known: dict[str, int] = {}
        for token_id, token in enumerate(tokens):
            known.setdefault(token, token_id)
        self._known = known
        self.eos_id = known[EOS]
        self.unk_id = known.get(UNK)

    def __len__(self) -> int:
        return len(self.tokens)

    def unwritable(self, rows: int) -> list[int]:
        """The ids that are never written: `<UNK>`, and rows of an embedding table beyond the last token."""
        unknown = [] if self.unk_id is None else [self.unk_id]
        return [*unknown, *range(len(self), rows)]

    def unknown(self, tokens: Iterable[str]) -> list[str]:
        """The tokens that are not in the vocabulary, each once, in their order."""
        return [token for token in dict.fromkeys(tokens) if token not in self._known]


VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\u3000": "␣"})


def labels(tokenizer: Tokenizer, token_ids: Iterable[int]) -> list[str]:
    """What each token writes, with spaces and breaks made visible; its name where it writes nothing by itself."""
    tokens = tokenizer.vocabulary.tokens
    return ["".join(_printable(tokenizer.decode([i]) or tokens[i])) for i in token_ids]


def _printable(text: str) -> Iterable[str]:
    for character in text.translate(VISIBLE):
        yield character if character.isprintable() else "·"
