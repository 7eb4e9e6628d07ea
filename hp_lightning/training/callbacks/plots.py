"""Plots of where a network attends."""

import torch

from hp_lightning.common.plots import attention_figure, pixels
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.models.gpt import GPT
from hp_lightning.tokenizers.base import labels
from hp_lightning.training.callbacks.samples import PeriodicCallback, first_words
from hp_lightning.training.loggers.tensorboard import TensorBoardLogger

SENTENCE = 14  # tokens whose attention is drawn, <EOS> before them included: as many as can be read in a small image


class LogPlots(PeriodicCallback):
    """Logs the attention of every head on a sentence of the validation split."""

    def __init__(self, logger: TensorBoardLogger, val_every: int, data: CorpusDataModule) -> None:
        super().__init__(logger, val_every)
        tokenizer = data.tokenizer
        sentence = [tokenizer.vocabulary.eos_id, *tokenizer.encode(first_words(data)).tolist()][:SENTENCE]
        self._sentence = sentence[: data.cfg.seq_len]
        self._labels = labels(tokenizer, self._sentence)

    @torch.no_grad()
    def show(self, net: GPT, step: int) -> None:
        """Draw every layer."""
        token_ids = torch.tensor([self._sentence], device=net.head.weight.device)
        layers = net.attention_weights(token_ids)[:, 0].float().cpu().numpy()
        for number, weights in enumerate(layers, start=1):
            title = f"layer {number} of {len(layers)}: row looks at column"
            figure = attention_figure(weights, self._labels, title)
            self.logger.image(f"attention/layer_{number}", pixels(figure), step)
