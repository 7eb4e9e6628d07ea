"""What logging may take of a run's time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SHARE = 0.005  # of the seconds of training, for each kind


class Budget:
    """Counts what each kind of thing that is made beside training has taken, over all sittings of a run.

    The first of a kind is always affordable. The next waits until training has gone on for long enough that both
    together stay below the share.
    """

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}  # seconds, by kind
        self._newest: dict[str, float] = {}  # seconds of the last one, which the next will take about again

    def affords(self, kind: str, trained: float) -> bool:
        """Whether there is time for one more, after so many seconds of training."""
        return kind not in self.spent or self.spent[kind] + self._newest[kind] <= SHARE * trained

    @contextmanager
    def spending(self, kind: str) -> Iterator[None]:
        """Counts the seconds within."""
        begin = time.monotonic()
        yield
        self._newest[kind] = time.monotonic() - begin
        self.spent[kind] = self.spent.get(kind, 0.0) + self._newest[kind]

    def state_dict(self) -> dict[str, Any]:
        """Everything."""
        return {"spent": dict(self.spent), "newest": dict(self._newest)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting."""
        self.spent, self._newest = dict(state_dict["spent"]), dict(state_dict["newest"])
