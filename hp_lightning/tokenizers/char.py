"""One token a character."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.tokenizers.arrays import Ids
from hp_lightning.tokenizers.base import EOS, SPECIAL_TOKENS, UNK, Learned, Vocabulary


class CharTokenizer:
    """Every character of the training text is a token; others are `<UNK>`."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.vocabulary = Vocabulary(state["vocabulary"])
        self._lowercase: bool = state["lowercase"]
        characters = self.vocabulary.tokens[len(SPECIAL_TOKENS) :]
        order = sorted(range(len(characters)), key=characters.__getitem__)
        self._codes = np.array([ord(characters[rank]) for rank in order], np.uint32)
        self._ids = np.array([rank + len(SPECIAL_TOKENS) for rank in order], np.int32)

    @classmethod
    def learn(cls, cfg: TokenizerConfig, texts: list[str]) -> Learned:
        """Learn the vocabulary: the most common characters, ties in their own order."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text.lower() if cfg.lowercase else text)
        ranked = sorted(counts, key=lambda character: (-counts[character], character))
        kept = [character for character in ranked if counts[character] >= cfg.min_frequency]
        bound = None if cfg.vocab_size is None else cfg.vocab_size - len(SPECIAL_TOKENS)
        tokenizer = cls({"vocabulary": [*SPECIAL_TOKENS, *kept[:bound]], "lowercase": cfg.lowercase})
        return Learned(tokenizer, [tokenizer.encode(text) for text in texts], counts)

    def state(self) -> dict[str, Any]:
        return {"kind": "char", "lowercase": self._lowercase, "vocabulary": self.vocabulary.tokens}

    def library_form(self) -> tokenizers.Tokenizer:
        ids = {token: token_id for token_id, token in enumerate(self.vocabulary.tokens)}
        form = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=UNK))
        form.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
        form.decoder = decoders.Fuse()
        return form

    def tokens(self, text: str) -> list[str]:
        return list(text.lower() if self._lowercase else text)

    def encode(self, text: str) -> Ids:
        # A prompt may hold surrogates: the bytes of a command line that could not be decoded.
        text = text.lower() if self._lowercase else text
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = np.full(len(codes), self.vocabulary.unk_id, np.int32)
        if len(self._codes):
            places = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
            known = self._codes[places] == codes
            ids[known] = self._ids[places[known]]
        return ids

    def pieces(self, token_ids: Iterable[int]) -> Iterator[str]:
        for token_id in token_ids:
            token = self.vocabulary.tokens[token_id]
            yield "" if token == EOS else token

    def decode(self, token_ids: Iterable[int]) -> str:
        return "".join(self.pieces(token_ids))
