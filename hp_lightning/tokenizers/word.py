"""NLTK's words: sentences by a Punkt model trained on the training text itself, words by NLTK's improved Treebank
tokenizer. No download of NLTK data is needed.
"""

import itertools
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hp_lightning.common.console import watched
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.tokenizers import punkt, spacing
from hp_lightning.tokenizers.arrays import Ids, blocks
from hp_lightning.tokenizers.base import EOS, SPECIAL_TOKENS, UNK, Learned, Vocabulary
from hp_lightning.tokenizers.nltk_words import Cut, Cutter, Kind
from hp_lightning.tokenizers.punkt import LINE_BREAK
from hp_lightning.tokenizers.spacing import EDGE, JOINED, SPACED, Rules

UNK_ID = SPECIAL_TOKENS.index(UNK)
SIDES = tuple(itertools.product((JOINED, SPACED, EDGE), repeat=2))  # to the left and to the right


class Form(NamedTuple):
    """How an entry of the vocabulary is written; for kinds of tokens that vary also how it stands to its neighbours."""

    written: str
    left: int | None
    right: int | None


class WordTokenizer:
    """Words and punctuation marks; the end of a paragraph is a token of its own."""

    def __init__(self, state: dict[str, Any], cutter: Cutter | None = None) -> None:
        self._state = state
        self.vocabulary = Vocabulary(state["vocabulary"])
        self._cutter = cutter or Cutter(state["punkt"], state["lowercase"])
        self._joined_left = set(state["spacing"]["joined_left"])
        self._joined_right = set(state["spacing"]["joined_right"])
        self._exceptions = {(first, second) for first, second in state["spacing"]["exceptions"]}
        forms = {int(token_id): Form(*form) for token_id, form in state["spacing"]["forms"].items()}
        self._forms = [forms.get(i) or Form(token, None, None) for i, token in enumerate(self.vocabulary.tokens)]
        self._ids_of_token: dict[str, list[int]] = {}
        self._ids_of_kind: dict[Kind, list[int]] = {}
        for token_id in range(len(SPECIAL_TOKENS), len(self.vocabulary)):
            token = self.vocabulary.tokens[token_id]
            self._ids_of_token.setdefault(token, []).append(token_id)
            self._ids_of_kind.setdefault(Kind(token, self._forms[token_id].written), []).append(token_id)
        self._id_table = array("i")  # (kinds, left sides, right sides), for the kinds met so far

    @classmethod
    def learn(cls, cfg: TokenizerConfig, texts: list[str]) -> Learned:
        """Learn where sentences end, the vocabulary, and between which tokens a space stands."""
        punkt_state = punkt.train(watched("learning where sentences end", texts))
        cutter = Cutter(punkt_state, cfg.lowercase)
        cuts = deque(cutter.cut(text) for text in watched("cutting into words", texts))
        kinds = cutter.kinds
        rules = spacing.learn_rules(spacing.count_pairs(cuts, len(kinds)), len(kinds))
        counts = _count_forms(cuts, rules)
        entries = _ranked(kinds, counts, rules, cfg)
        state = {
            "kind": "word",
            "lowercase": cfg.lowercase,
            "vocabulary": [*SPECIAL_TOKENS, *(kinds[kind].token for kind, _, _ in entries)],
            "punkt": punkt_state,
            "spacing": _spacing_state(entries, kinds, rules),
        }
        tokenizer = cls(state, cutter)
        tokens: Counter[str] = Counter()
        for kind, count in zip(kinds, counts.sum(axis=(1, 2)).tolist(), strict=True):
            tokens[kind.token] += count
        encoded = [tokenizer._encoded(cuts.popleft()) for _ in texts]  # each makes room for the next
        return Learned(tokenizer, encoded, +tokens)

    def state(self) -> dict[str, Any]:
        return self._state

    def library_form(self) -> None:
        return None

    def tokens(self, text: str) -> list[str]:
        return [self._cutter.kinds[kind].token for kind in self._cutter.cut(text).kinds.tolist()]

    def encode(self, text: str) -> Ids:
        return self._encoded(self._cutter.cut(text))

    def pieces(self, token_ids: Iterable[int]) -> Iterator[str]:
        before: int | None = None  # the token before, on the same line
        for token_id in token_ids:
            token = self.vocabulary.tokens[token_id]
            if token == EOS:
                yield ""
                continue
            spaced = before is not None and token != LINE_BREAK and self._space_between(before, token_id)
            before = None if token == LINE_BREAK else token_id
            yield " " * spaced + self._forms[token_id].written

    def decode(self, token_ids: Iterable[int]) -> str:
        return "".join(self.pieces(token_ids))

    def _space_between(self, before: int, after: int) -> bool:
        for side in (self._forms[after].left, self._forms[before].right):
            if side is not None:
                return side == SPACED
        joined = before in self._joined_right or after in self._joined_left
        return joined if (before, after) in self._exceptions else not joined

    def _encoded(self, cut: Cut) -> Ids:
        self._look_up_new_kinds()
        table = np.frombuffer(self._id_table, np.int32).reshape(-1, 3, 3)
        token_ids: Ids = table[cut.kinds, *spacing.sides(cut)]
        return token_ids

    def _look_up_new_kinds(self) -> None:
        done = len(self._id_table) // len(SIDES)
        if done == len(self._cutter.kinds):
            return
        for kind in self._cutter.kinds[done:]:
            ids = self._ids_of_kind.get(kind) or self._ids_of_token.get(kind.token, [UNK_ID])
            for left, right in SIDES:
                self._id_table.append(ids[0] if len(ids) == 1 else max(ids, key=lambda i: self._fits(i, left, right)))

    def _fits(self, token_id: int, left: int, right: int) -> int:
        """How many of the sides are as wished; of ids that fit equally the most frequent is taken."""
        form = self._forms[token_id]
        return (form.left == left) + (form.right == right)


def _count_forms(cuts: Iterable[Cut], rules: Rules) -> Any:
    """How often each kind occurs, (kinds, left sides, right sides); one that does not vary is counted at 0, 0."""
    counts = np.zeros(len(rules.varying) * len(SIDES), np.int64)
    for some in blocks(map(partial(_forms, rules=rules), cuts)):
        counts += np.bincount(some, minlength=len(counts))
    return counts.reshape(-1, 3, 3)


def _forms(cut: Cut, rules: Rules) -> npt.NDArray[np.int64]:
    left, right = spacing.sides(cut)
    return cut.kinds.astype(np.int64) * len(SIDES) + np.where(rules.varying[cut.kinds], left * 3 + right, 0)


def _ranked(kinds: list[Kind], counts: Any, rules: Rules, cfg: TokenizerConfig) -> list[tuple[int, int, int]]:
    """The entries (kind, left, right) of the vocabulary: the most common ones, ties in alphabetical order."""
    own = counts.copy()
    for kind in np.flatnonzero(rules.varying):
        _leave_out_edges(own[kind], cfg.min_frequency)
    frequent = np.argwhere(own >= cfg.min_frequency).tolist()
    ranked = sorted(frequent, key=lambda entry: (-own[*entry], kinds[entry[0]], entry))
    bound = None if cfg.vocab_size is None else cfg.vocab_size - len(SPECIAL_TOKENS)
    return [(kind, left, right) for kind, left, right in ranked[:bound]]


def _leave_out_edges(forms: npt.NDArray[np.int64], min_frequency: int) -> None:
    """At the edge of a line per token is no form of its own where another stands alike on its other side."""
    inner = forms[:EDGE, :EDGE] >= min_frequency
    forms[:EDGE, EDGE][inner.any(axis=1)] = 0
    forms[EDGE, :EDGE][inner.any(axis=0)] = 0
    if (forms.ravel()[:-1] >= min_frequency).any():
        forms[EDGE, EDGE] = 0


def _spacing_state(entries: list[tuple[int, int, int]], kinds: list[Kind], rules: Rules) -> dict[str, Any]:
    """The rules in ids of the vocabulary, as plain JSON values."""
    forms: dict[str, list[Any]] = {}
    ids: dict[int, int] = {}  # of kinds that do not vary
    for token_id, (kind, left, right) in enumerate(entries, start=len(SPECIAL_TOKENS)):
        token, written = kinds[kind]
        if rules.varying[kind]:
            forms[str(token_id)] = [written, *(None if side == EDGE else side for side in (left, right))]
            continue
        ids[kind] = token_id
        if written != token:
            forms[str(token_id)] = [written, None, None]
    return {
        "joined_left": [token_id for kind, token_id in ids.items() if rules.joined_left[kind]],
        "joined_right": [token_id for kind, token_id in ids.items() if rules.joined_right[kind]],
        "exceptions": [
            [ids[first], ids[second]] for first, second in rules.exceptions.tolist() if first in ids and second in ids
        ],
        "forms": forms,
    }
