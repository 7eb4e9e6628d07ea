"""What is shown of a network while it learns, within a budget of time, and the text it writes for fixed prompts."""

import re
import textwrap
from abc import ABC, abstractmethod

import lightning as L

from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.inference.generate import Sampling, continue_text
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.logger import LoggerConfig
from hp_lightning.tokenizers import UNK
from hp_lightning.training.callbacks.metrics_csv import MetricsCSV
from hp_lightning.training.loggers.tensorboard import TensorBoardLogger, code_block
from hp_lightning.training.module import GPTModule


class PeriodicCallback(L.Callback, ABC):
    """Something shown at the first validation, at later ones where the budget affords it, and of the best at the end.

    Args:
        curves: where it is shown
        run_log: knows the seconds of training and what they afford; called before this at a validation
    """

    kind: str  # by which the budget counts

    def __init__(self, curves: TensorBoardLogger, run_log: MetricsCSV) -> None:
        self.curves = curves
        self.run_log = run_log

    @abstractmethod
    def show(self, net: GPT, step: int) -> None:
        """Makes it and writes it down, without a trace in the network or in the random numbers of training."""

    def wanted(self, step: int) -> bool:
        """Whether there is something new to show at this validation."""
        return True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Shows what is wanted and affordable."""
        assert isinstance(pl_module, GPTModule)
        step = trainer.global_step
        if self.wanted(step) and self.run_log.budget.affords(self.kind, self.run_log.seconds):
            with self.run_log.budget.spending(self.kind):
                self.show(pl_module.net, step)


LINE_LENGTH = 100
WORDS = 10  # of a prompt from the corpus
MOST_CHARACTERS = 80  # where words are not parted by spaces
TOKENS_LOOKED_AT = 5_000
TAG_LENGTH = 40


class LogSamples(PeriodicCallback):
    """Texts that begin with `logger.sample_prompts`."""

    kind = "text"

    def __init__(
        self, curves: TensorBoardLogger, run_log: MetricsCSV, cfg: LoggerConfig, data: CorpusDataModule
    ) -> None:
        super().__init__(curves, run_log)
        self._prompts = prompts(cfg, data)
        self._sampling = Sampling(max_new_tokens=cfg.sample_tokens)
        self._data = data

    def show(self, net: GPT, step: int) -> None:
        """Samples, by a generator of its own."""
        for number, prompt in enumerate(self._prompts, start=1):
            [text] = continue_text(net, self._data.tokenizer, prompt, self._data.cfg.seq_len, self._sampling)
            self.curves.text(_tag(number, prompt), code_block(_wrapped(text)), step)


def prompts(cfg: LoggerConfig, data: CorpusDataModule) -> list[str]:
    """The prompts of a run: as they were set; else none, which begins a document, and words of the validation part."""
    if cfg.sample_prompts is not None:
        return cfg.sample_prompts
    return list(dict.fromkeys(["", first_words(data)]))


def first_words(data: CorpusDataModule) -> str:
    """The first ten words of the first line of the validation part that has as many and knows them all.

    Of the validation part, since what was trained on could be continued by heart. Where no line is long enough, the
    first of which all is known; empty where there is none.
    """
    text = data.tokenizer.decode(data.streams["val"][1:TOKENS_LOOKED_AT].tolist())
    beginnings = [" ".join(line.split()[:WORDS]) for line in text.split("\n")]
    known = [words for words in beginnings if words and UNK not in words]
    long_enough = [words for words in known if len(words.split()) == WORDS]
    return next(iter([*long_enough, *known]), "")[:MOST_CHARACTERS]


def _tag(number: int, prompt: str) -> str:
    words = re.sub(r"\W+", "_", prompt[:TAG_LENGTH]).strip("_")
    return f"sample/{number}_{words or 'beginning_of_a_document'}"


def _wrapped(text: str) -> str:
    """A code block is not broken into lines by the browser."""
    wrap = textwrap.TextWrapper(LINE_LENGTH, expand_tabs=False, replace_whitespace=False, break_on_hyphens=False)
    return "\n".join(wrap.fill(line) for line in text.split("\n"))
