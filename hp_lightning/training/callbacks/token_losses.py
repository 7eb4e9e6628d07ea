"""What the network makes of single tokens of the validation part, frequent ones and rare ones."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.models.gpt import GPT

TOKENS = 2_048  # about so many are looked at
ROWS = 512  # of logits at a time
BOUNDS = (10, 100, 1_000)  # the last rank of each class but the last; rank 1 is the training part's most frequent token
CLASSES = ("1–10", "11–100", "101–1,000", "rarer")


@dataclass(frozen=True)
class TokenLosses:
    """Of N tokens, in K classes by their rank of frequency."""

    losses: Tensor  # (N,), in nats
    unigram: Tensor  # (N,), of guessing by frequency
    classes: Tensor  # (N,), below K
    guesses: Tensor  # (K, K): the probability that the network gives to each class where a token of a class follows


@torch.no_grad()
def token_losses(net: GPT, data: CorpusDataModule) -> TokenLosses:
    """Looks at windows of `data.seq_len` tokens that are spread evenly over the validation part.

    Args:
        net: in evaluation mode
        data: the corpus it is trained on
    """
    device = net.head.weight.device
    stream = data.streams["val"].long()
    length = min(data.cfg.seq_len, len(stream) - 1)
    count = max(min(TOKENS, len(stream) - 1) // length, 1)
    begins = torch.linspace(0, len(stream) - 1 - length, count).long()
    windows = stream[begins[:, None] + torch.arange(length + 1)]
    targets = windows[:, 1:].flatten()
    unigram = data.unigram_losses()
    class_of = _classes(unigram)
    members = F.one_hot(class_of, len(CLASSES)).to(device, torch.float32)
    hidden = net.features(windows[:, :-1].to(device)).flatten(0, 1)
    losses, guesses = [], []
    for rows, wanted in zip(torch.split(hidden, ROWS), torch.split(targets.to(device), ROWS), strict=True):
        likelihood = net.logits(rows).float().log_softmax(dim=-1)
        losses.append(-likelihood.gather(1, wanted[:, None])[:, 0])
        guesses.append(likelihood[:, : len(members)].exp() @ members)
    guessed, classes = torch.cat(guesses).cpu(), class_of[targets]
    mean = [guessed[classes == k].mean(dim=0) for k in range(len(CLASSES))]  # NaN where none is of the class
    return TokenLosses(torch.cat(losses).cpu(), unigram[targets].float(), classes, torch.stack(mean))


def _classes(unigram: Tensor) -> Tensor:
    """The class of each token: (tokens,)."""
    ranks = torch.empty(len(unigram), dtype=torch.long)
    ranks[unigram.argsort(stable=True)] = torch.arange(len(unigram))
    return torch.bucketize(ranks, torch.tensor(BOUNDS), right=True)
