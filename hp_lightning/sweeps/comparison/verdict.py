"""Which configuration won, by how much, and why: in sentences."""

import math
import statistics
from pathlib import Path

from hp_lightning.sweeps.comparison.compare import METRICS, Comparison, Configuration
from hp_lightning.sweeps.comparison.runs import Validation
from hp_lightning.sweeps.comparison.table import NAMES, named, with_spread

RISE = 0.02  # of the best validation loss: where it rises by more afterwards, the network learns the text by heart
OVERLAP = 2  # standard deviations: nearer to each other, the bars of mean ± standard deviation of two overlap
ENOUGH_SEEDS = 3  # of two seeds the standard deviation is known too badly to be sure of anything
LISTED = 3


def verdict(comparison: Comparison) -> list[str]:
    """A sentence or two on each thing that is to be said."""
    if comparison.unlike is not None:
        return [f"The metrics cannot be compared, none is the best: {comparison.unlike}."]
    lines = []
    if comparison.tokenizers_differ:
        lines.append(
            "The tokenizers differ, and losses and perplexities are of different tokens: sorted by bits per "
            "character, which flatter where more of the tokens are <UNK>."
        )
    ranked = comparison.ranked
    if not ranked:
        return [*lines, "No run produced a finite validation loss."]
    lines.append(_winner(comparison, ranked))
    if len(ranked) > 1:
        lines.extend(_reasons(comparison, ranked))
    return [*lines, *_notable(ranked), f"Its best run: {_best_run(comparison, ranked[0])}"]


def _winner(comparison: Comparison, ranked: list[Configuration]) -> str:
    best = ranked[0]
    name = comparison.metric
    seeds = f" over {best.seeds} seeds" if best.seeds > 1 else ""
    state = "" if best.is_complete else f" ({best.status})"
    reached = f"Best: {named(best)}{state}: {NAMES[name]} {with_spread(best, name, '.3f')}{seeds}"
    if name == "best_val_loss":
        reached += f", perplexity {with_spread(best, 'perplexity', ',.1f')}"
    return f"{reached}. {_margin(comparison, ranked)}"


def _best_run(comparison: Comparison, best: Configuration) -> Path:
    reached = [(METRICS[comparison.metric](run), run.folder) for run in best.counted]
    return min(pair for pair in reached if math.isfinite(pair[0]))[1]


def _margin(comparison: Comparison, ranked: list[Configuration]) -> str:
    """How far ahead of the second, relative to the spread of the seeds."""
    if len(ranked) == 1:
        return "There is no other configuration to compare it with."
    best, second = ranked[:2]
    ahead = f"Runner-up: {named(second)}, {comparison.value(second) - comparison.value(best):.3f} worse"
    times = [_times_the_spread(comparison, best, other) for other in ranked[1:]]
    if times[0] is None:
        return f"{ahead}; run several seeds to tell this from noise (seed=1,2,3)."
    margin = f"{ahead} ({times[0]:.1f} seed standard deviations)"
    close = [other for other, ratio in zip(ranked[1:], times, strict=True) if ratio is not None and ratio <= OVERLAP]
    if second in close:
        others = f", as are {len(close) - 1} more" if len(close) > 1 else ""
        return f"{margin}: within the noise of the seeds{others}."
    few = min(best.seeds, second.seeds) < ENOUGH_SEEDS
    return f"{margin}: {'significant, though from few seeds' if few else 'significant'}."


def _times_the_spread(comparison: Comparison, best: Configuration, other: Configuration) -> float | None:
    """How far two configurations lie apart, in standard deviations of a seed; None where neither has one.

    One of a single seed is taken to spread as the other does.
    """
    stds = [each.metrics[comparison.metric].std for each in (best, other)]
    known = [std for std in stds if std is not None]
    if not known:
        return None
    apart, std = comparison.value(other) - comparison.value(best), statistics.fmean(known)
    return apart / std if std else math.inf if apart else 0.0


def _reasons(comparison: Comparison, ranked: list[Configuration]) -> list[str]:
    """What becomes worse where one setting of the best is changed alone."""
    best = ranked[0]
    ablations = []
    for other in ranked[1:]:
        changed = [key for key in best.settings if best.settings[key] != other.settings[key]]
        if None in (other.settings[key] for key in changed):
            continue
        if len(changed) == 1:
            worse = comparison.value(other) - comparison.value(best)
            [key] = changed
            ablations.append(f"{key}={other.settings[key]} instead of {best.settings[key]} +{worse:.3f}")
    if not ablations:
        return []
    listed = _listed(ablations, 2 * LISTED)
    return [f"Single-setting ablations, {NAMES[comparison.metric]}: {listed}."]


def _notable(ranked: list[Configuration]) -> list[str]:
    lines = []
    overfit = [(each, _rise(each)) for each in ranked if _rise(each) > RISE]
    if overfit:
        described = [
            f"{named(each)} (by {rise:.1%}, to {_last_gap(each):.3f} above the training loss)" for each, rise in overfit
        ]
        lines.append(f"Overfitting, the validation loss rose again after its best: {_listed(described, LISTED)}.")
    if all(len(run.curve) > 1 and run.best is run.last for run in ranked[0].counted):
        lines.append("The best one's loss was still falling at its last validation: longer runs may do better.")
    return lines


def _rise(configuration: Configuration) -> float:
    """By what part of its best the validation loss stands above it in the end, in the mean of the seeds."""
    pairs = [(run.best, run.last) for run in configuration.counted]
    return statistics.fmean(0.0 if best is None or last is None else _overfits_by(best, last) for best, last in pairs)


def _last_gap(configuration: Configuration) -> float:
    gaps = [run.last.gap for run in configuration.counted if run.last is not None]
    return statistics.fmean(gap for gap in gaps if math.isfinite(gap))


def _overfits_by(best: Validation, last: Validation) -> float:
    """Nothing where the training loss rose, too: that is a learning rate too high."""
    return last.loss / best.loss - 1 if last.loss - last.gap <= best.loss - best.gap else 0.0


def _listed(items: list[str], count: int) -> str:
    more = f"; and {len(items) - count} more" if len(items) > count else ""
    return "; ".join(items[:count]) + more
