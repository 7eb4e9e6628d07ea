"""What evaluate and sentiment can be told: their dataclasses, and the checks that a type cannot make."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from hp_lightning.common.errors import InputError
from hp_lightning.schema.checks import above, at_least, not_empty, one_of, resolved, sampling, seed, validated


@dataclass
class OtherCorpusConfig:
    """How a corpus is read by which a trained model is evaluated; null: as its run read its own."""

    path: Any
    delimiter: Optional[str]
    encoding: Optional[str]
    text_column: Optional[str]
    group_columns: Optional[list[str]]
    row_separator: Optional[str]
    header: Optional[bool]
    split: Optional[str]  # documents | tail | auto
    val_fraction: Optional[float]
    test_fraction: Optional[float]
    cache_dir: Optional[str]  # null: the user's cache folder


@dataclass
class EvaluateConfig:
    """How well a trained model predicts, and how much it copies: the root of `conf/evaluate.yaml`."""

    ckpt: Optional[str]  # checkpoint file or run folder; null: the newest run below outputs/
    data: OtherCorpusConfig
    out: Optional[str]  # the JSON file with all figures; null: beside the checkpoint
    parts: list[str]  # train, val, test
    stride: Optional[int]  # tokens from a window to the next; null: windows side by side, as in training
    num_samples: int  # that are written to see what is copied; 0: none
    max_new_tokens: int
    temperature: float
    top_k: Optional[int]
    top_p: Optional[float]
    seed: int


@dataclass
class ReviewsConfig:
    """How a CSV of texts to be judged, or of labelled ones, is read."""

    delimiter: Optional[str]  # what parts the columns; null: found from the file
    encoding: str
    text_column: Optional[str]  # name, or position from 0; null: found from the header
    label_column: Optional[str]  # says positive or negative; null: found from the header


@dataclass
class TeachConfig:
    """How a language model is taught to write the sentiment of a text behind it."""

    labels: list[str]  # the word that is taught for positive, and for negative
    networks: int  # that differ by seed and rows, and whose log-odds are averaged
    from_weights: bool  # whether they begin with the model's weights, or afresh
    epochs: int
    batch_size: int  # texts
    lr: float  # the highest; it falls linearly to 0
    weight_decay: float
    dropout: float  # of attention and residual branches
    embedding_dropout: float
    word_deletion: float  # share of a text's words that are left out when it is shown
    distillation: float  # share of what is taught that counting the words says; the rest is the row's own label
    shuffle: float  # share of the texts whose words are shown in any order
    val_fraction: float  # of the rows, kept back from each network to set the temperature


@dataclass
class SentimentConfig:
    """The sentiment of texts: the root of `conf/sentiment.yaml`."""

    ckpt: Optional[str]  # checkpoint file or run folder; null: the newest run below outputs/
    text: Optional[str]
    file: Optional[str]  # texts, in a CSV or one a line; -: standard input, one a line
    evaluate: Optional[str]  # labelled rows that the judgements are compared with
    train: Optional[str]  # labelled rows that a model is taught by
    out: Optional[str]  # where the scores, the evaluation or the taught model go; null: see docs/sentiment.md
    data: ReviewsConfig
    method: str  # next_word | calibrated; a model that was taught labels has its own
    template: str  # follows a text, before the words, with the method calibrated
    positive: list[str]
    negative: list[str]
    teach: TeachConfig
    seed: int


def register() -> None:
    """Makes the dataclasses known to Hydra as the schemas of `conf/*.yaml`."""
    store = ConfigStore.instance()
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="sentiment_schema", node=SentimentConfig)


def evaluate_config(cfg: DictConfig) -> EvaluateConfig:
    """A composed Hydra config as a checked `EvaluateConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(resolved(cfg), EvaluateConfig, _evaluate_problems)


def sentiment_config(cfg: DictConfig) -> SentimentConfig:
    """A composed Hydra config as a checked `SentimentConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(resolved(cfg), SentimentConfig, _sentiment_problems)


def other_corpus_problems(data: OtherCorpusConfig) -> Iterator[InputError]:
    """How no corpus can be read."""
    for key in ("path", "delimiter", "encoding", "text_column", "cache_dir"):
        yield from not_empty(f"data.{key}", getattr(data, key))
    if data.split is not None:
        yield from one_of("data.split", data.split, "documents", "tail", "auto")
    for key in ("val_fraction", "test_fraction"):
        value = getattr(data, key)
        if value is not None and not 0 <= value < 1:
            yield InputError(
                "config.out_of_range", f"data.{key}={value} is not a fraction: it must be at least 0 and below 1"
            )


def _evaluate_problems(cfg: EvaluateConfig) -> Iterator[InputError]:
    yield from other_corpus_problems(cfg.data)
    yield from not_empty("out", cfg.out)
    if not cfg.parts:
        yield InputError("config.empty", "parts is empty: name at least one of train, val, test")
    for part in cfg.parts:
        yield from one_of("parts", part, "train", "val", "test")
    yield from at_least("stride", cfg.stride, 1)
    yield from at_least("num_samples", cfg.num_samples, 0)
    yield from not_empty("ckpt", cfg.ckpt)
    yield from sampling(cfg.max_new_tokens, cfg.temperature, cfg.top_k, cfg.top_p)
    yield from seed("seed", cfg.seed)


def _sentiment_problems(cfg: SentimentConfig) -> Iterator[InputError]:
    for key in ("ckpt", "text", "file", "evaluate", "train", "out"):
        yield from not_empty(key, getattr(cfg, key))
    given = [key for key in ("text", "file", "evaluate", "train") if getattr(cfg, key) is not None]
    if len(given) != 1:
        yield InputError(
            "config.conflict" if given else "config.missing",
            f"{' and '.join(given) or 'nothing'} given: give one of text=, file=, evaluate= and train=",
        )
    if cfg.text and not cfg.text.strip():
        yield InputError("config.empty", "text is blank: give it words to judge")
    if cfg.text is not None and cfg.out is not None:
        yield InputError(
            "config.conflict", "out= is for file=, evaluate= and train=: what is said of a text= is printed"
        )
    if both := set(cfg.positive) & set(cfg.negative):
        yield InputError(
            "config.conflict", f"positive and negative both have {', '.join(sorted(both))}: name words of one sentiment"
        )
    yield from one_of("method", cfg.method, "next_word", "calibrated")
    for key in ("positive", "negative"):
        if not getattr(cfg, key) or not all(map(str.strip, getattr(cfg, key))):
            yield InputError("config.empty", f"{key} must be a list of words: {key}=[good,great]")
    for key in ("delimiter", "encoding", "text_column", "label_column"):
        yield from not_empty(f"data.{key}", getattr(cfg.data, key))
    if len(cfg.teach.labels) != 2 or not all(map(str.strip, cfg.teach.labels)):
        yield InputError(
            "config.out_of_range",
            "teach.labels must be two words, for positive and for negative: teach.labels=[good,bad]",
        )
    if len(set(cfg.teach.labels)) < len(cfg.teach.labels):
        yield InputError(
            "config.conflict", f"teach.labels={cfg.teach.labels} are the same word twice: name one for each sentiment"
        )
    for key in ("networks", "epochs", "batch_size"):
        yield from at_least(f"teach.{key}", getattr(cfg.teach, key), 1)
    yield from above("teach.lr", cfg.teach.lr, 0)
    yield from at_least("teach.weight_decay", cfg.teach.weight_decay, 0)
    for key in ("dropout", "embedding_dropout", "word_deletion"):
        if not 0 <= getattr(cfg.teach, key) < 1:
            yield InputError(
                "config.out_of_range",
                f"teach.{key}={getattr(cfg.teach, key)} is not a rate: it must be at least 0 and below 1",
            )
    for key in ("distillation", "shuffle"):
        if not 0 <= getattr(cfg.teach, key) <= 1:
            yield InputError(
                "config.out_of_range",
                f"teach.{key}={getattr(cfg.teach, key)} is not a share: it must be between 0 and 1",
            )
    if not 0 < cfg.teach.val_fraction < 1:
        yield InputError(
            "config.out_of_range",
            f"teach.val_fraction={cfg.teach.val_fraction} is not a fraction: it must be above 0 and below 1",
        )
    yield from seed("seed", cfg.seed)
