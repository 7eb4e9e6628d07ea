"""Classify texts: by the words that a language model expects, or by a model that was finetuned with labels."""

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
from hp_lightning.tasks.sentiment import checkpoint as finetuned
from hp_lightning.tasks.sentiment.labels import LabelReader
from hp_lightning.tasks.sentiment.zero_shot import NextWordReader, WordLists
from hp_lightning.tokenizers import Tokenizer

LABEL_METHOD = "label"


@dataclass(frozen=True)
class Classifier:
    """A model, and the way in which it classifies texts."""

    path: Path
    method: str
    tokenizer: Tokenizer
    reader: NextWordReader | LabelReader
    words: WordLists | None  # that are weighed, where it is the next words
    data: DataConfig  # how texts are read
    training_texts: Tensor | None = None  # digests of those it was finetuned with, (texts,) int64

    def probabilities(self, texts: list[str]) -> Tensor:
        """Of a positive sentiment: (texts,) in float64."""
        return self.reader.log_odds(texts).sigmoid()

    def seen_in_training(self, texts: list[str]) -> int:
        """How many of the texts the model was finetuned with."""
        if self.training_texts is None:
            return 0
        return int(torch.isin(finetuned.text_digests(texts), self.training_texts).sum())


def load_classifier(path: Path, cfg: SentimentConfig) -> Classifier:
    """Load the classifier that a checkpoint holds.

    Raises:
        InputError: it cannot be read, or knows none of the words
    """
    model = finetuned.load(path)
    if model is not None:
        if cfg.method == "calibrated":
            raise InputError(
                "sentiment.other_method",
                f"method=calibrated is for a language model, and {path} was finetuned with labels: leave it out",
            )
        data = reading_settings(model.cfg.data, cfg)
        return Classifier(path, LABEL_METHOD, model.tokenizer, model.reader, None, data, model.texts)
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
    return Classifier(path, cfg.method, tokenizer, reader, words, reading_settings(trained.cfg.data, cfg))


def reading_settings(of_run: DataConfig, cfg: SentimentConfig) -> DataConfig:
    """How texts are read: from files of their own kind, but in the form that the corpus has."""
    return dataclasses.replace(
        of_run, delimiter=cfg.data.delimiter, encoding=cfg.data.encoding, text_column=cfg.data.text_column
    )


def say(line: str) -> None:
    """Print a line to standard error: standard output has the results."""
    print(line, file=sys.stderr)


def verdict(probability: float) -> str:
    """The sentiment by its probability of being positive."""
    return "positive" if probability >= 0.5 else "negative"
