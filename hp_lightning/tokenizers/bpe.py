"""Byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909; bytes as in GPT-2, Radford et al. 2019)."""

import codecs
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from tokenizers import Tokenizer as Encoder
from tokenizers import decoders, models, pre_tokenizers, trainers

from hp_lightning.common.console import watched
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.tokenizers.arrays import Ids
from hp_lightning.tokenizers.base import EOS, Learned, Vocabulary

LINE_BREAK = "\n"
NUM_BYTES = 256
MOST_TOKENS = 2**22  # more than any text asks for: the library takes memory for all that it may make


class BPETokenizer:
    """Frequent sequences of bytes; any text comes back exactly, and nothing is `<UNK>`."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(state["vocabulary"])
        self._lowercase: bool = state["lowercase"]
        self._merges = [(first, second) for first, second in state["merges"]]
        # <EOS> is ours alone: were it known to the library, "<EOS>" in a text would end its document.
        ids = {token: token_id for token_id, token in enumerate(self.vocabulary.tokens[1:])}
        self._encoder = _encoder(models.BPE(vocab=ids, merges=self._merges))
        bytes_of = _bytes_of_characters()
        self._bytes = [b"", *(bytes(bytes_of[character] for character in token) for token in ids)]

    @classmethod
    def learn(cls, cfg: TokenizerConfig, texts: list[str]) -> Learned:
        """Learn which sequences to merge, until there are `vocab_size` tokens or none occurs `min_frequency` times."""
        encoder = _encoder(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=min(cfg.vocab_size or MOST_TOKENS, MOST_TOKENS) - 1,
            min_frequency=cfg.min_frequency,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        encoder.train_from_iterator((text.lower() if cfg.lowercase else text for text in texts), trainer)
        model = encoder.get_vocab()
        tokens = sorted(model, key=model.__getitem__)
        tokenizer = cls({"vocabulary": [EOS, *tokens], "lowercase": cfg.lowercase, "merges": _merges(encoder)})
        encoded = [tokenizer.encode(text) for text in watched("tokenizing", texts)]
        counts = np.bincount(np.concatenate([np.zeros(0, np.int32), *encoded]), minlength=len(tokens) + 1)
        return Learned(tokenizer, encoded, +Counter(dict(zip([EOS, *tokens], counts.tolist(), strict=True))))

    def state(self) -> dict[str, Any]:
        return {
            "kind": "bpe",
            "lowercase": self._lowercase,
            "vocabulary": self.vocabulary.tokens,
            "merges": [list(merge) for merge in self._merges],
        }

    def library_form(self) -> Encoder:
        ids = {token: token_id for token_id, token in enumerate(self.vocabulary.tokens)}
        form = _encoder(models.BPE(vocab=ids, merges=self._merges))
        form.decoder = decoders.ByteLevel()
        return form

    def tokens(self, text: str) -> list[str]:
        return [self.vocabulary.tokens[token_id] for token_id in self.encode(text)]

    def encode(self, text: str) -> Ids:
        # A prompt may hold surrogates, the bytes of a command line that could not be decoded: they become "?".
        text = (text.lower() if self._lowercase else text).encode(errors="replace").decode()
        encoding = self._encoder.encode(text, add_special_tokens=False)
        return np.array(encoding.ids, np.int32) + 1

    def pieces(self, token_ids: Iterable[int]) -> Iterator[str]:
        # A character whose last bytes are still to come is held back.
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        return (decoder.decode(self._bytes[token_id]) for token_id in token_ids)

    def decode(self, token_ids: Iterable[int]) -> str:
        return "".join(self.pieces(token_ids))


def _encoder(model: models.BPE) -> Encoder:
    encoder = Encoder(model)
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(LINE_BREAK, "isolated"),  # the end of a paragraph is a token of its own
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return encoder


def _merges(encoder: Encoder) -> list[list[str]]:
    return [list(merge) for merge in json.loads(encoder.to_str())["model"]["merges"]]


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's printable stand-ins for the bytes: those that are printable are themselves, the others follow U+0100."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(NUM_BYTES) if byte not in printable]
    stand_ins = {chr(NUM_BYTES + number): byte for number, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | stand_ins
