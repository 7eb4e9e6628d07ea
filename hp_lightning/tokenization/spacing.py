"""Putting words back together: between which tokens a space stands, learned from the text they were cut from."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

# The Treebank convention turns straight quotation marks into these, and so tells opening from closing ones.
QUOTES = ("``", "''")


class Spacing:
    """A token is joined to its neighbour where it mostly was in the training text.

    The rule is kept for each side of a token; pairs of tokens that mostly did otherwise are kept as exceptions.
    """

    def __init__(self, state: dict[str, Any] | None) -> None:
        state = state or {"joined_left": [], "joined_right": [], "exceptions": [], "quotes": {}}
        self._joined_left = set(state["joined_left"])
        self._joined_right = set(state["joined_right"])
        self._exceptions = {(before, after) for before, after in state["exceptions"]}
        self._quotes: dict[str, str] = dict(state["quotes"])

    @classmethod
    def fit(cls, lines: Iterable[tuple[str, list[str]]]) -> "Spacing":
        """Learns from lines of text and their tokens."""
        spaced: Counter[tuple[str, str]] = Counter()
        joined: Counter[tuple[str, str]] = Counter()
        quotes: dict[str, Counter[str]] = {quote: Counter() for quote in QUOTES}
        for line, tokens in lines:
            before = None
            for token, written, space in _aligned(line, tokens):
                if before is not None:
                    (spaced if space else joined)[before, token] += 1
                if token in quotes:
                    quotes[token][written] += 1
                before = token
        joined_left, joined_right = _responsible(spaced, joined)
        spacing = cls(
            {
                "joined_left": joined_left,
                "joined_right": joined_right,
                "exceptions": [],
                "quotes": {quote: forms.most_common(1)[0][0] for quote, forms in quotes.items() if forms},
            }
        )
        pairs = spaced.keys() | joined.keys()
        spacing._exceptions = {
            pair
            for pair in pairs
            if spaced[pair] != joined[pair] and (spaced[pair] > joined[pair]) != spacing.stands_between(*pair)
        }
        return spacing

    def state(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "joined_left": sorted(self._joined_left),
            "joined_right": sorted(self._joined_right),
            "exceptions": sorted([before, after] for before, after in self._exceptions),
            "quotes": self._quotes,
        }

    def stands_between(self, before: str, after: str) -> bool:
        """Whether a space stands between two tokens that follow each other."""
        joined = before in self._joined_right or after in self._joined_left
        return joined if (before, after) in self._exceptions else not joined

    def written(self, token: str) -> str:
        """The token as it stands in a text."""
        return self._quotes.get(token, '"' if token in QUOTES else token)


def _aligned(line: str, tokens: list[str]) -> Iterator[tuple[str, str, bool]]:
    """Each token, how it is written in the line, and whether a space stands before it; ends where they part."""
    position = 0
    for token in tokens:
        begin = position
        while begin < len(line) and line[begin].isspace():
            begin += 1
        forms = [token, '"'] if token in QUOTES else [token]
        written = next((form for form in forms if line.startswith(form, begin)), None)
        if written is None:
            return
        yield token, written, begin > position
        position = begin + len(written)


def _responsible(spaced: Counter[tuple[str, str]], joined: Counter[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """The tokens that stand close to whatever is on their left, and those that stand close to what is on their right.

    In "lantern." it is the full stop that stands close, and "lantern" must not be taken for a word that does. So the
    sides of tokens are gone through from the clearest on, and the pairs that one explains count no more for others.
    """
    balance = {pair: joined[pair] - spaced[pair] for pair in spaced.keys() | joined.keys()}
    pairs_of: defaultdict[tuple[str, int], list[tuple[str, str]]] = defaultdict(list)
    for pair in sorted(balance):
        for side, token in enumerate(pair):
            pairs_of[token, side].append(pair)
    clarity = {side: sum(balance[pair] for pair in pairs) for side, pairs in pairs_of.items()}
    found: tuple[list[str], list[str]] = ([], [])
    for token, side in sorted(clarity, key=lambda key: -clarity[key]):
        if sum(balance[pair] for pair in pairs_of[token, side]) > 0:
            found[1 - side].append(token)
            balance.update(dict.fromkeys(pairs_of[token, side], 0))
    return found
