"""How a corpus is read, split and cut: `conf/data/`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from omegaconf import MISSING

from hp_lightning.common.errors import InputError
from hp_lightning.schema.model import ModelConfig
from hp_lightning.schema.setting import PROPER_FRACTION, RATE, SEED, number, one_of, setting

USUAL_BATCH = 16  # sequences: smaller steps learn more from a token (benchmarks/LOG.md)
SPLITS = one_of("documents", "tail", "auto")


@dataclass
class DataConfig:
    """Where the text is, how its rows become documents, and how the documents are split and cut."""

    path: Any = setting(MISSING, "a file, a glob or a URL, or a list of them", verbatim=True)
    delimiter: Optional[str] = setting(None, "what separates the columns; null: found from the file", verbatim=True)
    encoding: str = setting(
        "utf-8", "encoding of the file: utf-8 (with or without byte order mark), or another of Python's names"
    )
    sha256: Optional[str] = setting(None, "the checksum that the file must have, in hexadecimal; null: not checked")
    text_column: Optional[str] = setting(
        None, "column of the text: its name, or position from 0; null: found from the header", verbatim=True
    )
    group_columns: Optional[list[str]] = setting(
        None, "rows that agree in these columns are one document; null: found from the header"
    )
    row_separator: Optional[str] = setting(
        None, "what joins the rows of a document; null: found from the text", verbatim=True, may_be_empty=True
    )
    header: bool = setting(True, "whether the first row names the columns")
    collapse_spaces: bool = setting(True, "whether runs of spaces become one, and those at the ends of lines go")
    split: str = setting(
        "auto",
        "what is held out: whole documents, or the tail of the text; auto: documents where there are enough",
        SPLITS,
    )
    val_fraction: float = setting(0.1, "share of the characters to validate on", PROPER_FRACTION)
    test_fraction: float = setting(0.05, "share of the characters to test on", RATE)
    split_seed: int = setting(0, "draws the documents that are held out", SEED)
    seq_len: int = setting("${model.max_seq_len}", "tokens per training sequence", number(at_least=1))
    batch_size: Optional[int] = setting(
        None,
        "sequences per forward pass, over all devices; null: 16, or with batch_tokens all of a step",
        number(at_least=1),
    )
    batch_tokens: Optional[int] = setting(
        None, "tokens per optimizer step, gradients accumulated as needed; null: by batch_size", number(at_least=1)
    )
    cache_dir: Optional[str] = setting(
        None, "folder for downloads and tokenized corpora; null: the user's cache folder", verbatim=True
    )

    @property
    def usual_batch_size(self) -> int:
        """What `batch_size` is where it is null and gradients are not accumulated."""
        return USUAL_BATCH if self.batch_tokens is None else max(self.batch_tokens // self.seq_len, 1)

    def batch_size_is_settled(self, accumulate: int) -> bool:
        """Whether the batches of an optimizer step make up `batch_tokens` already."""
        return self.batch_size is not None and self.batch_size * accumulate * self.seq_len == self.batch_tokens


@dataclass
class OtherCorpusConfig:
    """Another corpus to look at a trained model with; what is null is as the run has it."""

    path: Any = setting(None, "a file, a glob or a URL, or a list of them", verbatim=True)
    delimiter: Optional[str] = setting(None, "what separates the columns", verbatim=True)
    encoding: Optional[str] = setting(None, "encoding of the file", verbatim=True)
    text_column: Optional[str] = setting(None, "column of the text: its name, or position from 0", verbatim=True)
    group_columns: Optional[list[str]] = setting(None, "rows that agree in these columns are one document")
    row_separator: Optional[str] = setting(None, "what joins the rows of a document", verbatim=True, may_be_empty=True)
    header: Optional[bool] = setting(None, "whether the first row names the columns")
    split: Optional[str] = setting(None, "whole documents, or the tail of the text, are held out", SPLITS)
    val_fraction: Optional[float] = setting(None, "share of the characters to validate on", RATE)
    test_fraction: Optional[float] = setting(None, "share of the characters to test on", RATE)
    cache_dir: Optional[str] = setting(
        None, "folder for downloads and tokenized corpora; null: the user's cache folder", verbatim=True
    )


def data_rules(data: DataConfig, model: ModelConfig) -> Iterator[InputError]:
    """What the settings of a corpus must be to each other, and to the network."""
    if data.val_fraction + data.test_fraction >= 1:
        yield InputError(
            "config.conflict",
            "data.val_fraction and data.test_fraction leave nothing to train on: together they must stay below 1",
        )
    if data.seq_len > model.max_seq_len:
        yield InputError(
            "config.conflict",
            f"data.seq_len={data.seq_len} is longer than model.max_seq_len={model.max_seq_len}: "
            "lower the first or raise the second",
        )
