"""Steps 1 to 3: from text to tokens, from tokens to ids, from ids to vectors."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from hp_lightning.models.gpt import GPT
from hp_lightning.tasks.course.subject import Subject
from hp_lightning.tasks.sentiment.zero_shot import word_ids
from hp_lightning.tokenizers import UNK, Tokenizer
from hp_lightning.tokenizers.base import labels

NAMES = 5  # whose neighbours are shown
NEIGHBOURS = 6
NUMBERS = 8  # of a vector
FIRST_IDS = 12
LAST_IDS = 3
NAME_LENGTH = 3  # characters at least
MOST_COMMON = 3_000  # tokens among which names are looked for


@dataclass(frozen=True)
class Token:
    """A token of the passage or of the vocabulary."""

    label: str
    id: int
    is_unknown: bool = False


@dataclass(frozen=True)
class Neighbours:
    """The tokens whose vectors point most nearly into the direction of a word's; or why there are none."""

    name: str
    near: list[tuple[str, float]]  # with the cosine, falling
    missing: str = ""


@dataclass(frozen=True)
class Words:
    """What steps 1 to 3 show."""

    text: str
    tokens: list[Token]
    first_ids: list[Token]
    last_ids: list[Token]
    vocab_size: int
    unknown_rate: float | None  # of the validation split's tokens
    example: Token
    vector: list[float]
    neighbours: list[Neighbours]


def look_at_words(subject: Subject, names: list[str] | None) -> Words:
    """Tokens and ids of the passage, the vocabulary's ends, and the nearest words of some names."""
    tokenizer, token_ids = subject.tokenizer, subject.passage.token_ids
    size, unk_id = len(tokenizer.vocabulary), tokenizer.vocabulary.unk_id
    tokens = _tokens(tokenizer, token_ids)
    example = next((token for token in tokens if token.label.strip("␣").isalpha()), tokens[0])
    rate = None
    if subject.corpus is not None and unk_id is not None:
        rate = float((subject.corpus.streams["val"][1:] == unk_id).mean())
    return Words(
        text=tokenizer.decode(token_ids),
        tokens=tokens,
        first_ids=_tokens(tokenizer, list(range(min(FIRST_IDS, size)))),
        last_ids=_tokens(tokenizer, list(range(max(size - LAST_IDS, FIRST_IDS), size))),
        vocab_size=size,
        unknown_rate=rate,
        example=example,
        vector=subject.net.token_embedding.weight[example.id, :NUMBERS].tolist(),
        neighbours=_neighbours(subject.net, tokenizer, names),
    )


def _tokens(tokenizer: Tokenizer, token_ids: list[int]) -> list[Token]:
    unk_id = tokenizer.vocabulary.unk_id
    return [Token(name, i, i == unk_id) for name, i in zip(labels(tokenizer, token_ids), token_ids, strict=True)]


def _neighbours(net: GPT, tokenizer: Tokenizer, names: list[str] | None) -> list[Neighbours]:
    if names is None:
        return [_nearest(net, tokenizer, i) for i in frequent_names(tokenizer)]
    neighbours = []
    for name in names:
        ids = word_ids(tokenizer, name.strip())
        if tokenizer.decode(ids[:1]).isspace():
            ids = ids[1:]
        if tokenizer.vocabulary.unk_id in ids:
            neighbours.append(Neighbours(name, [], f"is not in the vocabulary: the model reads it as {UNK}"))
        elif len(ids) != 1:
            neighbours.append(Neighbours(name, [], f"is {len(ids)} tokens here and has no vector of its own"))
        else:
            neighbours.append(_nearest(net, tokenizer, ids[0]))
    return neighbours


@torch.no_grad()
def _nearest(net: GPT, tokenizer: Tokenizer, token_id: int) -> Neighbours:
    vocabulary = tokenizer.vocabulary
    vectors = F.normalize(net.token_embedding.weight[: len(vocabulary)], dim=1)
    alike = vectors @ vectors[token_id]
    alike[[token_id, vocabulary.eos_id, *vocabulary.unwritable(len(vocabulary))]] = -torch.inf
    order = [i for i in alike.argsort(descending=True, stable=True)[:NEIGHBOURS].tolist() if alike[i].isfinite()]
    [name] = labels(tokenizer, [token_id])
    return Neighbours(name, list(zip(labels(tokenizer, order), alike[order].tolist(), strict=True)))


def frequent_names(tokenizer: Tokenizer) -> list[int]:
    """The first of the vocabulary that look like names: capitalized, and not there without the capital.

    Word and character vocabularies list the most frequent first, those of byte pairs with what was merged first.
    Where there are no names, as among characters, the first tokens of letters, the longer ones before.
    """
    texts = [tokenizer.decode([i]).strip() for i in range(min(len(tokenizer.vocabulary), MOST_COMMON))]
    known = set(texts)
    letters = [i for i, text in enumerate(texts) if text.isalpha()]
    titled = [i for i in letters if texts[i].istitle() and len(texts[i]) >= NAME_LENGTH]
    names = [i for i in titled if texts[i].lower() not in known]
    others = sorted(letters, key=lambda i: -min(len(texts[i]), NAME_LENGTH))
    distinct = {texts[i]: i for i in reversed(names or others)}  # of a name's several forms the most frequent
    return sorted(distinct.values(), key=(names or others).index)[:NAMES]
