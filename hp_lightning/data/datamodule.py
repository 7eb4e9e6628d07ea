"""The data of a run, as Lightning takes it: a loader for each split, and what is known of the corpus."""

import math

import lightning as L
import numpy as np
import torch
from torch import Tensor

from hp_lightning.common.errors import InputError
from hp_lightning.data.dataloader import EvalSequences, TrainSequences
from hp_lightning.data.dataset import TokenizedCorpus, tokenize_corpus
from hp_lightning.schema.train import TrainConfig


class CorpusDataModule(L.LightningDataModule):
    """The corpus of a run: read, split, tokenized, and served in batches.

    Args:
        cfg: `cfg.data` says how the corpus is cut, `cfg.seed` draws the order of the training sequences; an epoch is a
            whole number of optimizer steps of `cfg.trainer.accumulate_grad_batches` batches, and `cfg.trainer.devices`
            processes share each batch
        corpus: the text as ids; read and tokenized by `cfg` where it is None

    Raises:
        InputError: the corpus cannot be read, or is too short for one sequence
    """

    def __init__(self, cfg: TrainConfig, corpus: TokenizedCorpus | None = None) -> None:
        super().__init__()
        self.cfg = cfg.data
        self.corpus = tokenize_corpus(cfg.data, cfg.tokenizer) if corpus is None else corpus
        self.tokenizer = self.corpus.tokenizer
        self.streams = {split: torch.from_numpy(stream) for split, stream in self.corpus.streams.items()}
        if self.num_tokens("train") < self.cfg.seq_len:
            raise InputError(
                "data.too_short",
                f"the training split of data.path={self.cfg.path} has {self.num_tokens('train')} tokens, fewer than "
                f"one sequence of data.seq_len={self.cfg.seq_len}: lower data.seq_len or bring more text",
            )
        self._batch_size = self.cfg.batch_size or self.cfg.usual_batch_size
        self._train_sequences = TrainSequences(
            self.streams["train"],
            self.cfg.seq_len,
            self._batch_size,
            cfg.seed,
            cfg.trainer.accumulate_grad_batches,
            cfg.trainer.devices,
            first_step_alone=cfg.debug == "overfit",
        )

    @property
    def digest(self) -> str:
        """A digest that tells one corpus, as it was split and tokenized, from another."""
        return self.corpus.digest

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in which every training sequence is seen once."""
        return len(self._train_sequences) // self._train_sequences.accumulate

    @property
    def tokens_per_step(self) -> int:
        """Training tokens that an optimizer step sees."""
        return self._train_sequences.batch_size * self.cfg.seq_len * self._train_sequences.accumulate

    def num_tokens(self, split: str) -> int:
        """Tokens of a split that are predicted, each `<EOS>` included."""
        return len(self.streams[split]) - 1

    def num_characters(self, split: str) -> int:
        """Characters of the split's text."""
        return self.corpus.facts.splits[split].characters

    def bits_per_char(self, split: str, loss: float) -> float:
        """A loss in nats per token as bits per character of the split's text, which compares tokenizers."""
        return loss * self.num_tokens(split) / math.log(2) / self.num_characters(split)

    def unk_rate(self, split: str) -> float:
        """Share of the split's tokens that are `<UNK>`."""
        unk_id = self.tokenizer.vocabulary.unk_id
        if unk_id is None:
            return 0.0
        return (self.streams[split][1:] == unk_id).sum().item() / max(self.num_tokens(split), 1)

    def unigram_loss(self, split: str) -> float:
        """Cross-entropy, in nats per token, of guessing each token by its frequency in the training split (add-one)."""
        return self.corpus.unigram_loss(split)

    def unigram_losses(self) -> Tensor:
        """The same for each token of the vocabulary: (tokens,)."""
        return torch.from_numpy(self.corpus.unigram_losses())

    def documents_of_step(self, step: int) -> list[str]:
        """The names of the documents that an optimizer step, counted from 1, has seen, in the order of the corpus."""
        accumulate = self._train_sequences.accumulate
        batches = range((step - 1) * accumulate, step * accumulate)
        begins = np.concatenate([self._train_sequences.starts(batch) for batch in batches])
        # The stream starts with <EOS>, and ends each document with another.
        ends = np.flatnonzero(self.corpus.streams["train"] == self.tokenizer.vocabulary.eos_id)[1:]
        first, last = (np.searchsorted(ends, begins + shift) for shift in (1, self.cfg.seq_len))
        seen = {index for begin, end in zip(first, last, strict=True) for index in range(begin, end + 1)}
        return [self.corpus.documents["train"][index].name for index in sorted(seen)]

    def train_dataloader(self) -> TrainSequences:
        """The training sequences, in an order of their own in every epoch; this process's share of them."""
        self._train_sequences.share_out(self._rank(), self._device())
        return self._train_sequences

    def val_dataloader(self) -> EvalSequences:
        """Every token of the validation split, once; this process's share of them."""
        return self._eval_sequences("val")

    def test_dataloader(self) -> EvalSequences:
        """Every token of the test split, once; this process's share of them."""
        return self._eval_sequences("test")

    def _eval_sequences(self, split: str) -> EvalSequences:
        size = max(self._batch_size // self._train_sequences.devices, 1)
        rank, devices = self._rank(), self._train_sequences.devices
        return EvalSequences(self.streams[split], self.cfg.seq_len, size, rank, devices, self._device())

    def _rank(self) -> int:
        if self.trainer is None:
            return 0
        if self.trainer.world_size != self._train_sequences.devices:
            raise InputError(
                "config.conflict",
                f"trainer.devices={self._train_sequences.devices}, and Lightning's Trainer has "
                f"{self.trainer.world_size}: give both the same",
            )
        return self.trainer.global_rank

    def _device(self) -> torch.device | None:
        """Where the ids lie from the start, to move no batch; None outside a run."""
        return None if self.trainer is None else self.trainer.strategy.root_device
