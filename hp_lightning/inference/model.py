"""A trained model, loaded: it generates text and scores text."""

from collections import deque
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np

from hp_lightning import checkpoint
from hp_lightning.checkpoint import LoadedCheckpoint
from hp_lightning.inference.fast_decoding import optimize_for_inference
from hp_lightning.inference.generate import Sample, Sampling, check_memory, sampling, stream
from hp_lightning.inference.metrics import score_tokens
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.generate import generate_settings
from hp_lightning.schema.train import TrainConfig
from hp_lightning.tokenizers import Tokenizer

BATCH_SIZE = 32  # sequences that are scored at a time


class TokenScore(NamedTuple):
    """A token of a text, and how likely the model found it after all that precedes it."""

    token: str  # as the tokenizer has it: of bpe in GPT-2's alphabet of bytes; one that is unknown as it was typed
    log_prob: float  # natural logarithm


class Model:
    """A trained model.

    Args:
        trained: its checkpoint
    """

    def __init__(self, trained: LoadedCheckpoint) -> None:
        self._trained = trained
        self.path: Path = trained.path
        self.step: int = trained.step  # optimizer steps that it was trained for
        self.cfg: TrainConfig = trained.cfg
        self.tokenizer: Tokenizer = trained.tokenizer

    @classmethod
    def load(cls, path: Path) -> "Model":
        """Read a checkpoint; nothing in it is executed.

        Raises:
            InputError: it cannot be read, is damaged, or is none of hp_lightning's
        """
        return cls(checkpoint.load(path))

    def __repr__(self) -> str:
        return f"Model({str(self.path)!r}, step={self.step}, parameters={self.net.num_parameters():,})"

    @property
    def context(self) -> int:
        """Tokens that the model looks back."""
        return self.cfg.data.seq_len

    @cached_property
    def net(self) -> GPT:
        """The network, in evaluation mode: `net(token_ids)` gives logits, (B, T) to (B, T, V)."""
        return self._trained.net()

    @cached_property
    def _decoder(self) -> GPT:
        return optimize_for_inference(self._trained.net())

    def stream(self, prompt: str, how: Sampling) -> Iterator[list[Sample]]:
        """The samples after each token by which they have grown.

        Raises:
            InputError: so many samples do not fit into memory
        """
        check_memory(self._decoder, how.num_samples, self.context)
        return stream(self._decoder, self.tokenizer, normalize("NFC", prompt), self.context, how)

    def generate(self, prompt: str = "", **settings: Any) -> list[str]:
        """Continue a prompt: `num_samples` texts, each with the prompt before it.

        Args:
            prompt: an empty one starts a document
            settings: keys of `hp-lightning generate`, with its defaults: num_samples, max_new_tokens, temperature,
                top_k, top_p, min_p, repetition_penalty, seed

        Raises:
            InputError: a setting is unknown or out of its range
        """
        [samples] = deque(self.stream(prompt, sampling(generate_settings(settings))), maxlen=1)
        return [prompt + sample.text for sample in samples]

    def score(self, text: str) -> list[TokenScore]:
        """How likely each token of a text is, which is taken as the start of a document.

        Every token is predicted from at least half of `context`, where the text has as much before it.
        """
        token_ids = [self.tokenizer.vocabulary.eos_id, *self.tokenizer.encode(text := normalize("NFC", text)).tolist()]
        if len(token_ids) == 1:
            return []
        stride = max(self.context // 2, 1)
        scores = score_tokens(self.net, np.array(token_ids, np.int32), self.context, stride, BATCH_SIZE)
        tokens = self.tokenizer.tokens(text)
        return [TokenScore(token, -float(loss)) for token, loss in zip(tokens, scores.losses, strict=True)]
