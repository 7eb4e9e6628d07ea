"""Between which tokens a space stands, learned from the text they were cut from.

Most tokens have a rule: a comma stands close to what is on its left, whatever that is; some pairs of tokens have a rule
of their own, as "can" and "not". What is left are tokens that are written in several ways, such as a dash: each way
becomes an entry of its own in the vocabulary: nothing is lost, and the model learns when to write which.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hp_lightning.tokenizers.arrays import Counts, Flags, Ids, blocks
from hp_lightning.tokenizers.nltk_words import Cut

RULE_COUNT = 4  # times that a kind of token was joined oftener than not, to stand close to whatever is next to it
RELIABLE_COUNT, RELIABLE_SHARE = 4, 0.9  # of a pair that has a rule of its own
# A kind of token varies where the rules fail so often, and in such a share of its places.
VARYING_COUNT, VARYING_SHARE = 5, 0.02
JOINED, SPACED, EDGE = range(3)  # how a token stands to its neighbour; at the edge of a line it has none


@dataclass(frozen=True)
class Pairs:
    """Pairs of kinds of tokens that follow each other on a line; how often with a space between them, and without."""

    first: Counts
    second: Counts
    spaced: Counts
    joined: Counts


@dataclass(frozen=True)
class Rules:
    """Which kinds stand close to their left or right neighbour, (kinds,); pairs that do otherwise; kinds that vary."""

    joined_left: Flags
    joined_right: Flags
    exceptions: Counts  # (exceptions, 2)
    varying: Flags


def count_pairs(cuts: Iterable[Cut], num_kinds: int) -> Pairs:
    """Counts the pairs of some texts in blocks, to hold no more than their distinct pairs in memory."""
    keys, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for some in blocks(_keys(cut, num_kinds) for cut in cuts):
        new_keys, new_counts = np.unique(some, return_counts=True)
        keys, places = np.unique(np.concatenate([keys, new_keys]), return_inverse=True)
        counts = np.bincount(places, np.concatenate([counts, new_counts]), len(keys)).astype(np.int64)
    pairs, places = np.unique(keys // 2, return_inverse=True)
    spaced = np.bincount(places, counts * (keys % 2), len(pairs)).astype(np.int64)
    joined = np.bincount(places, counts, len(pairs)).astype(np.int64) - spaced
    first, second = np.divmod(pairs, num_kinds)
    return Pairs(first, second, spaced, joined)


def learn_rules(pairs: Pairs, num_kinds: int) -> Rules:
    """The rules that explain the pairs best."""
    joined_left, joined_right = _responsible(pairs, num_kinds)
    joined = joined_right[pairs.first] | joined_left[pairs.second]
    count = pairs.spaced + pairs.joined
    against = np.where(joined, pairs.spaced, pairs.joined)
    has_own_rule = (count >= RELIABLE_COUNT) & (against >= RELIABLE_SHARE * count)
    varying = _varying(pairs, np.where(has_own_rule, count - against, against), num_kinds)
    excepted = (2 * against > count) & ~varying[pairs.first] & ~varying[pairs.second]
    exceptions = np.stack([pairs.first[excepted], pairs.second[excepted]], axis=1)
    return Rules(joined_left, joined_right, exceptions, varying)


def sides(cut: Cut) -> tuple[Ids, Ids]:
    """How each token of a text stands to its left and to its right neighbour: (tokens,) each."""
    inner = _inner(cut)
    left, right = (np.full(len(cut.kinds), EDGE, np.int32) for _ in range(2))
    left[1:][inner] = right[:-1][inner] = np.where(cut.spaced[1:], SPACED, JOINED)[inner]
    return left, right


def _inner(cut: Cut) -> Flags:
    """Between which neighbours there is no line break: (tokens - 1,)."""
    words = cut.kinds != 0
    inner: Flags = words[:-1] & words[1:]
    return inner


def _keys(cut: Cut, num_kinds: int) -> Counts:
    kinds = cut.kinds.astype(np.int64)
    keys: Counts = (kinds[:-1] * num_kinds + kinds[1:]) * 2 + cut.spaced[1:]
    return keys[_inner(cut)]


def _responsible(pairs: Pairs, num_kinds: int) -> tuple[Flags, Flags]:
    """The kinds that stand close to whatever is on their left, and those that stand close to what is on their right.

    In "lantern." it is the full stop that stands close, and "lantern" must not be taken for a word that does. So the
    sides of kinds are gone through from the clearest on, and the pairs that one explains count no more for others.
    """
    balance = pairs.joined - pairs.spaced
    side = np.concatenate([pairs.first, num_kinds + pairs.second])  # the right side of each kind, then the left ones
    clarity = np.bincount(side, np.tile(balance, 2), 2 * num_kinds)
    order = np.argsort(side, kind="stable")
    begins = np.searchsorted(side[order], np.arange(2 * num_kinds + 1))
    pair_of = order % len(balance)
    has_rule = np.zeros(2 * num_kinds, np.bool_)
    candidates = np.flatnonzero(np.bincount(side, np.tile(balance > 0, 2), 2 * num_kinds))
    for rule in candidates[np.argsort(-clarity[candidates], kind="stable")]:
        its_pairs = pair_of[begins[rule] : begins[rule + 1]]
        left = balance[its_pairs]
        # One neighbour is no rule: a pair can have its own.
        if left.sum() >= RULE_COUNT and np.count_nonzero(left > 0) > 1:
            has_rule[rule] = True
            balance[its_pairs] = 0
    return has_rule[num_kinds:], has_rule[:num_kinds]


def _varying(pairs: Pairs, failures: Counts, num_kinds: int) -> Flags:
    """The kinds that are at fault where the rules fail, the worst first, until few failures are left."""
    count = np.bincount(pairs.second, pairs.spaced + pairs.joined, num_kinds)
    failing = np.flatnonzero(failures)
    first, second, failures = pairs.first[failing], pairs.second[failing], failures[failing]
    varying = np.zeros(num_kinds, np.bool_)
    while len(failures):
        fault = np.bincount(first, failures, num_kinds) + np.bincount(second, failures, num_kinds)
        fault[(fault < VARYING_COUNT) | (fault < VARYING_SHARE * count)] = 0
        worst = int(fault.argmax())
        if not fault[worst]:
            break
        varying[worst] = True
        others = (first != worst) & (second != worst)
        first, second, failures = first[others], second[others], failures[others]
    return varying
