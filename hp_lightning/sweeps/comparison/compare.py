"""Configurations beside each other: in which order, by which figure, and what forbids to compare them."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from hp_lightning.sweeps.comparison.runs import NO_HYPERPARAMETERS, RunRecord

# What runs of one configuration may differ in: the seed, where files lie, what is written down;
APART = {"seed", "data.cache_dir", *NO_HYPERPARAMETERS}
# and, unless somebody set it, what `auto` chose for the machine, which changes the rounding and the speed alone.
MACHINE = {"trainer.accelerator", "trainer.devices", "trainer.precision", "trainer.compile", "trainer.profile"}
PASSES = {"data.batch_size", "trainer.accumulate_grad_batches"}  # of one step, where data.batch_tokens says how large

UNKNOWN = None  # a setting of a run that was refused before it had a config; null is the text "null"
ABSENT = "–"  # a setting of which the version that made a run knew nothing

FIGURES: dict[str, Callable[[RunRecord], float]] = {
    "parameters": lambda run: run.figure("parameters"),
    "best_val_loss": lambda run: math.nan if run.best is None else run.best.loss,
    "perplexity": lambda run: math.nan if run.best is None else run.best.perplexity,
    "bits_per_char": lambda run: math.nan if run.best is None else run.best.bits_per_char,
    "unk_rate": lambda run: run.figure("unk_rate"),
    "gap": lambda run: math.nan if run.best is None else run.best.gap,
    "steps_to_best": lambda run: math.nan if run.best is None else run.best.step,
    "minutes_to_best": lambda run: math.nan if run.best is None else run.best.seconds / 60,
    "tokens_per_second": lambda run: run.tokens_per_second,
}


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds."""

    mean: float  # NaN: not known of any
    std: float | None  # of the sample; None of fewer than two


@dataclass(frozen=True)
class Configuration:
    """The runs that differ in nothing but their seeds."""

    settings: dict[str, str | None]  # by key, as one would type them; those alone in which the configurations differ
    runs: list[RunRecord]  # one a seed

    @cached_property
    def counted(self) -> list[RunRecord]:
        """Those that the figures are of: the complete ones; where there is none, those that did not fail."""
        complete = [run for run in self.runs if run.is_complete]
        return complete or [run for run in self.runs if run.status != "failed"] or self.runs

    @cached_property
    def figures(self) -> dict[str, Spread]:
        """Each of `FIGURES`."""
        return {name: _spread(map(figure, self.counted)) for name, figure in FIGURES.items()}

    @property
    def is_complete(self) -> bool:
        """Whether some seed was trained to its end."""
        return any(run.is_complete for run in self.runs)

    @property
    def has_failed(self) -> bool:
        """Whether no seed came to anything."""
        return all(run.status == "failed" for run in self.runs)

    @property
    def seeds(self) -> int:
        """How many the figures are of."""
        return len(self.counted)

    @property
    def status(self) -> str:
        """How its runs ended: "completed", "2 completed, 1 failed"."""
        counts = Counter(run.status for run in self.runs)
        if len(counts) == 1:
            return self.runs[0].status
        return ", ".join(f"{count} {status}" for status, count in counts.most_common())


def put_together(records: Sequence[RunRecord]) -> tuple[list[Configuration], list[RunRecord]]:
    """The configurations of the runs, in their order, and the runs that another of the same seed stands for.

    Runs are of one configuration where all that they learn by agrees; one that was refused before it had a config is
    of that whose command line differs from its own in nothing but the seed.
    """
    keys = _overridden(records)
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.settings is not None:
            groups.setdefault(_identity(record, keys), []).append(record)
    by_command_line = {_command_line(run): name for name, group in groups.items() for run in group}
    for record in records:
        if record.settings is None:
            line = _command_line(record)
            groups.setdefault(by_command_line.get(line, line), []).append(record)
    columns = _columns(list(groups.values()), keys)
    repeated: list[RunRecord] = []
    configurations = []
    for group in groups.values():
        kept = _one_a_seed(group)
        repeated.extend(run for run in group if run not in kept)
        configurations.append(Configuration({key: _value(group[0], key) for key in columns}, kept))
    return configurations, repeated


def _overridden(records: Iterable[RunRecord]) -> list[str]:
    """The keys that some command line sets; a whole node by its leaves."""
    leaves = {key: None for record in records for key in record.settings or {}}
    keys: dict[str, None] = {}
    for record in records:
        for key in record.overrides:
            below = [leaf for leaf in leaves if leaf.startswith(f"{key}.")]
            is_group = any(key in other.choices for other in records)
            keys.update(dict.fromkeys(below if below and not is_group else [key]))
    return [key for key in keys if not _is_apart(key)]


def _is_apart(key: str) -> bool:
    return key in APART or key.partition(".")[0] in APART


def _identity(record: RunRecord, keys: list[str]) -> str:
    """Equal for runs of one configuration."""
    assert record.settings is not None
    machine = {key for key in MACHINE if key not in keys and "trainer" not in keys}
    ignored = APART | machine | (PASSES if record.settings.get("data.batch_tokens") else set())
    learned_by = {key: value for key, value in record.settings.items() if key not in ignored}
    return json.dumps(learned_by, sort_keys=True, default=str)


def _command_line(record: RunRecord) -> str:
    typed = {key: value for key, value in record.overrides.items() if not _is_apart(key)}
    return json.dumps(typed, sort_keys=True)


def _columns(groups: list[list[RunRecord]], keys: list[str]) -> list[str]:
    """The keys by which the groups can be told apart: those that were set; other leaves where these do not suffice."""
    firsts = [group[0] for group in groups]
    columns = [key for key in keys if len({_value(record, key) for record in firsts} - {UNKNOWN}) > 1]
    alike: dict[tuple[str | None, ...], list[RunRecord]] = {}
    for record in firsts:
        alike.setdefault(tuple(_value(record, key) for key in columns), []).append(record)
    known: set[tuple[str | None, ...]] = set()
    for key in dict.fromkeys(key for record in firsts for key in record.settings or {}):
        values = tuple(_value(record, key) for record in firsts)
        differs = any(len({_value(record, key) for record in others} - {UNKNOWN}) > 1 for others in alike.values())
        if differs and key not in APART | MACHINE and values not in known:  # regularization.dropout sets three
            known.add(values)
            columns.append(key)
    return columns


def _value(record: RunRecord, key: str) -> str | None:
    """A setting as one would type it; of a config group, what was chosen."""
    if key in record.choices:
        return record.choices[key]
    if record.settings is not None and key in record.settings:
        return shown(record.settings[key])
    if key in record.overrides:
        return _typed(key, record.overrides[key])
    return UNKNOWN if record.settings is None else ABSENT


def _typed(key: str, value: str) -> str:
    """What stands in a command line, in the form that it would have had in the config."""
    try:
        return shown(OverridesParser.create().parse_override(f"{key}={value}").value())
    except HydraException:
        return value


def shown(value: Any) -> str:
    """A setting as one would type it: 0.001, true, null, [book,chapter]."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(shown, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value) if isinstance(value, float) else str(value)


def _one_a_seed(group: list[RunRecord]) -> list[RunRecord]:
    """Of runs with the same seed the one that came to its end, and of several the newest."""
    chosen: dict[str, RunRecord] = {}
    for run in sorted(group, key=lambda run: (run.is_complete, run.status != "failed", _begun(run))):
        chosen[run.seed] = run
    return [run for run in group if run in chosen.values()]


def _begun(run: RunRecord) -> float:
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
