"""Text to ids and back. A tokenizer is learned from the training documents alone; its state is plain JSON."""

from typing import Any

from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.tokenizers.base import EOS, UNK, Learned, Tokenizer
from hp_lightning.tokenizers.bpe import BPETokenizer
from hp_lightning.tokenizers.char import CharTokenizer
from hp_lightning.tokenizers.nltk_words import QUOTES
from hp_lightning.tokenizers.word import WordTokenizer

__all__ = [
    "EOS", "UNK", "BPETokenizer", "CharTokenizer", "Learned", "Tokenizer", "WordTokenizer", "learn_tokenizer",
    "tokenizer_from_state", "unknown_tokens",
]  # fmt: skip

KINDS: dict[str, type[CharTokenizer] | type[WordTokenizer] | type[BPETokenizer]] = {
    "char": CharTokenizer,
    "word": WordTokenizer,
    "bpe": BPETokenizer,
}


LONGEST_SHOWN = 60  # characters of an unknown token


def learn_tokenizer(cfg: TokenizerConfig, texts: list[str]) -> Learned:
    """Learn the tokenizer `cfg.kind` from the texts of the training documents."""
    return KINDS[cfg.kind].learn(cfg, texts)


def tokenizer_from_state(state: dict[str, Any]) -> Tokenizer:
    """The tokenizer whose `state()` this is, as a checkpoint holds it."""
    return KINDS[state["kind"]](state)


def unknown_tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    """The tokens of a text that are read as `<UNK>`, each once, as they are shown: quotes as usual, long ones cut."""
    unknown = tokenizer.vocabulary.unknown(tokenizer.tokens(text))
    shown = [QUOTES[token][0] if token in QUOTES else token for token in unknown]
    return [token if len(token) <= LONGEST_SHOWN else f"{token[:LONGEST_SHOWN]}…" for token in shown]
