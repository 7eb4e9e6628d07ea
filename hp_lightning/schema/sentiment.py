"""The config of `sentiment`: the root of `conf/sentiment.yaml`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from omegaconf import DictConfig

from hp_lightning.common.errors import InputError
from hp_lightning.schema.checks import resolved, validated
from hp_lightning.schema.setting import (
    FRACTION,
    NOT_BLANK,
    POSITIVE,
    PROPER_FRACTION,
    RATE,
    SEED,
    WORDS,
    Bound,
    checkpoint,
    number,
    one_of,
    setting,
)

POSITIVE_WORDS = [
    "good", "great", "excellent", "wonderful", "best", "fun", "funny", "entertaining", "beautiful", "brilliant",
    "enjoyable", "fascinating", "moving", "powerful", "heartfelt", "smart", "charming", "delightful", "touching",
    "engaging", "fantastic", "lovely",
]  # fmt: skip
NEGATIVE_WORDS = [
    "bad", "terrible", "awful", "horrible", "boring", "worst", "dull", "stupid", "disappointing", "ugly", "mediocre",
    "tedious", "predictable", "silly", "lame", "bland", "flat", "pointless", "poor", "sad", "wrong", "weak",
]  # fmt: skip


@dataclass
class ReviewsConfig:
    """How a CSV of texts, with or without labels, is read."""

    delimiter: Optional[str] = setting(None, "what separates the columns; null: found from the file", verbatim=True)
    encoding: str = setting("utf-8", "encoding of the file", verbatim=True)
    text_column: Optional[str] = setting(
        None, "column of the text: its name, or position from 0; null: found from the header", verbatim=True
    )
    label_column: Optional[str] = setting(
        None, "column that says positive or negative; null: found from the header", verbatim=True
    )


@dataclass
class FinetuneConfig:
    """How a language model is finetuned to write the sentiment of a text after it."""

    labels: list[str] = setting(
        ["good", "bad"],
        "the word that stands for positive, and the one for negative",
        Bound("must be two words, for positive and for negative", lambda labels: len(labels) == 2),
        WORDS,
    )
    networks: int = setting(
        5, "number of networks, by other seeds and rows, whose log-odds are averaged", number(at_least=1)
    )
    from_weights: bool = setting(False, "whether they start from the model's weights (false: from random ones)")
    epochs: int = setting(10, "passes through the rows", number(at_least=1))
    batch_size: int = setting(32, "texts per step", number(at_least=1))
    lr: float = setting(2.8e-3, "highest learning rate; it falls linearly to 0", POSITIVE)
    weight_decay: float = setting(0.1, "AdamW's weight decay", number(at_least=0))
    dropout: float = setting(0.05, "dropout rate of attention and residual branches", RATE)
    embedding_dropout: float = setting(0.1, "dropout rate of the embedding", RATE)
    word_deletion: float = setting(0.5, "share of a text's words that are left out when it is shown", RATE)
    distillation: float = setting(
        0.5, "share of the target that naive Bayes gives; the rest is the row's own label", FRACTION
    )
    shuffle: float = setting(0.5, "share of the texts whose words are shown in random order", FRACTION)
    val_fraction: float = setting(
        0.1, "share of the rows that each network does not see, to set the temperature", PROPER_FRACTION
    )


@dataclass
class SentimentConfig:
    """Classify the sentiment of texts, compare with labels, or finetune a model with labels."""

    ckpt: Optional[str] = checkpoint()
    text: Optional[str] = setting(None, "one text to classify", NOT_BLANK, verbatim=True)
    file: Optional[str] = setting(
        None, "texts to classify, in a CSV or one per line; -: standard input, one per line", verbatim=True
    )
    evaluate: Optional[str] = setting(None, "CSV of labelled rows to compare with", verbatim=True)
    train: Optional[str] = setting(None, "CSV of labelled rows to finetune a model with", verbatim=True)
    out: Optional[str] = setting(
        None,
        "where scores, evaluation or the finetuned model go; null: next to the checkpoint, or printed",
        verbatim=True,
    )
    data: ReviewsConfig = field(default_factory=ReviewsConfig)
    method: str = setting(
        "next_word", "how a model that was not finetuned classifies", one_of("next_word", "calibrated")
    )
    template: str = setting(
        "it's a", "follows a text, before the words, with method=calibrated", verbatim=True, may_be_empty=True
    )
    positive: list[str] = setting(
        POSITIVE_WORDS, "words of positive sentiment; those not in the vocabulary do not count", WORDS
    )
    negative: list[str] = setting(NEGATIVE_WORDS, "words of negative sentiment", WORDS)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    seed: int = setting(1, "draws rows and weights", SEED)


def sentiment_config(cfg: DictConfig) -> SentimentConfig:
    """A composed Hydra config as a checked `SentimentConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(resolved(cfg), SentimentConfig, _rules)


def _rules(cfg: SentimentConfig) -> Iterator[InputError]:
    given = [key for key in ("text", "file", "evaluate", "train") if getattr(cfg, key) is not None]
    if len(given) != 1:
        yield InputError(
            "config.conflict" if given else "config.missing",
            f"{' and '.join(given) or 'nothing'} given: give one of text=, file=, evaluate= and train=",
        )
    if cfg.text is not None and cfg.out is not None:
        yield InputError(
            "config.conflict", "out= is for file=, evaluate= and train=: what is said of a text= is printed"
        )
    if both := set(cfg.positive) & set(cfg.negative):
        yield InputError(
            "config.conflict", f"positive and negative both have {', '.join(sorted(both))}: name words of one sentiment"
        )
    if len(set(cfg.finetune.labels)) < len(cfg.finetune.labels):
        yield InputError(
            "config.conflict",
            f"finetune.labels={cfg.finetune.labels} are the same word twice: name one for each sentiment",
        )
