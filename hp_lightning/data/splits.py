"""From documents to a training, a validation and a test split."""

import random
from dataclasses import dataclass

from hp_lightning.common.errors import InputError
from hp_lightning.data.documents import Document, characters
from hp_lightning.schema.data import DataConfig


@dataclass(frozen=True)
class Splits:
    """The documents of each split; `test` may be empty."""

    train: list[Document]
    val: list[Document]
    test: list[Document]


def split_documents(documents: list[Document], cfg: DataConfig) -> Splits:
    """Parts of about `val_fraction` and `test_fraction` of the characters.

    `documents` puts whole documents, drawn by `split_seed`, into a split, and equal ones into the same split; `tail`
    keeps the first of equal documents and takes the end of the corpus by position, the test split last; `auto` is
    `documents` where that comes near to the fractions, and else `tail`.

    Raises:
        InputError: there are too few documents to fill every split.
    """
    splits = _split_tail(documents, cfg) if cfg.split == "tail" else _split_by_document(documents, cfg)
    if cfg.split == "auto" and not _near_fractions(splits, cfg):
        splits = _split_tail(documents, cfg)
    for split, of_split in (("train", splits.train), ("validation", splits.val), ("test", splits.test)):
        if not of_split and (split != "test" or cfg.test_fraction):
            raise InputError(
                "data.empty_split",
                f"data.split={cfg.split} leaves the {split} split empty ({len(documents)} documents): take "
                "data.split=tail, other fractions, or more text",
            )
    return splits


def _split_by_document(documents: list[Document], cfg: DataConfig) -> Splits:
    alike: dict[str, list[Document]] = {}
    for document in documents:
        alike.setdefault(document.text, []).append(document)
    pool = list(alike.values())
    random.Random(cfg.split_seed).shuffle(pool)
    total = characters(documents)
    test = _take(pool, cfg.test_fraction * total) if cfg.test_fraction else []
    val = _take(pool, cfg.val_fraction * total)
    train = [document for group in pool for document in group]
    in_file_order = {id(document): position for position, document in enumerate(documents)}
    for split in (train, val, test):
        split.sort(key=lambda document: in_file_order[id(document)])
    return Splits(train, val, test)


def _near_fractions(splits: Splits, cfg: DataConfig) -> bool:
    """Whether each split has at least half and at most twice what was asked."""
    total = characters([*splits.train, *splits.val, *splits.test])
    held_out = ((splits.val, cfg.val_fraction), (splits.test, cfg.test_fraction))
    return bool(splits.train) and all(
        fraction / 2 <= characters(split) / total <= 2 * fraction for split, fraction in held_out
    )


def _take(pool: list[list[Document]], wanted: float) -> list[Document]:
    """Move groups out of the pool, in its order, as long as each brings their length nearer to `wanted`."""
    taken: list[Document] = []
    left: list[list[Document]] = []
    length = 0
    for group in pool:
        longer = length + characters(group)
        if abs(longer - wanted) < abs(length - wanted):
            taken.extend(group)
            length = longer
        else:
            left.append(group)
    if not taken and left:  # every group is more than twice too long
        taken = left.pop(min(range(len(left)), key=lambda index: characters(left[index])))
    pool[:] = left
    return taken


def _split_tail(documents: list[Document], cfg: DataConfig) -> Splits:
    documents = _without_equal(documents)  # or one might stand on two sides
    total = characters(documents)
    test_start = int(total * (1 - cfg.test_fraction))
    val_start = int(total * (1 - cfg.test_fraction - cfg.val_fraction))
    return Splits(
        _cut(documents, 0, val_start), _cut(documents, val_start, test_start), _cut(documents, test_start, total)
    )


def _without_equal(documents: list[Document]) -> list[Document]:
    """The first of every text."""
    first: dict[str, Document] = {}
    for document in documents:
        first.setdefault(document.text, document)
    return list(first.values())


def _cut(documents: list[Document], start: int, end: int) -> list[Document]:
    """What lies between two positions of the documents laid end to end."""
    pieces, offset = [], 0
    for document in documents:
        text = document.text[max(start - offset, 0) : max(end - offset, 0)]
        if text.strip():
            pieces.append(Document(document.name, text))
        offset += len(document.text)
    return pieces
