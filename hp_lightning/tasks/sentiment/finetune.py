"""A language model is taught to write the sentiment of a text as a word behind it, as in "... → good".

The networks have the form of the one they come from, and the loss is the language model's own; only that of the
label's tokens counts. From a few thousand sentences a network learns the words by heart long before it has learned what
they say. So every time a sentence is shown, some of its words are left out and their order may be shuffled; what it is
to say of the rest is, by half, how likely each sentiment is by counting these words in the other sentences, which no
network can learn by heart (distillation, Hinton et al. 2015, arXiv:1503.02531, from Naive Bayes); and the log-odds of
several networks are averaged.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from hp_lightning.checkpoint import LoadedCheckpoint, load_weights
from hp_lightning.common.errors import InputError
from hp_lightning.models.gpt import GPT
from hp_lightning.models.loss import IGNORED
from hp_lightning.schema.regularization import RegularizationConfig
from hp_lightning.schema.sentiment import TeachConfig
from hp_lightning.tasks.sentiment.naive_bayes import word_evidence
from hp_lightning.tasks.sentiment.zero_shot import context_ids, next_word_log_probs, word_ids
from hp_lightning.tokenizers import Tokenizer
from hp_lightning.training.optim import clip_gradients, parameter_groups

MARK = "→"
SORTED_TOGETHER = 20  # batches: texts of about the same length, so that little is filled up
WARMUP_STEPS = 50
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Example:
    """A labelled text."""

    text: str
    positive: bool


class LabelReader:
    """Reads the label that networks expect behind a text.

    Args:
        nets: their log-odds are averaged
        labels: the words that stand for positive and for negative
        temperature: by which the log-odds are divided, so that the confidence is that of texts that were not learned
            (temperature scaling, Guo et al. 2017, arXiv:1706.04599)
        context: tokens that a network looks back
    """

    def __init__(
        self, nets: list[GPT], tokenizer: Tokenizer, labels: list[str], temperature: float, context: int
    ) -> None:
        self.nets = nets
        self.labels = labels
        self.temperature = temperature
        self._tokenizer = tokenizer
        self._context = context
        self._ids = label_ids(tokenizer, labels)

    def log_odds(self, texts: list[str]) -> Tensor:
        """log (p / (1 - p)) of a positive sentiment: (texts,) in float64."""
        contexts = [context_ids(self._tokenizer, text, MARK) for text in texts]
        by_net = [next_word_log_probs(net, contexts, self._ids, self._context) for net in self.nets]
        log_probs = torch.stack(by_net).mean(dim=0)
        return (log_probs[:, 0] - log_probs[:, 1]) / self.temperature


def label_ids(tokenizer: Tokenizer, labels: list[str]) -> list[list[int]]:
    """The ids of each label.

    Raises:
        InputError: the vocabulary lacks one
    """
    ids = [word_ids(tokenizer, word) for word in labels]
    unk_id = tokenizer.vocabulary.unk_id
    for word, its_ids in zip(labels, ids, strict=True):
        if unk_id in its_ids:
            raise InputError(
                "sentiment.label_not_in_vocabulary",
                f"the label {word!r} is not in the model's vocabulary: name two words that are by "
                "teach.labels=[good,bad], or take a model with tokenizer=bpe",
            )
    return ids


def teach(
    trained: LoadedCheckpoint, examples: list[Example], cfg: TeachConfig, seed: int, say: Callable[[str], None]
) -> LabelReader:
    """Teaches `cfg.networks` networks; each has a share of the examples kept back, as far as possible one of its own.

    By these it is watched, and by those of all networks the temperature is set: each example is judged by a network
    that has not learned it, so that the average, which knows more, is rather too modest than too sure.

    Args:
        trained: gives the tokenizer, the form of the networks and, with `cfg.from_weights`, their first weights
        examples: both sentiments among them
        say: is told of the progress

    Raises:
        InputError: the vocabulary lacks the labels, or there are too few examples
    """
    context = trained.cfg.data.seq_len
    nets: list[GPT] = []
    log_odds, truth = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.bool)
    for number in range(cfg.networks):
        kept_back, learned = _parted(examples, cfg.val_fraction, seed, number)
        nets.append(_taught(trained, learned, cfg, seed + number))
        reader = LabelReader(nets[-1:], trained.tokenizer, cfg.labels, 1.0, context)
        found = reader.log_odds([example.text for example in kept_back])
        if not torch.isfinite(found).all():
            raise InputError(
                "sentiment.diverged",
                f"teach.lr={cfg.lr:g}: what the network says is no number any more: take a lower rate",
            )
        positive = torch.tensor([example.positive for example in kept_back])
        share = float(((found > 0) == positive).double().mean())
        say(f"network {number + 1} of {cfg.networks}: {share:.1%} right of the {len(kept_back):,} rows kept back")
        log_odds, truth = torch.cat([log_odds, found]), torch.cat([truth, positive])
    of_positive = float(truth.double().mean())
    if float(((log_odds > 0) == truth).double().mean()) <= max(of_positive, 1 - of_positive):
        say("no better than always naming the commoner sentiment: bring more rows, or take another teach.lr")
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


def _parted(
    examples: list[Example], val_fraction: float, seed: int, number: int
) -> tuple[list[Example], list[Example]]:
    """The same share of each sentiment kept back, at random, and the others; the next share for the next number."""
    kept_back: list[Example] = []
    learned: list[Example] = []
    random = np.random.default_rng(seed)
    for positive in (True, False):
        found = [example for example in examples if example.positive == positive]
        count = round(val_fraction * len(found))
        if not count or count == len(found):
            name = "positive" if positive else "negative"
            raise InputError(
                "sentiment.too_few_rows", f"train= has {len(found)} {name} rows, too few to keep some back: bring more"
            )
        order = np.roll(random.permutation(len(found)), -number * count)
        kept_back.extend(found[place] for place in order[:count])
        learned.extend(found[place] for place in order[count:])
    return kept_back, learned


def _taught(trained: LoadedCheckpoint, examples: list[Example], cfg: TeachConfig, seed: int) -> GPT:
    """A network that has seen every example `cfg.epochs` times, at a rate that falls linearly to 0."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    rates = RegularizationConfig(dropout=cfg.dropout, embedding_dropout=cfg.embedding_dropout)
    net = GPT(trained.cfg.model, rates)
    if cfg.from_weights:
        load_weights(net, trained)
    net.train()
    groups = parameter_groups(net, cfg.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=cfg.lr, betas=(0.9, 0.99), fused=True)
    texts = _encoded(trained.tokenizer, examples, cfg.labels)
    steps = cfg.epochs * -(-len(texts) // cfg.batch_size)
    step = 0
    for _ in range(cfg.epochs):
        for batch in _batches([text.length for text in texts], cfg.batch_size, random):
            shown = [with_label for place in batch for with_label in texts[place].shown(cfg, random)]
            loss = _loss(net, shown, trained.cfg.data.seq_len)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            clip_gradients(optimizer, CLIP_NORM)
            for group in optimizer.param_groups:
                group["lr"] = cfg.lr * min((step + 1) / WARMUP_STEPS, 1) * (1 - step / steps)
            optimizer.step()
            step += 1
    return net.eval()


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

    def shown(self, cfg: TeachConfig, random: np.random.Generator) -> list[_Shown]:
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


def _batches(lengths: Sequence[int], batch_size: int, random: np.random.Generator) -> list[list[int]]:
    """Places in random order, those of about the same length together."""
    order = random.permutation(len(lengths)).tolist()
    together = batch_size * SORTED_TOGETHER
    batches = []
    for first in range(0, len(order), together):
        some = sorted(order[first : first + together], key=lengths.__getitem__)
        batches += [some[begin : begin + batch_size] for begin in range(0, len(some), batch_size)]
    return [batches[place] for place in random.permutation(len(batches))]


def _loss(net: GPT, shown: list[_Shown], context: int) -> Tensor:
    """The mean cross entropy of the labels' tokens, by weight."""
    token_ids, targets, weights = _padded(shown, context)
    counted = targets != IGNORED  # the head is large: of the other tokens it would take 20 times as long
    logits = net.logits(net.features(token_ids)[counted])
    losses = F.cross_entropy(logits, targets[counted], reduction="none")
    return losses @ weights[counted] / weights[counted].sum()


def _padded(shown: list[_Shown], context: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and their weights, (B, T) each; only the labels count."""
    rows = [one.ids[-context - 1 :] for one in shown]
    token_ids = torch.zeros(len(rows), max(map(len, rows)) - 1, dtype=torch.long)
    targets = torch.full_like(token_ids, IGNORED)
    weights = torch.zeros(token_ids.shape)
    for place, (row, one) in enumerate(zip(rows, shown, strict=True)):
        label = slice(len(row) - 1 - one.label_length, len(row) - 1)
        token_ids[place, : len(row) - 1] = torch.tensor(row[:-1])
        targets[place, label] = torch.tensor(row[-one.label_length :])
        weights[place, label] = one.weight
    return token_ids, targets, weights
