"""Samples of generated text while a run trains; and how often samples and plots are made."""

import math
import re
import textwrap
from abc import ABC, abstractmethod
from contextlib import suppress

import lightning as L

from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.inference.generate import Sampling, continue_text
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.logger import LoggerConfig
from hp_lightning.tokenizers import UNK
from hp_lightning.training.loggers.tensorboard import TensorBoardLogger, code_block
from hp_lightning.training.module import GPTModule


class PeriodicCallback(L.Callback, ABC):
    """Something shown at the first validation, the 4th, the 16th, and so on, and of the best checkpoint at the end.

    Args:
        logger: where it is shown
        val_every: optimizer steps between two validations
    """

    def __init__(self, logger: TensorBoardLogger, val_every: int) -> None:
        self.logger = logger
        self.val_every = val_every

    @abstractmethod
    def show(self, net: GPT, step: int) -> None:
        """Make it and log it, without a trace in the network or in the random numbers of training."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show it where the number of the validation is a power of 4."""
        assert isinstance(pl_module, GPTModule)
        number = math.ceil(trainer.global_step / self.val_every)  # the last one comes sooner
        if number.bit_count() == 1 and number.bit_length() % 2:
            with suppress(OSError):  # saving raises it again, in every process
                self.show(pl_module.net, trainer.global_step)


LINE_LENGTH = 100
WORDS = 10  # of a prompt from the corpus
MOST_CHARACTERS = 80  # where words are not separated by spaces
TOKENS_LOOKED_AT = 5_000
TAG_LENGTH = 40


class LogSamples(PeriodicCallback):
    """Texts that continue `logger.sample_prompts`."""

    def __init__(self, logger: TensorBoardLogger, val_every: int, cfg: LoggerConfig, data: CorpusDataModule) -> None:
        super().__init__(logger, val_every)
        self._prompts = prompts(cfg, data)
        self._sampling = Sampling(max_new_tokens=cfg.sample_tokens)
        self._data = data

    def show(self, net: GPT, step: int) -> None:
        """Log the samples, drawn by their own generator."""
        for number, prompt in enumerate(self._prompts, start=1):
            [text] = continue_text(net, self._data.tokenizer, prompt, self._data.cfg.seq_len, self._sampling)
            self.logger.text(_tag(number, prompt), code_block(_wrapped(text)), step)


def prompts(cfg: LoggerConfig, data: CorpusDataModule) -> list[str]:
    """The prompts of a run: as they were set; else the empty one, which starts a document, and words to validate on."""
    if cfg.sample_prompts is not None:
        return cfg.sample_prompts
    return list(dict.fromkeys(["", first_words(data)]))


def first_words(data: CorpusDataModule) -> str:
    """The first ten words of the first line of the validation split that has as many and knows them all.

    Of the validation split, since what was trained on could be continued by heart. Where no line is long enough, the
    first line of which every token is known; empty where there is none.
    """
    text = data.tokenizer.decode(data.streams["val"][1:TOKENS_LOOKED_AT].tolist())
    prompts = [" ".join(line.split()[:WORDS]) for line in text.split("\n")]
    known = [words for words in prompts if words and UNK not in words]
    long_enough = [words for words in known if len(words.split()) == WORDS]
    return next(iter([*long_enough, *known]), "")[:MOST_CHARACTERS]


def _tag(number: int, prompt: str) -> str:
    words = re.sub(r"\W+", "_", prompt[:TAG_LENGTH]).strip("_")
    return f"sample/{number}_{words or 'start_of_a_document'}"


def _wrapped(text: str) -> str:
    """A code block is not broken into lines by the browser."""
    wrap = textwrap.TextWrapper(LINE_LENGTH, expand_tabs=False, replace_whitespace=False, break_on_hyphens=False)
    return "\n".join(wrap.fill(line) for line in text.split("\n"))
