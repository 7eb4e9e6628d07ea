"""The checkpoint of a finetuned model: tensors and plain values, whole or absent."""

import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hp_lightning.checkpoint import SENTIMENT_KEY, LoadedCheckpoint, blank_network, read_contents, refusals
from hp_lightning.common.errors import InputError, RunError
from hp_lightning.common.files import atomic_write
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.migrations import CONFIG_MIGRATIONS, FORMAT, migrated
from hp_lightning.schema.train import TrainConfig, from_plain, to_plain
from hp_lightning.tasks.sentiment.labels import LabelReader
from hp_lightning.tokenizers import Tokenizer, tokenizer_from_state

SENTIMENT_FORMAT = 3
DIGEST_BYTES = 8  # of a text: among a million texts, two have the same with a chance of 1 in 40 million


def save(reader: LabelReader, trained: LoadedCheckpoint, texts: list[str], path: Path) -> None:
    """Write the file.

    Args:
        trained: the model that gave form and tokenizer
        texts: that it was finetuned with; their digests are kept, not they themselves

    Raises:
        RunError: it cannot be written
    """
    contents = {
        "format": SENTIMENT_FORMAT,
        "config_format": FORMAT,
        "config": to_plain(trained.cfg),
        "tokenizer": trained.tokenizer.state(),
        "labels": reader.labels,
        "temperature": reader.temperature,
        "texts": text_digests(texts),
        "networks": [net.state_dict() for net in reader.nets],
    }
    archive = io.BytesIO()
    torch.save({SENTIMENT_KEY: contents}, archive)
    try:
        with atomic_write(path) as file:
            file.write(archive.getvalue())
    except OSError as error:
        raise RunError(
            "output.not_writable", f"{path} cannot be written ({error}): make room, or name another file by out="
        ) from error


@dataclass(frozen=True)
class FinetunedModel:
    """A model that was finetuned with labels."""

    cfg: TrainConfig  # of the run it comes from
    tokenizer: Tokenizer
    reader: LabelReader
    texts: Tensor  # digests of those it was finetuned with, (texts,) int64


def text_digests(texts: list[str]) -> Tensor:
    """Numbers by which texts are known again, (texts,) int64: BLAKE2b (RFC 7693) without the spaces around them."""
    digests = [hashlib.blake2b(text.strip().encode(), digest_size=DIGEST_BYTES).digest() for text in texts]
    return torch.tensor([int.from_bytes(digest, signed=True) for digest in digests], dtype=torch.long)


def is_finetuned(path: Path) -> bool:
    """Whether it is such a file, of whichever version."""
    with suppress(RunError), refusals(path):
        return SENTIMENT_KEY in read_contents(path)
    return False


def load(path: Path) -> FinetunedModel | None:
    """Read the file, of which nothing is executed; None where it is something else, such as a run's checkpoint.

    Raises:
        InputError: it cannot be read, is damaged, or of another version
    """
    with refusals(path):
        contents = read_contents(path)
        if SENTIMENT_KEY not in contents:
            return None
        ours = contents[SENTIMENT_KEY]
        if ours["format"] == SENTIMENT_FORMAT:
            cfg = from_plain(migrated(ours["config"], ours["config_format"], CONFIG_MIGRATIONS))
            tokenizer = tokenizer_from_state(ours["tokenizer"])
            nets = [_network(cfg, weights) for weights in ours["networks"]]
            labels, temperature = list(map(str, ours["labels"])), float(ours["temperature"])
            reader = LabelReader(nets, tokenizer, labels, temperature, cfg.data.seq_len)
            return FinetunedModel(cfg, tokenizer, reader, ours["texts"].long())
    raise InputError(
        "checkpoint.other_version",
        f"{path} has the format {ours['format']}, and this version reads {SENTIMENT_FORMAT}: finetune the model again",
    )


def _network(cfg: TrainConfig, weights: dict[str, Tensor]) -> GPT:
    net = blank_network(cfg.model)
    net.load_state_dict(weights)
    return net.eval()
