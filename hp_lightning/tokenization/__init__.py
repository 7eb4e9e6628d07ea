"""Text to ids and back. A tokenizer is learned from the training documents alone; its state is plain JSON."""

from collections.abc import Iterable
from typing import Any

from hp_lightning.config import TokenizerConfig
from hp_lightning.tokenization.char import CharTokenizer
from hp_lightning.tokenization.vocabulary import EOS, UNK, Tokenizer
from hp_lightning.tokenization.word import WordTokenizer

__all__ = ["EOS", "UNK", "CharTokenizer", "Tokenizer", "WordTokenizer", "fit_tokenizer", "tokenizer_from_state"]

KINDS: dict[str, type[CharTokenizer] | type[WordTokenizer]] = {"char": CharTokenizer, "word": WordTokenizer}


def fit_tokenizer(cfg: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """Learns the tokenizer `cfg.kind` from the texts of the training documents."""
    return KINDS[cfg.kind].fit(cfg, list(texts))


def tokenizer_from_state(state: dict[str, Any]) -> Tokenizer:
    """The tokenizer whose `state()` this is, as a checkpoint holds it."""
    return KINDS[state["kind"]](state)
