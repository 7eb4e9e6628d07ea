"""The encoded corpus to batches: cut into windows, in an order that can be resumed."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from hp_lightning.config import DataConfig, TokenizerConfig
from hp_lightning.encoding import encode_corpus
from hp_lightning.errors import InputError
from hp_lightning.tokenization import Tokenizer

IGNORED = -100  # the target of a position that only fills a window up, as in `torch.nn.functional.cross_entropy`

Batch = tuple[Tensor, Tensor]  # token_ids and targets, each (B, T)


class CorpusDataModule(L.LightningDataModule):
    """The corpus of a run: read, split, tokenized, and served in batches.

    Args:
        cfg: where the text is and how it is cut
        tokenizer: the tokenizer to be learned, or one that is known already (from a checkpoint)
        seed: draws the order of the training windows
        accumulate: batches an optimizer step is made of; an epoch is a whole number of steps

    Raises:
        InputError: the corpus cannot be read or is too short for one window
    """

    def __init__(self, cfg: DataConfig, tokenizer: TokenizerConfig | Tokenizer, seed: int, accumulate: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.corpus = encode_corpus(cfg, tokenizer)
        self.tokenizer = self.corpus.tokenizer
        self.streams = {part: torch.from_numpy(stream) for part, stream in self.corpus.streams.items()}
        if self.num_tokens("train") < cfg.seq_len:
            raise InputError(
                f"the training part of data.path={cfg.path} has {self.num_tokens('train')} tokens, fewer than one "
                f"window of data.seq_len={cfg.seq_len}: lower data.seq_len or bring more text"
            )
        self._train_windows = TrainWindows(self.streams["train"], cfg.seq_len, cfg.batch_size, seed, accumulate)

    @property
    def digest(self) -> str:
        """Tells one corpus, as it was split and tokenized, from another."""
        digest = hashlib.sha256()
        for stream in self.streams.values():
            digest.update(stream.numpy().tobytes() + b"|")
        return digest.hexdigest()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every training window is seen once."""
        return len(self._train_windows) // self._train_windows.accumulate

    @property
    def tokens_per_step(self) -> int:
        """Training tokens an optimizer step sees."""
        return self._train_windows.batch_size * self.cfg.seq_len * self._train_windows.accumulate

    def num_tokens(self, part: str) -> int:
        """Tokens of a part that are predicted, each `<EOS>` included."""
        return len(self.streams[part]) - 1

    def num_characters(self, part: str) -> int:
        """Characters of the part's text."""
        return self.corpus.facts.parts[part].characters

    def bits_per_char(self, part: str, loss: float) -> float:
        """A loss in nats a token as bits a character of the part's text, which can be compared between tokenizers."""
        return loss * self.num_tokens(part) / math.log(2) / self.num_characters(part)

    def unk_rate(self, part: str) -> float:
        """Share of the part's tokens that are `<UNK>`."""
        unk_id = self.tokenizer.vocabulary.unk_id
        if unk_id is None:
            return 0.0
        return (self.streams[part][1:] == unk_id).sum().item() / max(self.num_tokens(part), 1)

    def unigram_loss(self, part: str) -> float:
        """Cross-entropy, in nats a token, of guessing each token by its frequency in the training part (add-one)."""
        size = len(self.tokenizer.vocabulary)
        counts = torch.bincount(self.streams["train"][1:], minlength=size).double() + 1
        return float(-(counts / counts.sum()).log()[self.streams[part][1:].long()].mean())

    def train_dataloader(self) -> "TrainWindows":
        """The training windows, in an order of their own in every epoch."""
        return self._train_windows

    def val_dataloader(self) -> "EvalWindows":
        """Every token of the validation part, once."""
        return EvalWindows(self.streams["val"], self.cfg.seq_len, self.cfg.batch_size)

    def test_dataloader(self) -> "EvalWindows":
        """Every token of the test part, once."""
        return EvalWindows(self.streams["test"], self.cfg.seq_len, self.cfg.batch_size)


class TrainWindows:
    """Windows of the training stream in random order; which batch comes when is a function of (seed, epoch, position).

    Each epoch cuts the stream anew, from a random offset on, so that a token does not always stand at the same place
    of a window. Windows that do not fill an optimizer step are left out of the epoch.
    """

    def __init__(self, stream: Tensor, seq_len: int, batch_size: int, seed: int, accumulate: int = 1) -> None:
        self._stream = stream
        self._seq_len = seq_len
        self._seed = seed
        predicted = len(stream) - 1
        self._num_windows = max((predicted - (seq_len - 1)) // seq_len, 1)
        self._max_offset = predicted - self._num_windows * seq_len
        if self._num_windows < accumulate:
            raise InputError(
                f"the training part has {self._num_windows} windows, fewer than "
                f"trainer.accumulate_grad_batches={accumulate}: lower it or data.seq_len, or bring more text"
            )
        self.batch_size = min(batch_size, self._num_windows // accumulate)
        self.accumulate = accumulate
        self._batches = self._num_windows // (self.batch_size * accumulate) * accumulate
        self._served = 0  # batches, over all epochs

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch that `state_dict` stands in."""
        epoch, position = divmod(self._served, len(self))
        starts = self._starts(epoch)
        within = torch.arange(self._seq_len + 1)
        for first in range(position * self.batch_size, len(self) * self.batch_size, self.batch_size):
            windows = self._stream[starts[first : first + self.batch_size, None] + within].long()
            self._served += 1
            yield windows[:, :-1], windows[:, 1:]

    def state_dict(self) -> dict[str, Any]:
        """How far the loader is; Lightning puts it into the checkpoint."""
        return {"served": self._served}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where another loader over the same stream was."""
        self._served = state["served"]

    def _starts(self, epoch: int) -> Tensor:
        """Where each window of an epoch begins, in the order in which they are served."""
        random = np.random.default_rng((self._seed, epoch))
        offset = random.integers(self._max_offset + 1)
        return torch.from_numpy(random.permutation(self._num_windows) * self._seq_len + offset)


class EvalWindows:
    """A stream in windows that follow each other; the last is filled up with positions that do not count."""

    def __init__(self, stream: Tensor, seq_len: int, batch_size: int) -> None:
        self._batch_size = batch_size
        predicted = len(stream) - 1
        size = -(-predicted // seq_len) * seq_len
        self._token_ids = torch.full((size,), int(stream[0]))
        self._targets = torch.full((size,), IGNORED)
        self._token_ids[:predicted] = stream[:-1]
        self._targets[:predicted] = stream[1:]
        self._token_ids = self._token_ids.view(-1, seq_len)
        self._targets = self._targets.view(-1, seq_len)

    def __len__(self) -> int:
        return -(-len(self._targets) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        yield from zip(
            torch.split(self._token_ids, self._batch_size), torch.split(self._targets, self._batch_size), strict=True
        )
