"""Sentences by a Punkt model trained on the text itself (Kiss & Strunk 2006, doi:10.1162/coli.2006.32.4.485).

Every decision is NLTK's own; what is saved is work. NLTK's trainer looks at each occurrence of a word; here each
distinct word, and each distinct pair of words, is looked at once, and counts as often as it occurs: 1.6 s for 12.6 s on
6.2 MB of novels (benchmarks/LOG.md).
"""

import copy
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from nltk.tokenize import punkt
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer, PunktToken, PunktTrainer

from hp_lightning.tokenizers.arrays import Ids, Table

LINE_BREAK = "\n"
BLOCK = 1_000_000  # pieces that are held as arrays together
LINE_START, PARAGRAPH_START = 1, 2
CLOSING = "\"')]}\u2018\u2019\u201c\u201d\xab\xbb"  # may belong to the sentence before
# What Punkt knows of where the next word stands: within a sentence, it cannot tell, or at a sentence's start.
INTERNAL, UNKNOWN, INITIAL = range(3)
CONTEXTS = ("internal", "unknown", "initial")


def train(texts: Iterable[str]) -> dict[str, Any]:
    """What NLTK's `PunktTrainer` learns from the texts, joined by line breaks, as plain JSON values."""
    parameters = _Trainer().learn(texts)
    return {
        "abbreviations": sorted(parameters.abbrev_types),
        "collocations": sorted([first, second] for first, second in parameters.collocations),
        "sentence_starters": sorted(parameters.sent_starters),
        "orthographic_context": {word: flags for word, flags in sorted(parameters.ortho_context.items()) if flags},
    }


def is_plain(line: str) -> bool:
    """Whether single spaces between words are all the white space of a line, which then falls into pieces there."""
    return " ".join(line.split()) == line


class Sentences:
    """Cuts lines into sentences as NLTK's `PunktSentenceTokenizer` does.

    Each word, and each pair of words, is decided on once: 3.6 s for 5.25 s from a file of 10 MB to its ids
    (benchmarks/LOG.md).

    Args:
        state: what `train` gave
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self._nltk = PunktSentenceTokenizer(_parameters(state))
        self._potential_end = re.compile(self._nltk._lang_vars.period_context_re().pattern, re.VERBOSE)
        self._words = _Words()
        self._tokens: dict[str, PunktToken] = {}
        self._always: dict[str, bool | None] = {}  # whether a word ends its sentence; None: that depends on the next
        self._begins_collocation = {first for first, _ in self._nltk._params.collocations}

    def of(self, line: str) -> list[str]:
        """The sentences of a line, without the white space around them."""
        if not is_plain(line):
            return list(self._nltk.tokenize(line))
        slices, start = [], 0
        for end, context in self._potential_ends(line):
            if self._holds_a_break(context):
                slices.append(slice(start, end))
                start = end + (line[end] == " ")
        if not slices:
            return [line] if line else []
        slices.append(slice(start, len(line)))
        if any(line[part.start] in CLOSING for part in slices[1:]):
            slices = list(self._nltk._realign_boundaries(line, iter(slices)))
        return [line[part] for part in slices]

    def _potential_ends(self, line: str) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Where a sentence may end, and the words around that decide; of the ends in a piece only the last counts."""
        matches = list(self._potential_end.finditer(line))
        for match, following in itertools.zip_longest(matches, matches[1:]):
            start = line.rfind(" ", 0, match.start()) + 1
            same_piece = following is not None and line.find(" ", match.start(), following.start()) < 0
            # NLTK keeps an end that is the first character of a piece.
            if not same_piece or start == match.start():
                words = self._words.of(line[start : match.end()])
                after = match["next_tok"]
                yield match.end(), words + (self._words.of(after) if after else (match["after_tok"],))

    def _holds_a_break(self, words: tuple[str, ...]) -> bool:
        return any(self._ends_sentence(word, following) for word, following in itertools.pairwise(words))

    def _ends_sentence(self, word: str, following: str) -> bool:
        if word not in self._always:
            self._always[word] = None if self._depends(self._token(word)) else bool(self._token(word).sentbreak)
        always = self._always[word]
        if always is not None:
            return always
        token = copy.copy(self._token(word))
        self._nltk._second_pass_annotation(token, self._token(following))
        return bool(token.sentbreak)

    def _depends(self, token: PunktToken) -> bool:
        """Whether NLTK's second pass looks at the word that follows."""
        kind = token.type_no_period
        special = token.abbr or token.ellipsis or token.is_initial or kind == "##number##"
        return bool(token.period_final and (special or kind in self._begins_collocation))

    def _token(self, word: str) -> PunktToken:
        token = self._tokens.get(word)
        if token is None:
            token = self._tokens[word] = PunktToken(word)
            self._nltk._first_pass_annotation(token)
        return token


def _parameters(state: dict[str, Any]) -> PunktParameters:
    parameters = PunktParameters()
    parameters.abbrev_types = set(state["abbreviations"])
    parameters.collocations = {(first, second) for first, second in state["collocations"]}
    parameters.sent_starters = set(state["sentence_starters"])
    parameters.ortho_context.update(state["orthographic_context"])
    return parameters


class _Words:
    """The words that Punkt sees in a piece of text."""

    def __init__(self) -> None:
        self._find = punkt.PunktLanguageVars().word_tokenize
        self._known: dict[str, tuple[str, ...]] = {}

    def of(self, piece: str) -> tuple[str, ...]:
        words = self._known.get(piece)
        if words is None:
            words = self._known[piece] = self._cut(piece)
        return words

    def _cut(self, piece: str) -> tuple[str, ...]:
        stem, end = piece[:-1], piece[-1]
        if piece.isalnum() or (end == "." and stem.isalnum()):
            return (piece,)
        if end == "," and stem.isalnum():
            return (stem, end)
        return tuple(self._find(piece))


@dataclass
class _Block:
    """Pieces of text that follow each other, and which of them begin a line or a paragraph."""

    pieces: Ids
    starts: npt.NDArray[np.uint8]


def _numbered() -> defaultdict[str, int]:
    """Give each new key the next number."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    return numbers


def _blocks(texts: Iterable[str], ids: defaultdict[str, int]) -> Iterator[_Block]:
    """The pieces of the texts; new ones get the next id."""
    pieces: list[int] = []
    starts: list[int] = []
    start = LINE_START
    for text in texts:
        for line in text.split(LINE_BREAK):
            if not line.strip():
                start = LINE_START | PARAGRAPH_START
                continue
            # NLTK takes ". . ." for one word: the only one that reaches over a space.
            words = line.split(" ") if is_plain(line) and ". ." not in line else [line]
            pieces.extend(map(ids.__getitem__, words))
            starts.append(start)
            starts.extend(bytes(len(words) - 1))
            start = LINE_START
            if len(pieces) >= BLOCK:
                yield _Block(np.array(pieces, np.int32), np.array(starts, np.uint8))
                pieces, starts = [], []
    yield _Block(np.array(pieces, np.int32), np.array(starts, np.uint8))


class _Trainer(PunktTrainer):  # type: ignore[misc]
    """`PunktTrainer`, told how often each kind of occurrence was seen."""

    def learn(self, texts: Iterable[str]) -> PunktParameters:
        pieces, ids = _numbered(), _numbered()
        blocks = list(_blocks(texts, pieces))
        table, words = Table(), _Words()
        for piece in pieces:
            table.append(map(ids.__getitem__, words.of(piece)))
        tokens = [_Token(word) for word in ids]
        counts = np.zeros(len(tokens), np.int64)
        for block in blocks:
            counts += np.bincount(table.expand(block.pieces)[0], minlength=len(tokens))
        self._learn_abbreviations(tokens, counts)
        contexts, pairs = self._occurrences(tokens, table, blocks)
        self._learn_orthography(tokens, contexts)
        self._learn_pairs(tokens, pairs)
        self.finalize_training()
        return self._params

    def _learn_abbreviations(self, tokens: list[PunktToken], counts: npt.NDArray[np.int64]) -> None:
        for token, count in zip(tokens, counts.tolist(), strict=True):
            self._type_fdist[token.type] += count
            self._num_period_toks += count * token.period_final
        types = sorted({token.type for token in tokens})
        for abbreviation, score, is_new in self._reclassify_abbrev_types(types):
            if is_new and score >= self.ABBREV:
                self._params.abbrev_types.add(abbreviation)
        for token, count in zip(tokens, counts.tolist(), strict=True):
            self._first_pass_annotation(token)
            self._sentbreak_count += count * bool(token.sentbreak)

    def _occurrences(
        self, tokens: list[PunktToken], table: Table, blocks: list[_Block]
    ) -> tuple[npt.NDArray[np.bool_], Counter[tuple[int, int]]]:
        """In which contexts each token occurs, (contexts, tokens), and how often a token with a period is followed."""
        follows = np.array([_context_after(token) for token in tokens], np.uint8)
        has_period = np.array([token.period_final for token in tokens], np.bool_)
        contexts = np.zeros((len(CONTEXTS), len(tokens)), np.bool_)
        pairs: Counter[tuple[int, int]] = Counter()
        before: int | None = None
        for block in blocks:
            ids, begins = table.expand(block.pieces)
            if not len(ids):
                continue
            starts = np.zeros(len(ids) + 1, np.uint8)  # a last piece without a word would begin behind the last word
            starts[begins] = block.starts
            starts = starts[:-1]
            context = np.empty(len(ids), np.uint8)
            context[0] = INTERNAL if before is None else follows[before]
            context[1:] = follows[ids[:-1]]
            context[(starts & PARAGRAPH_START > 0) & (context != UNKNOWN)] = INITIAL
            context[(starts > 0) & (context == INTERNAL)] = UNKNOWN
            contexts[context, ids] = True
            chain = ids if before is None else np.concatenate([[before], ids])
            places = np.flatnonzero(has_period[chain[:-1]])
            keys, counts = np.unique(
                chain[places].astype(np.int64) * len(tokens) + chain[places + 1], return_counts=True
            )
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
                pairs[divmod(key, len(tokens))] += count
            before = int(ids[-1])
        return contexts, pairs

    def _learn_orthography(self, tokens: list[PunktToken], contexts: npt.NDArray[np.bool_]) -> None:
        for context, place in zip(*np.nonzero(contexts), strict=True):
            token = tokens[place]
            flag = punkt._ORTHO_MAP.get((CONTEXTS[context], token.first_case), 0)
            self._params.add_ortho_context(token.type_no_sentperiod, flag)

    def _learn_pairs(self, tokens: list[PunktToken], pairs: Counter[tuple[int, int]]) -> None:
        for (first, second), count in pairs.items():
            token, following = tokens[first], tokens[second]
            if self._is_rare_abbrev_type(token, following):
                self._params.abbrev_types.add(token.type_no_period)
            if self._is_potential_sent_starter(following, token):
                self._sent_starter_fdist[following.type] += count
            if self._is_potential_collocation(token, following):
                self._collocation_fdist[token.type_no_period, following.type_no_sentperiod] += count


class _Token(PunktToken):  # type: ignore[misc]
    """Answers each question once."""

    is_ellipsis = cached_property(PunktToken.is_ellipsis.fget)
    is_number = cached_property(PunktToken.is_number.fget)
    is_initial = cached_property(PunktToken.is_initial.fget)
    is_alpha = cached_property(PunktToken.is_alpha.fget)
    is_non_punct = cached_property(PunktToken.is_non_punct.fget)


def _context_after(token: PunktToken) -> int:
    """As in NLTK's `_get_orthography_data`."""
    if token.sentbreak:
        return UNKNOWN if token.is_number or token.is_initial else INITIAL
    return UNKNOWN if token.ellipsis or token.abbr else INTERNAL
