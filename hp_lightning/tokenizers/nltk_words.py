"""NLTK's words, token for token, with each distinct piece of text cut only once.

`NLTKWordTokenizer` is a chain of regular expressions over a sentence. What they do to a piece between two spaces
depends only on the piece, and on whether it starts or ends the sentence; except for closing marks that stand
alone at a sentence's end. So the pieces are cut, and remembered; a sentence with anything out of the ordinary is cut
as a whole: 4.7 s for 14.5 s on 6.2 MB of novels (benchmarks/LOG.md).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from nltk.tokenize.destructive import NLTKWordTokenizer

from hp_lightning.tokenizers.arrays import Flags, Ids, Table
from hp_lightning.tokenizers.punkt import LINE_BREAK, Sentences, is_plain

# A piece by itself is a key of its own; the others begin with a line break, which no piece contains, and one of these.
FIRST, LAST, BOTH, WHOLE = "FLBW"
CLOSING = set("]})>\"'»”’")  # NLTK lets them follow the full stop of a sentence
SIMPLE = re.compile(r"(\w+(?:-\w+)*)('s)?([,;:?!.])?", re.ASCII)
SPLIT_WORD = re.compile(r"\b(?:cannot|gimme|gonna|gotta|lemme|wanna)\b", re.ASCII | re.IGNORECASE)
MARK = "\ue000"  # stands before or after a piece that does not begin or end its sentence
TOGETHER = 10_000  # pieces that NLTK is given at once, since each call takes its time
# The Treebank convention turns straight quotation marks into these, and so tells opening from closing ones.
QUOTES = {"``": ('"', "''"), "''": ('"',)}


class Kind(NamedTuple):
    """A token, and how it is written."""

    token: str
    written: str


@dataclass(frozen=True)
class Cut:
    """A text in tokens: (tokens,) the kind of each, and (tokens,) whether a space stands before it."""

    kinds: Ids
    spaced: Flags


class Cutter:
    """Cuts text into NLTK's tokens, which it numbers by kind, in the order in which it meets them; a line break is 0.

    Args:
        punkt_state: where sentences end, as `punkt.train` gave it
        lowercase: whether the tokens of "The" and "the" are the same
    """

    def __init__(self, punkt_state: dict[str, Any], lowercase: bool) -> None:
        self.kinds: list[Kind] = []
        self._ids: dict[Kind, int] = {}
        self._lowercase = lowercase
        self._sentences = Sentences(punkt_state)
        self._nltk = NLTKWordTokenizer()
        self._units: dict[str, int] = {}  # by key: the row in the tables
        self._kinds_of_unit, self._spaces_of_unit = Table(), Table()
        self._last: tuple[str, Cut] | None = None
        self._add_unit(LINE_BREAK, [LINE_BREAK])

    def cut(self, text: str) -> Cut:
        """Cut a text."""
        if self._last is None or self._last[0] is not text:
            self._last = (text, self._cut(text))
        return self._last[1]

    def _cut(self, text: str) -> Cut:
        keys, glued = self._keys(text)
        self._add_units([key for key in dict.fromkeys(keys) if key not in self._units])
        units = np.fromiter(map(self._units.__getitem__, keys), np.int32, len(keys))
        kinds, begins = self._kinds_of_unit.expand(units)
        spaced = np.zeros(len(kinds) + 1, np.bool_)  # a last unit without a token would start behind the last token
        spaced[:-1] = self._spaces_of_unit.expand(units)[0]
        spaced[begins[glued]] = False
        return Cut(kinds, spaced[:-1])

    def _keys(self, text: str) -> tuple[list[str], list[int]]:
        """The text as keys of units; and which of those begin a sentence with no space before it."""
        keys: list[str] = []
        glued: list[int] = []
        for number, line in enumerate(text.split(LINE_BREAK)):
            if number:
                keys.append(LINE_BREAK)
            end, plain = 0, is_plain(line) and MARK not in line
            for sentence in self._sentences.of(line):
                start = line.find(sentence, end)
                if start == end:
                    glued.append(len(keys))
                end = start + len(sentence)
                keys.extend(_keys_of(sentence) if plain else [LINE_BREAK + WHOLE + sentence])
        return keys, glued

    def _add_units(self, keys: list[str]) -> None:
        inner = [key for key in keys if key[0] != LINE_BREAK and _simply_cut(key, ends_sentence=False) is None]
        cut = dict(zip(inner, self._cut_together(inner), strict=True))
        for key in keys:
            self._add_unit(key, cut[key] if key in cut else self._tokens_of(key))

    def _cut_together(self, pieces: list[str]) -> Iterator[list[str]]:
        """The tokens of pieces that neither begin nor end their sentence."""
        for first in range(0, len(pieces), TOGETHER):
            some = pieces[first : first + TOGETHER]
            tokens = iter(self._nltk.tokenize(" ".join([MARK, *(f"{piece} {MARK}" for piece in some)]))[1:])
            for _ in some:
                yield list(iter(tokens.__next__, MARK))

    def _tokens_of(self, key: str) -> list[str]:
        place, piece = (key[1], key[2:]) if key[0] == LINE_BREAK else ("", key)
        if place == WHOLE:
            return list(self._nltk.tokenize(piece))
        simple = _simply_cut(piece, ends_sentence=place in (LAST, BOTH))
        if simple is not None:
            return simple
        before = [] if place in (FIRST, BOTH) else [MARK]
        after = [] if place in (LAST, BOTH) else [MARK]
        tokens = self._nltk.tokenize(" ".join([*before, piece, *after]))
        return list(tokens[len(before) : len(tokens) - len(after)])

    def _add_unit(self, key: str, tokens: list[str]) -> None:
        kinds, spaces = [], []
        piece = key[2:] if key[0] == LINE_BREAK and key != LINE_BREAK else key
        for token, written, spaced in _aligned(piece, tokens):
            kind = Kind(token.lower(), written.lower()) if self._lowercase else Kind(token, written)
            if kind not in self._ids:
                self._ids[kind] = len(self.kinds)
                self.kinds.append(kind)
            kinds.append(self._ids[kind])
            spaces.append(spaced)
        self._units[key] = len(self._kinds_of_unit)
        self._kinds_of_unit.append(kinds)
        self._spaces_of_unit.append([True, *spaces[1:]][: len(kinds)])


def _keys_of(sentence: str) -> list[str]:
    """What a plain sentence falls into; each is always cut in the same way."""
    pieces = sentence.split(" ")
    if CLOSING.issuperset(pieces[-1]):
        return [LINE_BREAK + WHOLE + sentence]
    begins = pieces[0][0] in "\"'"  # other pieces are cut the same at a sentence's beginning as within
    ends = not pieces[-1][-1].isalnum()
    if len(pieces) == 1 and begins and ends:
        return [LINE_BREAK + BOTH + sentence]
    if begins:
        pieces[0] = LINE_BREAK + FIRST + pieces[0]
    if ends:
        pieces[-1] = LINE_BREAK + LAST + pieces[-1]
    return pieces


def _simply_cut(piece: str, ends_sentence: bool) -> list[str] | None:
    """The tokens of a word, with or without a mark behind it; of anything else None."""
    match = SIMPLE.fullmatch(piece)
    if match is None or SPLIT_WORD.search(piece):
        return None
    word, possessive, mark = match.groups(default="")
    if mark == "." and not ends_sentence:
        return None if possessive else [piece]
    return [part for part in (word, possessive, mark) if part]


def _aligned(text: str, tokens: list[str]) -> Iterator[tuple[str, str, bool]]:
    """Each token, how it is written in the text, and whether white space stands before it."""
    position = 0
    for token in tokens:
        start = position
        while start < len(text) and text[start].isspace() and token != LINE_BREAK:
            start += 1
        written = next((form for form in (token, *QUOTES.get(token, ())) if text.startswith(form, start)), token)
        yield token, written, start > position
        position = start + len(written)
