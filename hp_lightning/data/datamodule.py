"""The encoded corpus to batches: cut into windows, in an order that can be resumed."""

import math
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hp_lightning.common.errors import InputError
from hp_lightning.data.dataset import TokenizedCorpus
from hp_lightning.schema.data import DataConfig

IGNORED = -100  # the target of a position that does not count, as in `torch.nn.functional.cross_entropy`
Batch = tuple[Tensor, Tensor]  # token_ids and targets, each (B, T)


class CorpusDataModule(L.LightningDataModule):
    """The corpus of a run: read, split, tokenized, and served in batches.

    Args:
        cfg: how the corpus is cut; `cfg.batch_size` must be set
        corpus: the text as ids
        seed: draws the order of the training windows
        accumulate: batches an optimizer step is made of; an epoch is a whole number of steps
        devices: a batch is shared out over so many

    Raises:
        InputError: the corpus is too short for one window
    """

    def __init__(self, cfg: DataConfig, corpus: TokenizedCorpus, seed: int, accumulate: int, devices: int = 1) -> None:
        super().__init__()
        self.cfg = cfg
        self.corpus = corpus
        self.tokenizer = self.corpus.tokenizer
        self.streams = {part: torch.from_numpy(stream) for part, stream in self.corpus.streams.items()}
        if self.num_tokens("train") < cfg.seq_len:
            raise InputError(
                "data.too_short",
                f"the training part of data.path={cfg.path} has {self.num_tokens('train')} tokens, fewer than one "
                f"window of data.seq_len={cfg.seq_len}: lower data.seq_len or bring more text",
            )
        assert cfg.batch_size is not None
        self._batch_size = cfg.batch_size
        self._train_windows = TrainWindows(
            self.streams["train"], cfg.seq_len, cfg.batch_size, seed, accumulate, devices
        )

    @property
    def digest(self) -> str:
        """Tells one corpus, as it was split and tokenized, from another."""
        return self.corpus.digest

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
        return self.corpus.unigram_loss(part)

    def unigram_losses(self) -> Tensor:
        """The same for each token of the vocabulary: (tokens,)."""
        return torch.from_numpy(self.corpus.unigram_losses())

    def documents_of_step(self, step: int) -> list[str]:
        """The names of the documents that an optimizer step, counted from 1, has seen, in the order of the corpus."""
        accumulate = self._train_windows.accumulate
        batches = range((step - 1) * accumulate, step * accumulate)
        begins = np.concatenate([self._train_windows.starts(batch) for batch in batches])
        # The stream begins with <EOS>, and ends each document with another.
        ends = np.flatnonzero(self.corpus.streams["train"] == self.tokenizer.vocabulary.eos_id)[1:]
        first, last = (np.searchsorted(ends, begins + shift) for shift in (1, self.cfg.seq_len))
        seen = {place for begin, end in zip(first, last, strict=True) for place in range(begin, end + 1)}
        return [self.corpus.documents["train"][place].name for place in sorted(seen)]

    def train_dataloader(self) -> "TrainWindows":
        """The training windows, in an order of their own in every epoch; this process's share of them."""
        self._train_windows.share_out(self._rank(), self._device())
        return self._train_windows

    def val_dataloader(self) -> "EvalWindows":
        """Every token of the validation part, once; this process's share of them."""
        return self._eval_windows("val")

    def test_dataloader(self) -> "EvalWindows":
        """Every token of the test part, once; this process's share of them."""
        return self._eval_windows("test")

    def _eval_windows(self, part: str) -> "EvalWindows":
        size = max(self._batch_size // self._train_windows.devices, 1)
        rank, devices = self._rank(), self._train_windows.devices
        return EvalWindows(self.streams[part], self.cfg.seq_len, size, rank, devices, self._device())

    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank

    def _device(self) -> torch.device | None:
        """Where the ids lie from the start, so that no batch has to be moved; None outside a run."""
        return None if self.trainer is None else self.trainer.strategy.root_device


class TrainWindows:
    """Windows of the training stream in random order; which batch comes when is a function of (seed, epoch, position).

    Each epoch cuts the stream anew, from a random offset on, so that a token does not always stand at the same place
    of a window. Windows that do not fill an optimizer step are left out of the epoch. Of each batch every device gets
    an equal share, so that the run is the same on any number of them.
    """

    def __init__(
        self, stream: Tensor, seq_len: int, batch_size: int, seed: int, accumulate: int = 1, devices: int = 1
    ) -> None:
        self._stream = stream
        self._seq_len = seq_len
        self._seed = seed
        predicted = len(stream) - 1
        self._num_windows = max((predicted - (seq_len - 1)) // seq_len, 1)
        self._max_offset = predicted - self._num_windows * seq_len
        if self._num_windows < accumulate * devices:
            over = f" times trainer.devices={devices}" if devices > 1 else ""
            raise InputError(
                "data.too_few_windows",
                f"the training part has {self._num_windows} windows, fewer than "
                f"trainer.accumulate_grad_batches={accumulate}{over}: lower it or data.seq_len, or bring more text",
            )
        self.batch_size = min(batch_size, self._num_windows // accumulate) // devices * devices
        self.accumulate = accumulate
        self.devices = devices
        self._rank = 0
        self._batches = self._num_windows // (self.batch_size * accumulate) * accumulate
        self._served = 0  # batches, over all epochs

    def share_out(self, rank: int, device: torch.device | None) -> None:
        """From now on gives the share of the process `rank`, on its device."""
        self._rank = rank
        self._stream = self._stream.to(device)

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the epoch that `state_dict` stands in."""
        epoch, position = divmod(self._served, len(self))
        starts = torch.from_numpy(self._starts(epoch)).to(self._stream.device)
        within = torch.arange(self._seq_len + 1, device=self._stream.device)
        share = self.batch_size // self.devices
        for batch in range(position, len(self)):
            first = batch * self.batch_size + self._rank * share
            windows = self._stream[starts[first : first + share, None] + within].long()
            self._served += 1
            yield windows[:, :-1], windows[:, 1:]

    def state_dict(self) -> dict[str, Any]:
        """How far the loader is; Lightning puts it into the checkpoint."""
        return {"served": self._served}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where another loader over the same stream was."""
        self._served = state["served"]

    def starts(self, batch: int) -> npt.NDArray[np.int64]:
        """Where the windows of a batch, of all devices, begin in the stream; batches are counted over all epochs."""
        epoch, position = divmod(batch, len(self))
        return self._starts(epoch)[position * self.batch_size : (position + 1) * self.batch_size]

    def _starts(self, epoch: int) -> npt.NDArray[np.int64]:
        """Where each window of an epoch begins, in the order in which they are served."""
        random = np.random.default_rng((self._seed, epoch))
        offset = random.integers(self._max_offset + 1)
        return random.permutation(self._num_windows) * self._seq_len + offset


class EvalWindows:
    """A stream in windows that follow each other; the last is filled up with positions that do not count.

    Of several processes each takes every so-manieth window, so that each token is seen by one of them.
    """

    def __init__(
        self,
        stream: Tensor,
        seq_len: int,
        batch_size: int,
        rank: int = 0,
        devices: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self._batch_size = batch_size
        predicted = len(stream) - 1
        size = -(-predicted // (seq_len * devices)) * seq_len * devices  # Lightning waits for a device without any
        self._token_ids = torch.full((size,), int(stream[0]))
        self._targets = torch.full((size,), IGNORED)
        self._token_ids[:predicted] = stream[:-1]
        self._targets[:predicted] = stream[1:]
        self._token_ids = self._token_ids.view(-1, seq_len)[rank::devices].to(device)
        self._targets = self._targets.view(-1, seq_len)[rank::devices].to(device)

    def __len__(self) -> int:
        return -(-len(self._targets) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        yield from zip(
            torch.split(self._token_ids, self._batch_size), torch.split(self._targets, self._batch_size), strict=True
        )
