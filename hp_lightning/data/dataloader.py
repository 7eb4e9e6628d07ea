"""A stream of token ids to batches: which sequence comes when, and on which device."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hp_lightning.common.errors import InputError

IGNORED = -100  # the target of a position that does not count, as in `torch.nn.functional.cross_entropy`
Batch = tuple[Tensor, Tensor]  # token_ids and targets, each (B, T)


class TrainSequences:
    """Sequences of the training stream in random order: which comes when is a function of (seed, epoch, position).

    Each epoch cuts the stream again, from a random offset on: a token does not always stand at the same place of a
    sequence. Sequences that do not fill an optimizer step are left out of the epoch. Of each batch every device gets an
    equal share: the run is the same on any number of them.
    """

    def __init__(
        self,
        stream: Tensor,
        seq_len: int,
        batch_size: int,
        seed: int,
        accumulate: int = 1,
        devices: int = 1,
        first_step_alone: bool = False,
    ) -> None:
        self._stream = stream
        self._seq_len = seq_len
        self._seed = seed
        predicted = len(stream) - 1
        self._num_sequences = max((predicted - (seq_len - 1)) // seq_len, 1)
        self._max_offset = predicted - self._num_sequences * seq_len
        if self._num_sequences < accumulate * devices:
            over = f" times trainer.devices={devices}" if devices > 1 else ""
            raise InputError(
                "data.too_few_sequences",
                f"the training split has {self._num_sequences} sequences, fewer than "
                f"trainer.accumulate_grad_batches={accumulate}{over}: lower it or data.seq_len, or bring more text",
            )
        self.batch_size = min(batch_size, self._num_sequences // accumulate) // devices * devices
        self.accumulate = accumulate
        self.devices = devices
        self._rank = 0
        self._batches = self._num_sequences // (self.batch_size * accumulate) * accumulate
        self._first_step_alone = first_step_alone
        if first_step_alone:
            self._batches = accumulate
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
            sequences = self._stream[starts[first : first + share, None] + within].long()
            self._served += 1
            yield sequences[:, :-1], sequences[:, 1:]

    def state_dict(self) -> dict[str, Any]:
        """How far the loader is; Lightning puts it into the checkpoint."""
        return {"served": self._served}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where another loader over the same stream was."""
        self._served = state["served"]

    def starts(self, batch: int) -> npt.NDArray[np.int64]:
        """Where the sequences of a batch, of all devices, start in the stream; batches are counted over all epochs."""
        epoch, position = divmod(batch, len(self))
        return self._starts(epoch)[position * self.batch_size : (position + 1) * self.batch_size]

    def _starts(self, epoch: int) -> npt.NDArray[np.int64]:
        """Where each sequence of an epoch starts, in the order in which they are served."""
        random = np.random.default_rng((self._seed, 0 if self._first_step_alone else epoch))
        offset = random.integers(self._max_offset + 1)
        return random.permutation(self._num_sequences) * self._seq_len + offset


class EvalSequences:
    """A stream in consecutive sequences; the last is padded with positions that do not count.

    Of N processes each takes every Nth sequence, and each token is seen by one of them.
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
