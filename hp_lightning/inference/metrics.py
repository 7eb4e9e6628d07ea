"""How well a language model predicts a text, token by token, and how much of what it writes is copied."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from hp_lightning.data.dataset import DocumentFacts, Stream
from hp_lightning.models.gpt import GPT
from hp_lightning.models.loss import CHUNK_BYTES, perplexity
from hp_lightning.tokenizers import UNK

WORDS = re.compile(rf"{UNK}|\w+|[^\w\s]")


@dataclass(frozen=True)
class TokenScores:
    """How each token of a stream but the first was predicted: (tokens,) each."""

    losses: npt.NDArray[np.float64]  # nats
    ranks: npt.NDArray[np.int64]  # how many tokens were likelier


@dataclass(frozen=True)
class Metrics:
    """The metrics of a model on a text."""

    tokens: int
    characters: int
    loss: float  # nats per token
    perplexity: float  # exp of the loss
    bits_per_char: float  # of the text itself, comparable across tokenizers
    unk_rate: float  # share of the tokens
    accuracy_1: float  # share of the tokens that were the likeliest
    accuracy_5: float  # or among the five likeliest


@torch.inference_mode()
def score_tokens(net: GPT, stream: Stream, seq_len: int, stride: int, batch_size: int) -> TokenScores:
    """Predict every token of a stream but the first, in sequences that start `stride` tokens apart.

    Of each sequence but the first the last `stride` predictions count: none has fewer than `seq_len - stride`
    tokens before it, where the stream has as many. With `stride == seq_len` the sequences stand side by side, as in
    training; a smaller one takes `seq_len / stride` times as long (Baevski & Auli 2019, arXiv:1809.10853).

    Args:
        stream: (tokens + 1,) ids, starting with `<EOS>`
        seq_len: tokens in a sequence
        stride: from 1 to `seq_len`
        batch_size: sequences in a forward pass
    """
    device = net.head.weight.device
    predicted = len(stream) - 1
    sequences = 1 + max(-(-(predicted - seq_len) // stride), 0)
    padded = np.full((sequences - 1) * stride + seq_len + 1, stream[0], np.int64)
    padded[: len(stream)] = stream
    token_ids = torch.from_numpy(padded)
    inputs = token_ids[:-1].unfold(0, seq_len, stride)  # (sequences, T)
    targets = token_ids[1:].unfold(0, seq_len, stride)
    counted = torch.zeros(sequences, seq_len, dtype=torch.bool)
    counted[:, seq_len - stride :] = True
    counted[0] = True
    losses, ranks = [], []
    for begin in range(0, sequences, batch_size):
        batch = slice(begin, begin + batch_size)
        features = net.features(inputs[batch].to(device))[counted[batch].to(device)]
        scores = _losses_and_ranks(net, features, targets[batch][counted[batch]].to(device))
        losses.append(scores[0].double().cpu())
        ranks.append(scores[1].cpu())
    return TokenScores(torch.cat(losses)[:predicted].numpy(), torch.cat(ranks)[:predicted].numpy())


def _losses_and_ranks(net: GPT, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C) and (N,) to two times (N,); a part of the rows at a time, for the logits are large."""
    rows = max(CHUNK_BYTES // (4 * net.head.weight.shape[0]), 1)
    losses, ranks = [], []
    for some, wanted in zip(torch.split(features, rows), torch.split(targets, rows), strict=True):
        logits = net.logits(some).float()
        losses.append(F.cross_entropy(logits, wanted, reduction="none"))
        ranks.append((logits > logits.gather(1, wanted[:, None])).sum(dim=1))
    return torch.cat(losses), torch.cat(ranks)


def metrics(scores: TokenScores, token_ids: Stream, characters: int, unk_id: int | None) -> Metrics:
    """Sums up how some tokens were predicted.

    Args:
        token_ids: (tokens,), those that were predicted; at least one
        characters: of their text
    """
    loss = float(scores.losses.mean())
    return Metrics(
        tokens=len(token_ids),
        characters=characters,
        loss=loss,
        perplexity=perplexity(loss),
        bits_per_char=float(scores.losses.sum()) / math.log(2) / characters,
        unk_rate=0.0 if unk_id is None else float((token_ids == unk_id).mean()),
        accuracy_1=float((scores.ranks < 1).mean()),
        accuracy_5=float((scores.ranks < 5).mean()),
    )


def metrics_by_document(
    scores: TokenScores, stream: Stream, documents: list[DocumentFacts], eos_id: int, unk_id: int | None
) -> list[tuple[str, Metrics]]:
    """For each document the metrics of its own tokens, the `<EOS>` behind it included."""
    ends = np.flatnonzero(stream[1:] == eos_id) + 1
    begins = [0, *ends[:-1]]
    by_document = []
    for document, begin, end in zip(documents, begins, ends, strict=True):
        own_scores = TokenScores(scores.losses[begin:end], scores.ranks[begin:end])
        by_document.append((document.name, metrics(own_scores, stream[1:][begin:end], document.characters, unk_id)))
    return by_document


def copied_share(written: list[str], source: Iterable[str], n: int) -> float | None:
    """The share of the n-grams of some texts that stand in a source; None where they have none.

    As in McCoy et al. 2023 (RAVEN, arXiv:2111.09509). An n-gram is n words or punctuation marks in a row; those with
    `<UNK>` among them are left out.

    Args:
        source: texts, looked through one at a time
    """
    wanted = Counter(gram for text in written for gram in _n_grams(text, n) if UNK not in gram)
    copied = {gram for text in source for gram in _n_grams(text, n) if gram in wanted}
    return sum(wanted[gram] for gram in copied) / wanted.total() if wanted else None


def _n_grams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    words = WORDS.findall(text)
    return zip(*(words[begin:] for begin in range(n)), strict=False)
