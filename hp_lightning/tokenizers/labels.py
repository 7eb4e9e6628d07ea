"""Tokens as labels in figures and lists."""

from collections.abc import Iterable

from hp_lightning.tokenizers import Tokenizer

VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍", "\u3000": "␣"})


def labels(tokenizer: Tokenizer, token_ids: Iterable[int]) -> list[str]:
    """What each token writes, with spaces and breaks made visible; its name where it writes nothing by itself."""
    tokens = tokenizer.vocabulary.tokens
    return ["".join(_printable(tokenizer.decode([i]) or tokens[i])) for i in token_ids]


def _printable(text: str) -> Iterable[str]:
    for character in text.translate(VISIBLE):
        yield character if character.isprintable() else "·"
