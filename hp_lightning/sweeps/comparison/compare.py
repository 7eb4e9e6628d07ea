"""Configurations beside each other: in which order, by which figure, and what forbids to compare them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hp_lightning.sweeps.comparison.configurations import Configuration, put_together
from hp_lightning.sweeps.comparison.runs import RunRecord

# Settings of data.* that do not change what text is validated on.
CUTTING = {"data.seq_len", "data.batch_size", "data.batch_tokens", "data.cache_dir", "data.sha256"}
FROM_RUN = "tokenizer.from_run"
DIGITS = 5  # of the unigram losses that are compared: sums may be rounded otherwise on another machine


@dataclass(frozen=True)
class Comparison:
    """Configurations from the best to the worst; those that came to nothing last."""

    configurations: list[Configuration]
    repeated: list[RunRecord]  # not counted: another run of the same configuration and seed is
    tokenizers_differ: bool  # losses are then of different tokens
    unlike: str | None  # why no figures are comparable

    @property
    def figure(self) -> str:
        """Which of the figures they are sorted by."""
        return "bits_per_char" if self.tokenizers_differ else "best_val_loss"

    @property
    def ranked(self) -> list[Configuration]:
        """Those that have a value and did not fail."""
        return [each for each in self.configurations if math.isfinite(self.value(each)) and not each.has_failed]

    def value(self, configuration: Configuration) -> float:
        """The mean of the best values that it is ranked by; NaN before the first validation."""
        return configuration.figures[self.figure].mean


def compare(records: Sequence[RunRecord]) -> Comparison:
    """Puts runs together by configuration and sorts these."""
    configurations, repeated = put_together(records)
    comparison = Comparison(configurations, repeated, _tokenizers_differ(records), _unlike(records))
    configurations.sort(key=lambda each: (each.has_failed, _last_if_unknown(comparison.value(each))))
    return comparison


def _last_if_unknown(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _tokenizers_differ(records: Iterable[RunRecord]) -> bool:
    """By their settings; what another run's tokenizer learned is told from the unigram loss."""
    settings = {_tokenizer(record) for record in records if record.settings is not None}
    return len(settings) > 1 or (_unigrams_differ(records) and _is_taken(records))


def _unlike(records: Iterable[RunRecord]) -> str | None:
    texts = [_text(record) for record in records if record.settings is not None]
    keys = [key for key in dict.fromkeys(key for text in texts for key in text) if len({t.get(key) for t in texts}) > 1]
    if keys:
        return f"the runs differ in {', '.join(keys)}, so that they are validated on different texts"
    if _unigrams_differ(records) and not _is_taken(records):
        return "the corpus changed between the runs: their unigram losses differ, though their settings agree"
    return None


def _text(record: RunRecord) -> dict[str, str]:
    """What decides on the text that a run is validated on."""
    settings = record.settings or {}
    return {key: str(value) for key, value in settings.items() if key.startswith("data.") and key not in CUTTING}


def _tokenizer(record: RunRecord) -> str:
    settings = record.settings or {}
    return str(
        sorted((key, str(settings[key])) for key in settings if key.startswith("tokenizer.") and key != FROM_RUN)
    )


def _is_taken(records: Iterable[RunRecord]) -> bool:
    """Whether some run has another run's tokenizer."""
    return any((record.settings or {}).get(FROM_RUN) is not None for record in records)


def _unigrams_differ(records: Iterable[RunRecord]) -> bool:
    """Whether runs that should see the same tokens do not: a unigram model has different losses on them."""
    found: dict[str, set[float]] = {}
    for record in records:
        if math.isfinite(loss := record.figure("unigram/val_loss")):
            found.setdefault(_tokenizer(record), set()).add(round(loss, DIGITS))
    return any(len(losses) > 1 for losses in found.values())
