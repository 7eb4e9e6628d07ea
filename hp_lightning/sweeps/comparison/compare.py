"""Runs grouped by configuration, and configurations in order; or why they cannot be compared."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hp_lightning.sweeps.comparison.runs import NO_HYPERPARAMETERS, RunRecord

# What runs of one configuration may differ in: the seed, where files lie, what is written down;
APART = {"seed", "data.cache_dir", *NO_HYPERPARAMETERS}
# and, unless somebody set it, what `auto` chose for the machine, which changes the rounding and the speed alone.
MACHINE = {"trainer.accelerator", "trainer.devices", "trainer.precision", "trainer.compile", "trainer.profile"}
PASSES = {"data.batch_size", "trainer.accumulate_grad_batches"}  # of one step, where data.batch_tokens says how large

METRICS: dict[str, Callable[[RunRecord], float]] = {
    "parameters": lambda run: run.metric("parameters"),
    "best_val_loss": lambda run: math.nan if run.best is None else run.best.loss,
    "perplexity": lambda run: math.nan if run.best is None else run.best.perplexity,
    "bits_per_char": lambda run: math.nan if run.best is None else run.best.bits_per_char,
    "unk_rate": lambda run: run.metric("unk_rate"),
    "gap": lambda run: math.nan if run.best is None else run.best.gap,
    "steps_to_best": lambda run: math.nan if run.best is None else run.best.step,
    "minutes_to_best": lambda run: math.nan if run.best is None else run.best.seconds / 60,
    "tokens_per_second": lambda run: run.tokens_per_second,
}


@dataclass(frozen=True)
class Spread:
    """A metric over the seeds."""

    mean: float  # NaN: not known of any
    std: float | None  # of the sample; None of fewer than two


@dataclass(frozen=True)
class Configuration:
    """The runs that differ in nothing but their seeds."""

    settings: dict[str, str | None]  # by key, as one would type them; those alone in which the configurations differ
    runs: list[RunRecord]  # one a seed

    @cached_property
    def counted(self) -> list[RunRecord]:
        """The runs that the metrics are of: the complete ones; where there is none, those that did not fail."""
        complete = [run for run in self.runs if run.is_complete]
        return complete or [run for run in self.runs if run.status != "failed"] or self.runs

    @cached_property
    def metrics(self) -> dict[str, Spread]:
        """Each of `METRICS`."""
        return {name: _spread(map(metric, self.counted)) for name, metric in METRICS.items()}

    @property
    def is_complete(self) -> bool:
        """Whether some seed was trained to its end."""
        return any(run.is_complete for run in self.runs)

    @property
    def has_failed(self) -> bool:
        """Whether every seed failed."""
        return all(run.status == "failed" for run in self.runs)

    @property
    def seeds(self) -> int:
        """How many runs the metrics are of."""
        return len(self.counted)

    @property
    def status(self) -> str:
        """How its runs ended: "completed", "2 completed, 1 failed"."""
        counts = Counter(run.status for run in self.runs)
        if len(counts) == 1:
            return self.runs[0].status
        return ", ".join(f"{count} {status}" for status, count in counts.most_common())


def group_by_configuration(records: Sequence[RunRecord]) -> tuple[list[Configuration], list[RunRecord]]:
    """Group runs in which everything that they learn by agrees.

    Returns:
        the configurations, in the order of their runs; and runs that are left out, for another has the same seed
    """
    keys = _overridden(records)
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        groups.setdefault(_identity(record, keys), []).append(record)
    columns = _columns([group[0] for group in groups.values()], keys)
    repeated: list[RunRecord] = []
    configurations = []
    for group in groups.values():
        kept = _one_per_seed(group)
        repeated.extend(run for run in group if run not in kept)
        configurations.append(Configuration({key: _value(group[0], key) for key in columns}, kept))
    return configurations, repeated


def _overridden(records: Iterable[RunRecord]) -> list[str]:
    """The keys that some command line sets; a whole node by its leaves."""
    leaves = {key: None for record in records for key in record.settings}
    keys: dict[str, None] = {}
    for record in records:
        for key in record.overrides:
            below = [leaf for leaf in leaves if leaf.startswith(f"{key}.")]
            is_group = any(key in other.choices for other in records)
            keys.update(dict.fromkeys(below if below and not is_group else [key]))
    return [key for key in keys if key not in APART and key.partition(".")[0] not in APART]


def _identity(record: RunRecord, keys: list[str]) -> str:
    """Equal for runs of one configuration."""
    machine = {key for key in MACHINE if key not in keys and "trainer" not in keys}
    ignored = APART | machine | (PASSES if record.settings.get("data.batch_tokens") else set())
    learned_by = {key: value for key, value in record.settings.items() if key not in ignored}
    return json.dumps(learned_by, sort_keys=True, default=str)


def _columns(firsts: list[RunRecord], keys: list[str]) -> list[str]:
    """The keys that tell the configurations apart: those that were set; other leaves where these do not suffice."""

    def differ(key: str, records: Iterable[RunRecord]) -> bool:
        return len({_value(record, key) for record in records} - {None}) > 1

    columns = [key for key in keys if differ(key, firsts)]
    alike: dict[tuple[str | None, ...], list[RunRecord]] = {}
    for record in firsts:
        alike.setdefault(tuple(_value(record, key) for key in columns), []).append(record)
    leaves = dict.fromkeys(key for record in firsts for key in record.settings)
    others = [key for key in leaves if key not in APART | MACHINE and any(differ(key, same) for same in alike.values())]
    return list(dict.fromkeys([*columns, *others]))


def _value(record: RunRecord, key: str) -> str | None:
    """A setting as one would type it, of a config group what was chosen; None where it is not known."""
    if key in record.choices:
        return record.choices[key]
    return shown(record.settings[key]) if key in record.settings else record.overrides.get(key)


def shown(value: Any) -> str:
    """A setting as one would type it: 0.001, true, null, [book,chapter]."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(shown, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, float) else str(value)


def _one_per_seed(group: list[RunRecord]) -> list[RunRecord]:
    """Of runs with the same seed one that is complete, and of several the newest."""
    chosen: dict[str, RunRecord] = {}
    for run in sorted(group, key=lambda run: (run.is_complete, run.status != "failed", _started(run))):
        chosen[run.seed] = run
    return [run for run in group if run in chosen.values()]


def _started(run: RunRecord) -> float:
    try:
        return run.folder.stat().st_mtime
    except OSError:
        return 0.0


def _spread(values: Iterable[float]) -> Spread:
    known = [value for value in values if math.isfinite(value)]
    return Spread(
        statistics.fmean(known) if known else math.nan,
        statistics.stdev(known) if len(known) > 1 else None,
    )


# Settings of data.* that do not change what text is validated on.
CUTTING = {"data.seq_len", "data.batch_size", "data.batch_tokens", "data.cache_dir", "data.sha256"}
FROM_RUN = "tokenizer.from_run"
DIGITS = 5  # of the unigram losses that are compared: sums may be rounded otherwise on another machine


@dataclass(frozen=True)
class Comparison:
    """Configurations from the best to the worst; failed ones last."""

    configurations: list[Configuration]
    repeated: list[RunRecord]  # not counted: another run of the same configuration and seed is
    tokenizers_differ: bool  # losses are then of different tokens
    unlike: str | None  # why no metrics are comparable

    @property
    def metric(self) -> str:
        """The metric that they are sorted by."""
        return "bits_per_char" if self.tokenizers_differ else "best_val_loss"

    @property
    def ranked(self) -> list[Configuration]:
        """Those that have a value and did not fail."""
        return [each for each in self.configurations if math.isfinite(self.value(each)) and not each.has_failed]

    def value(self, configuration: Configuration) -> float:
        """The mean of the best values that it is ranked by; NaN before the first validation."""
        return configuration.metrics[self.metric].mean


def compare(records: Sequence[RunRecord]) -> Comparison:
    """Group runs by configuration, and sort the configurations."""
    configurations, repeated = group_by_configuration(records)
    comparison = Comparison(configurations, repeated, _tokenizers_differ(records), _unlike(records))
    configurations.sort(key=lambda each: (each.has_failed, _last_if_unknown(comparison.value(each))))
    return comparison


def _last_if_unknown(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _tokenizers_differ(records: Iterable[RunRecord]) -> bool:
    """Whether their settings differ; or, of tokenizers taken from other runs, the unigram losses."""
    settings = {_tokenizer(record) for record in records if record.has_config}
    return len(settings) > 1 or (_unigrams_differ(records) and _is_taken(records))


def _unlike(records: Iterable[RunRecord]) -> str | None:
    texts = [_text(record) for record in records if record.has_config]
    keys = [key for key in dict.fromkeys(key for text in texts for key in text) if len({t.get(key) for t in texts}) > 1]
    if keys:
        return f"the runs differ in {', '.join(keys)}, and are validated on different texts"
    if _unigrams_differ(records) and not _is_taken(records):
        return "the corpus changed between the runs: their unigram losses differ, though their settings agree"
    return None


def _text(record: RunRecord) -> dict[str, str]:
    """The settings that decide on the text that a run is validated on."""
    return {key: str(value) for key, value in record.settings.items() if key.startswith("data.") and key not in CUTTING}


def _tokenizer(record: RunRecord) -> str:
    """The settings of the tokenizer."""
    settings = {key: value for key, value in record.settings.items() if key.startswith("tokenizer.")}
    settings.pop(FROM_RUN, None)
    return json.dumps(settings, sort_keys=True, default=str)


def _is_taken(records: Iterable[RunRecord]) -> bool:
    """Whether some run has another run's tokenizer."""
    return any(record.settings.get(FROM_RUN) is not None for record in records)


def _unigrams_differ(records: Iterable[RunRecord]) -> bool:
    """Whether runs that should see the same tokens do not: a unigram model has different losses on them."""
    by_tokenizer: dict[str, set[float]] = {}
    for record in records:
        if math.isfinite(loss := record.metric("unigram/val_loss")):
            by_tokenizer.setdefault(_tokenizer(record), set()).add(round(loss, DIGITS))
    return any(len(losses) > 1 for losses in by_tokenizer.values())
