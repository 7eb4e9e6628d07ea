"""Finetuning of a language model to write the sentiment of a text as a word after it, as in "... → good".

The networks have the form of the one they come from, and the loss is the language model's own; only that of the
label's tokens counts. A network memorizes a few thousand sentences long before it has learned what they say. So every
time a sentence is shown, some of its words are left out and their order may be shuffled; half of the target is the
probability that naive Bayes gives these words by the other sentences, which no network can memorize (distillation,
Hinton et al. 2015, arXiv:1503.02531); and the log-odds of several networks are averaged.
"""

import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler

from hp_lightning.checkpoint import LoadedCheckpoint, load_weights
from hp_lightning.common.errors import InputError
from hp_lightning.models.gpt import GPT
from hp_lightning.models.loss import IGNORED
from hp_lightning.schema.regularization import RegularizationConfig
from hp_lightning.schema.sentiment import FinetuneConfig
from hp_lightning.tasks.sentiment.labels import MARK, LabelReader, label_ids
from hp_lightning.tasks.sentiment.naive_bayes import word_evidence
from hp_lightning.tasks.sentiment.zero_shot import context_ids, word_ids
from hp_lightning.tokenizers import Tokenizer
from hp_lightning.training.optim import clip_gradients, parameter_groups

SORTED_TOGETHER = 20  # batches: texts of about the same length, to pad little
WARMUP_STEPS = 50
CLIP_NORM = 1.0
Batch = tuple[Tensor, Tensor, Tensor]  # token ids, targets and their weights, each (B, T)


@dataclass(frozen=True)
class Example:
    """A labelled text."""

    text: str
    positive: bool


def finetune(
    trained: LoadedCheckpoint, examples: list[Example], cfg: FinetuneConfig, seed: int, say: Callable[[str], None]
) -> LabelReader:
    """Finetune `cfg.networks` networks; each has a share of the examples held out, as far as possible a different one.

    These give its accuracy, and those of all networks set the temperature: each example is classified by a network that
    has not learned it, and the average of the networks, which knows more, is rather too modest than too sure.

    Args:
        trained: gives the tokenizer, the form of the networks and, with `cfg.from_weights`, their first weights
        examples: both sentiments among them
        say: is given lines on the progress

    Raises:
        InputError: the vocabulary lacks the labels, or there are too few examples
    """
    context = trained.cfg.data.seq_len
    nets: list[GPT] = []
    log_odds, truth = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.bool)
    for number in range(cfg.networks):
        kept_back, learned = _hold_out(examples, cfg.val_fraction, seed, number)
        nets.append(_finetuned(trained, learned, cfg, seed + number))
        reader = LabelReader(nets[-1:], trained.tokenizer, cfg.labels, 1.0, context)
        of_net = reader.log_odds([example.text for example in kept_back])
        if not torch.isfinite(of_net).all():
            raise InputError(
                "sentiment.diverged",
                f"finetune.lr={cfg.lr:g}: the network's output is not finite: lower it",
            )
        positive = torch.tensor([example.positive for example in kept_back])
        share = float(((of_net > 0) == positive).double().mean())
        say(f"network {number + 1} of {cfg.networks}: {share:.1%} right of the {len(kept_back):,} rows kept back")
        log_odds, truth = torch.cat([log_odds, of_net]), torch.cat([truth, positive])
    of_positive = float(truth.double().mean())
    if float(((log_odds > 0) == truth).double().mean()) <= max(of_positive, 1 - of_positive):
        say("no better than always naming the commoner sentiment: bring more rows, or take another finetune.lr")
    return LabelReader(nets, trained.tokenizer, cfg.labels, fit_temperature(log_odds, truth), context)


def fit_temperature(log_odds: Tensor, truth: Tensor) -> float:
    """The temperature at which the probabilities of labelled rows are the likeliest, by golden ratio over log T."""
    low, high = math.log(0.05), math.log(20.0)
    signed = torch.where(truth, log_odds, -log_odds)

    def loss(log_temperature: float) -> float:
        return float(-torch.nn.functional.logsigmoid(signed / math.exp(log_temperature)).mean())

    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(40):  # the loss has one valley in 1/T
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


def _hold_out(
    examples: list[Example], val_fraction: float, seed: int, number: int
) -> tuple[list[Example], list[Example]]:
    """The same share of each sentiment kept back, at random, and the others; the next share for the next number."""
    kept_back: list[Example] = []
    learned: list[Example] = []
    random = np.random.default_rng(seed)
    for positive in (True, False):
        candidates = [example for example in examples if example.positive == positive]
        count = round(val_fraction * len(candidates))
        if not count or count == len(candidates):
            name = "positive" if positive else "negative"
            raise InputError(
                "sentiment.too_few_rows",
                f"train= has {len(candidates)} {name} rows, too few to keep some back: bring more",
            )
        order = np.roll(random.permutation(len(candidates)), -number * count)
        kept_back.extend(candidates[index] for index in order[:count])
        learned.extend(candidates[index] for index in order[count:])
    return kept_back, learned


def _finetuned(trained: LoadedCheckpoint, examples: list[Example], cfg: FinetuneConfig, seed: int) -> GPT:
    """A network that has seen every example `cfg.epochs` times."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    rates = RegularizationConfig(dropout=cfg.dropout, embedding_dropout=cfg.embedding_dropout)
    net = GPT(trained.cfg.model, rates)
    if cfg.from_weights:
        load_weights(net, trained)
    texts = _encoded(trained.tokenizer, examples, cfg.labels)

    def collate(batch: list[_Encoded]) -> Batch:
        shown = [with_label for text in batch for with_label in text.shown(cfg, random)]
        return _padded(shown, trained.cfg.data.seq_len)

    order = BatchesByLength([text.length for text in texts], cfg.batch_size, random)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = L.Trainer(
        max_epochs=cfg.epochs,
        devices=1,
        plugins=[LightningEnvironment()],  # not a cluster's
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader: DataLoader[_Encoded] = DataLoader(texts, batch_sampler=order, collate_fn=collate)  # type: ignore[arg-type]
    with warnings.catch_warnings(action="ignore"):  # of workers, which texts of this size do not need
        try:
            trainer.fit(LabelModule(net, cfg), loader)
        except SystemExit as error:  # into which Lightning turns Ctrl-C
            raise KeyboardInterrupt from error
    return net.cpu().eval()


class LabelModule(L.LightningModule):
    """A network that learns the labels behind texts, at a rate that falls linearly to 0 after a short warm-up."""

    def __init__(self, net: GPT, cfg: FinetuneConfig) -> None:
        super().__init__()
        self.net = net
        self.cfg = cfg

    def on_train_start(self) -> None:
        """Let SIGTERM end the process at once: there is nothing to save."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean cross-entropy of the labels' tokens, by weight."""
        token_ids, targets, weights = batch
        counted = targets != IGNORED  # the head is large: of the other tokens it would take 20 times as long
        logits = self.net.logits(self.net.features(token_ids)[counted])
        losses = F.cross_entropy(logits, targets[counted], reduction="none")
        return losses @ weights[counted] / weights[counted].sum()

    def configure_optimizers(self) -> Any:
        """AdamW; the rate is set before every step."""
        groups = parameter_groups(self.net, self.cfg.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.cfg.lr, betas=(0.9, 0.99), fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = LambdaLR(optimizer, lambda step: min((step + 1) / WARMUP_STEPS, 1) * (1 - step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        """Clip within the fused step, as a run does."""
        clip_gradients(optimizer, CLIP_NORM)


@dataclass(frozen=True)
class _Shown:
    """A text and one of the labels behind it."""

    ids: list[int]
    label_length: int  # so many of the last are the label
    weight: float  # how likely the label is to be the right one


@dataclass(frozen=True)
class _Encoded:
    """A labelled text in ids, what counting says of each of its words, and what stands around them."""

    words: NDArray[np.int64]  # (words,)
    evidence: NDArray[np.float64]  # (words,), log-odds of a positive sentiment, by the other texts
    positive: bool
    first: int
    mark: list[int]
    labels: list[list[int]]

    @property
    def length(self) -> int:
        """In tokens, without a label."""
        return 1 + len(self.words) + len(self.mark)

    def shown(self, cfg: FinetuneConfig, random: np.random.Generator) -> list[_Shown]:
        """Without some of the words, perhaps shuffled; once with each label, by how likely it is."""
        keep = random.random(len(self.words)) >= cfg.word_deletion
        kept = self.words[keep]
        if random.random() < cfg.shuffle:
            random.shuffle(kept)
        by_counting = (1 + math.tanh(self.evidence[keep].sum() / 2)) / 2  # the sigmoid, which cannot overflow
        positive = cfg.distillation * by_counting + (1 - cfg.distillation) * self.positive
        text = [self.first, *kept.tolist(), *self.mark]
        weights = (positive, 1 - positive)
        return [
            _Shown([*text, *label], len(label), weight)
            for label, weight in zip(self.labels, weights, strict=True)
            if weight
        ]


def _encoded(tokenizer: Tokenizer, examples: list[Example], labels: list[str]) -> list[_Encoded]:
    """The examples in ids, with what counting says of each word."""
    length = len(word_ids(tokenizer, MARK))  # bytes, where the tokenizer does not know it
    texts = [context_ids(tokenizer, example.text, MARK) for example in examples]
    words = [np.array(ids[1:-length], np.int64) for ids in texts]
    positive = [example.positive for example in examples]
    evidence = word_evidence(words, positive, len(tokenizer.vocabulary))
    ids_of_labels = label_ids(tokenizer, labels)
    return [
        _Encoded(words_of_it, evidence_of_it, label, ids[0], ids[-length:], ids_of_labels)
        for words_of_it, evidence_of_it, label, ids in zip(words, evidence, positive, texts, strict=True)
    ]


class BatchesByLength(Sampler[list[int]]):
    """Places of texts in random order, those of about the same length together; another order in every epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, random: np.random.Generator) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._random = random

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._random.permutation(len(self._lengths)).tolist()
        together = self._batch_size * SORTED_TOGETHER
        batches = []
        for first in range(0, len(order), together):
            similar = sorted(order[first : first + together], key=self._lengths.__getitem__)
            batches += [similar[start : start + self._batch_size] for start in range(0, len(similar), self._batch_size)]
        for number in self._random.permutation(len(batches)):
            yield batches[number]


def _padded(shown: list[_Shown], context: int) -> Batch:
    """Inputs, targets and their weights, (B, T) each; only the labels count."""
    rows = [one.ids[-context - 1 :] for one in shown]
    token_ids = torch.zeros(len(rows), max(map(len, rows)) - 1, dtype=torch.long)
    targets = torch.full_like(token_ids, IGNORED)
    weights = torch.zeros(token_ids.shape)
    for index, (row, one) in enumerate(zip(rows, shown, strict=True)):
        label = slice(len(row) - 1 - one.label_length, len(row) - 1)
        token_ids[index, : len(row) - 1] = torch.tensor(row[:-1])
        targets[index, label] = torch.tensor(row[-one.label_length :])
        weights[index, label] = one.weight
    return token_ids, targets, weights
