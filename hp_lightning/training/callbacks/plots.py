"""Plots of the inside of a network: where it attends, and how it tells positions apart."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from hp_lightning.common.plots import attention_figure, pixels, position_figure
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.models.gpt import GPT
from hp_lightning.tokenizers.base import labels
from hp_lightning.training.callbacks.samples import PeriodicCallback, first_words
from hp_lightning.training.loggers.tensorboard import TensorBoardLogger

SENTENCE = 14  # tokens whose attention is drawn, <EOS> before them included: as many as can be read in a small image
POSITIONS = {
    "learned": "learned: the embedding of each position",
    "sinusoidal": "sinusoidal: what is added at each position",
    "rotary": "rotary: cosine and sine of each pair of features",
}


class LogPlots(PeriodicCallback):
    """Logs the attention of every head on a sentence of the validation split, and the encoding of positions."""

    def __init__(self, logger: TensorBoardLogger, val_every: int, data: CorpusDataModule) -> None:
        super().__init__(logger, val_every)
        self._seq_len = data.cfg.seq_len
        tokenizer = data.tokenizer
        sentence = [tokenizer.vocabulary.eos_id, *tokenizer.encode(first_words(data)).tolist()][:SENTENCE]
        self._sentence = sentence[: self._seq_len]
        self._labels = labels(tokenizer, self._sentence)

    @torch.no_grad()
    def show(self, net: GPT, step: int) -> None:
        """Draw everything; positions that are not learned once alone."""
        token_ids = torch.tensor([self._sentence], device=net.head.weight.device)
        layers = net.attention_weights(token_ids)[:, 0].float().cpu().numpy()
        for number, weights in enumerate(layers, start=1):
            title = f"layer {number} of {len(layers)}: row looks at column"
            self._log(f"attention/layer_{number}", attention_figure(weights, self._labels, title), step)
        if net.cfg.position == "learned" or step <= self.val_every:
            table = position_table(net)[: self._seq_len].float().cpu().numpy()
            self._log("positions", position_figure(table, POSITIONS[net.cfg.position]), step)

    def _log(self, tag: str, figure: Figure, step: int) -> None:
        self.logger.image(tag, pixels(figure), step)


def position_table(net: GPT) -> Tensor:
    """The rows by which a network tells positions apart, as `POSITIONS` says: (max_seq_len, F)."""
    if net.cfg.position == "learned":
        return net.position_embedding.weight
    if net.cfg.position == "sinusoidal":
        return net.position_table
    rotation: Tensor = net.blocks[0].attention.rotation  # type: ignore[union-attr, assignment]
    return rotation.flatten(1)
