"""What judges a text: a language model by the words it expects, or one that was taught labels."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hp_lightning import checkpoint
from hp_lightning.common.errors import InputError
from hp_lightning.schema.data import DataConfig
from hp_lightning.schema.sentiment import SentimentConfig
from hp_lightning.tasks.sentiment import checkpoint as taught
from hp_lightning.tasks.sentiment.finetune import LabelReader
from hp_lightning.tasks.sentiment.zero_shot import NextWordReader, WordLists
from hp_lightning.tokenizers import Tokenizer

LABEL_METHOD = "label"


@dataclass(frozen=True)
class Judge:
    """What judges texts."""

    path: Path
    method: str
    tokenizer: Tokenizer
    reader: NextWordReader | LabelReader
    words: WordLists | None  # that are weighed, where it is the next words
    data: DataConfig  # how texts are read
    taught_texts: Tensor | None = None  # digests of those that labels were taught by, (texts,) int64

    def probabilities(self, texts: list[str]) -> Tensor:
        """Of a positive sentiment: (texts,) in float64."""
        return self.reader.log_odds(texts).sigmoid()

    def taught_by(self, texts: list[str]) -> int:
        """How many of the texts are among those that labels were taught by."""
        if self.taught_texts is None:
            return 0
        return int(torch.isin(taught.text_digests(texts), self.taught_texts).sum())


def find_judge(path: Path, cfg: SentimentConfig) -> Judge:
    """What a checkpoint holds.

    Raises:
        InputError: it cannot be read, or knows none of the words
    """
    found = taught.load(path)
    if found is not None:
        if cfg.method == "calibrated":
            raise InputError(
                "sentiment.other_method",
                f"method=calibrated is a language model's, and {path} was taught labels: leave it out",
            )
        data = reading_settings(found.cfg.data, cfg)
        return Judge(path, LABEL_METHOD, found.tokenizer, found.reader, None, data, found.texts)
    trained = checkpoint.load(path)
    tokenizer = trained.tokenizer
    words = WordLists.known_to(tokenizer, cfg.positive, cfg.negative)
    left_out = [word for word in [*cfg.positive, *cfg.negative] if word not in [*words.positive, *words.negative]]
    if left_out:
        say(f"not in the model's vocabulary, left out of the lists: {' '.join(left_out)}")
    calibrated = cfg.method == "calibrated"
    reader = NextWordReader(
        trained.net(), tokenizer, words, cfg.template if calibrated else "", calibrated, trained.cfg.data.seq_len
    )
    return Judge(path, cfg.method, tokenizer, reader, words, reading_settings(trained.cfg.data, cfg))


def reading_settings(of_run: DataConfig, cfg: SentimentConfig) -> DataConfig:
    """How texts are read: from files of their own kind, but in the form that the corpus has."""
    return dataclasses.replace(
        of_run, delimiter=cfg.data.delimiter, encoding=cfg.data.encoding, text_column=cfg.data.text_column
    )


def say(line: str) -> None:
    """Tells the person something beside the judgements, which are on standard output."""
    print(line, file=sys.stderr)


def verdict(probability: float) -> str:
    """What a probability of a positive sentiment comes to."""
    return "positive" if probability >= 0.5 else "negative"
