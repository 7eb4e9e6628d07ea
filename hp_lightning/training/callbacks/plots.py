"""Pictures of the inside of a network: where it looks, how it knows positions, which tokens it finds hard."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from hp_lightning.common.plots import attention_figure, frequency_figure, loss_figure, pixels, position_figure
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.models.gpt import GPT
from hp_lightning.tokenizers.base import labels
from hp_lightning.training.callbacks.samples import PeriodicCallback, first_words
from hp_lightning.training.loggers.tensorboard import TensorBoardLogger

TOKENS = 2_048  # about so many are looked at
ROWS = 512  # of logits at a time
BOUNDS = (
    10,
    100,
    1_000,
)  # the last rank of each class but the last; rank 1 is the training split's most frequent token
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
    """Looks at windows of `data.seq_len` tokens that are spread evenly over the validation split.

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


SENTENCE = 14  # tokens whose attention is drawn, <EOS> before them included: as many as can be read in a small image
POSITIONS = {
    "learned": "learned: the embedding of each position",
    "sinusoidal": "sinusoidal: what is added at each position",
    "rotary": "rotary: cosine and sine of each pair of features",
}


class LogPlots(PeriodicCallback):
    """Attention, positions, and the losses of tokens."""

    def __init__(self, curves: TensorBoardLogger, val_every: int, data: CorpusDataModule) -> None:
        super().__init__(curves, val_every)
        self._data = data
        tokenizer = data.tokenizer
        sentence = [tokenizer.vocabulary.eos_id, *tokenizer.encode(first_words(data)).tolist()][:SENTENCE]
        self._sentence = sentence[: data.cfg.seq_len]
        self._labels = labels(tokenizer, self._sentence)

    @torch.no_grad()
    def show(self, net: GPT, step: int) -> None:
        """Draws everything; positions that are not learned once alone."""
        with _evaluated(net):
            self._attention(net, step)
            self._losses(token_losses(net, self._data), step)
            if net.cfg.position == "learned" or step <= self.val_every:
                table = position_table(net)[: self._data.cfg.seq_len].float().cpu().numpy()
                self._image("positions", position_figure(table, POSITIONS[net.cfg.position]), step)

    def _image(self, tag: str, figure: Figure, step: int) -> None:
        self.curves.image(tag, pixels(figure), step)

    def _attention(self, net: GPT, step: int) -> None:
        token_ids = torch.tensor([self._sentence], device=net.head.weight.device)
        layers = net.attention_weights(token_ids)[:, 0].float().cpu().numpy()
        for number, weights in enumerate(layers, start=1):
            title = f"layer {number} of {len(layers)}: row looks at column"
            self._image(f"attention/layer_{number}", attention_figure(weights, self._labels, title), step)

    def _losses(self, found: TokenLosses, step: int) -> None:
        count = f"{len(found.losses):,} tokens of the validation split"
        guessing = math.log(len(self._data.tokenizer.vocabulary))
        self._image("token_loss/distribution", loss_figure(found.losses.numpy(), guessing, count), step)
        of_class = [found.classes == number for number in range(len(CLASSES))]
        figure = frequency_figure(
            torch.stack([found.losses[chosen].mean() for chosen in of_class]).numpy(),
            torch.stack([found.unigram[chosen].mean() for chosen in of_class]).numpy(),
            [int(chosen.sum()) for chosen in of_class],
            found.guesses.numpy(),
            CLASSES,
            "loss by rank of frequency in the training split",
        )
        self._image("token_loss/frequent_and_rare", figure, step)


@contextmanager
def _evaluated(net: GPT) -> Iterator[None]:
    was_training = net.training
    net.eval()
    yield
    net.train(was_training)


def position_table(net: GPT) -> Tensor:
    """What tells positions apart in a network, as `POSITIONS` says: (max_seq_len, F)."""
    if net.cfg.position == "learned":
        return net.position_embedding.weight
    if net.cfg.position == "sinusoidal":
        return net.position_table
    rotation: Tensor = net.blocks[0].attention.rotation  # type: ignore[union-attr, assignment]
    return rotation.flatten(1)
