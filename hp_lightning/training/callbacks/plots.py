"""Pictures of the inside of a network: where it looks, how it knows positions, which tokens it finds hard."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from matplotlib.figure import Figure
from torch import Tensor

from hp_lightning.common.plots import attention_figure, frequency_figure, loss_figure, pixels, position_figure
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.models.gpt import GPT
from hp_lightning.tokenizers.labels import labels
from hp_lightning.training.callbacks.exhibits import Exhibit
from hp_lightning.training.callbacks.metrics_csv import RunLog
from hp_lightning.training.callbacks.samples import first_words
from hp_lightning.training.callbacks.token_losses import CLASSES, TokenLosses, token_losses
from hp_lightning.training.loggers.tensorboard import Curves

SENTENCE = 14  # tokens whose attention is drawn, <EOS> before them included: as many as can be read in a small image
POSITIONS = {
    "learned": "learned: the embedding of each position",
    "sinusoidal": "sinusoidal: what is added at each position",
    "rotary": "rotary: cosine and sine of each pair of features",
}


class Drawings(Exhibit):
    """Drawn whenever the validation loss is the best so far."""

    kind = "images"

    def __init__(self, curves: Curves, run_log: RunLog, data: CorpusDataModule) -> None:
        super().__init__(curves, run_log)
        self._data = data
        tokenizer = data.tokenizer
        sentence = [tokenizer.vocabulary.eos_id, *tokenizer.encode(first_words(data)).tolist()][:SENTENCE]
        self._sentence = sentence[: data.cfg.seq_len]
        self._labels = labels(tokenizer, self._sentence)

    def wanted(self, step: int) -> bool:
        """At a new best."""
        return self.run_log.best.get("step") == step

    @torch.no_grad()
    def show(self, net: GPT, step: int) -> None:
        """Draws everything; positions that are not learned once alone."""
        with _evaluated(net):
            self._attention(net, step)
            self._losses(token_losses(net, self._data), step)
            if net.cfg.position == "learned" or self.kind not in self.run_log.budget.spent:
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
        count = f"{len(found.losses):,} tokens of the validation part"
        guessing = math.log(len(self._data.tokenizer.vocabulary))
        self._image("token_loss/distribution", loss_figure(found.losses.numpy(), guessing, count), step)
        of_class = [found.classes == number for number in range(len(CLASSES))]
        figure = frequency_figure(
            torch.stack([found.losses[chosen].mean() for chosen in of_class]).numpy(),
            torch.stack([found.unigram[chosen].mean() for chosen in of_class]).numpy(),
            [int(chosen.sum()) for chosen in of_class],
            found.guesses.numpy(),
            CLASSES,
            "loss by rank of frequency in the training part",
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
