"""How text becomes ids: `conf/tokenizer/`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from hp_lightning.common.errors import InputError
from hp_lightning.schema.setting import number, one_of, setting


@dataclass
class TokenizerConfig:
    """How text becomes ids."""

    kind: str = setting("word", "NLTK's words, characters, or byte-level BPE", one_of("word", "char", "bpe"))
    vocab_size: Optional[int] = setting(
        10_000, "most tokens of the vocabulary, special tokens included; null: no bound", number(at_least=1)
    )
    min_frequency: int = setting(
        2, "rarer tokens become <UNK>; with bpe, rarer pairs are not merged", number(at_least=1)
    )
    lowercase: bool = setting(False, "whether the text is lowercased")
    from_run: Optional[str] = setting(
        None, "run folder or checkpoint whose tokenizer is taken as it is; null: one is learned", verbatim=True
    )


def tokenizer_rules(tokenizer: TokenizerConfig) -> Iterator[InputError]:
    """A vocabulary has room for more than the special tokens."""
    least, holds = (257, "256 bytes and <EOS>") if tokenizer.kind == "bpe" else (3, "<UNK>, <EOS> and a token")
    if tokenizer.vocab_size is not None and tokenizer.vocab_size < least:
        yield InputError(
            "config.out_of_range",
            f"tokenizer.vocab_size={tokenizer.vocab_size} is too small: it must be at least {least}, for {holds}",
        )
