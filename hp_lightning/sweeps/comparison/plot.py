"""The picture of a sweep: the validation curves together, and the best values with their spread."""

import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from hp_lightning.sweeps.comparison.compare import Comparison, Configuration
from hp_lightning.sweeps.comparison.runs import Validation
from hp_lightning.sweeps.comparison.table import NAMES, cells, headings, with_spread

# Okabe & Ito 2008, https://jfly.uni-koeln.de/color/: told apart by colour-blind people, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
RAMP = "viridis"  # for more configurations: from dark, the best, to light
RAMP_END = 0.9  # its yellow is too light on white
CUT = 3  # what lies so many times as far from the best as the median does is cut off
LATE = 0.3  # of a run: what its curve did before, falling from the loss of guessing, need not be in the picture
DPI, SMALL = 120, 8  # of the picture, and of its labels in points
THIN, THICK = 0.9, 1.6  # lines, of one of several seeds and of the only one
CELL_LENGTH = 28  # letters of a setting
ROW_HEIGHT, LETTER_WIDTH = 0.24, 0.068  # inches


def draw(comparison: Comparison, file: BinaryIO) -> None:
    """Draw the comparison into a PNG file."""
    rows = _aligned([headings(comparison.configurations[0]), *map(cells, comparison.configurations)])
    size = (10 + LETTER_WIDTH * len(rows[0]), max(4.2, 1 + ROW_HEIGHT * len(rows)))
    picture = Figure(figsize=size, dpi=DPI, layout="constrained")
    curves, values = picture.subplots(1, 2, width_ratios=(5, 4))
    colours = _colours(len(comparison.configurations))
    _draw_curves(curves, comparison, colours)
    _draw_values(values, comparison, colours, rows)
    with warnings.catch_warnings(action="ignore"):  # of letters that the font lacks
        picture.savefig(file, format="png")


def _aligned(table: list[list[str]]) -> list[str]:
    """A line of text per row, the columns of equal width; of a long cell the end, in which paths differ."""
    table = [[cell if len(cell) <= CELL_LENGTH else f"…{cell[1 - CELL_LENGTH :]}" for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]


def _colours(count: int) -> list[Any]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [mpl.colormaps[RAMP](RAMP_END * index / (count - 1)) for index in range(count)]


def _draw_curves(axes: Axes, comparison: Comparison, colours: list[Any]) -> None:
    """A line per run, its best point marked; the best configuration on top."""
    by_steps = _steps_are_alike(comparison)
    drawn = []
    for index, configuration in reversed(list(enumerate(comparison.configurations))):
        for run in configuration.runs:
            points = [(point.step if by_steps else point.tokens, _value(comparison, point)) for point in run.curve]
            points = [point for point in points if all(map(math.isfinite, point))]
            if points:
                colour, width = colours[index], THIN if len(configuration.runs) > 1 else THICK
                best = min(points, key=lambda point: point[1])
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=width)
                axes.plot(*best, "o", color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.7)
                drawn.append((points, best))
    axes.set(xlabel="optimizer steps" if by_steps else "tokens seen", ylabel=NAMES[comparison.metric])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _frame(axes)
    if drawn:
        end, lowest = max(points[-1][0] for points, _ in drawn), min(best[1] for _, best in drawn)
        tops = [max([y for x, y in points if x >= LATE * end], default=best[1]) for points, best in drawn]
        _limit(axes.set_ylim, lowest, _cut(lowest, tops))


def _steps_are_alike(comparison: Comparison) -> bool:
    """Whether a step is as many tokens in every run; else the tokens are what can be compared."""
    points = [point for each in comparison.configurations for run in each.runs for point in run.curve]
    return len({point.tokens / point.step for point in points if math.isfinite(point.tokens) and point.step}) <= 1


def _draw_values(axes: Axes, comparison: Comparison, colours: list[Any], rows: list[str]) -> None:
    """A row per configuration: a dot a seed, mean and standard deviation, and the value in digits."""
    means = [mean for mean in map(comparison.value, comparison.configurations) if math.isfinite(mean)]
    end = _cut(min(means), means) if means else math.inf
    at_side = axes.get_yaxis_transform()  # x from 0 to 1 over the axes, y a row
    drawn: list[float] = []
    for row, (configuration, colour) in enumerate(zip(comparison.configurations, colours, strict=True)):
        if comparison.value(configuration) > end:
            axes.plot(1, row, ">", color=colour, transform=at_side, clip_on=False)
        else:
            drawn.extend(_draw_row(axes, comparison, configuration, row, colour))
        state = "" if configuration.is_complete else configuration.status
        label = f"{with_spread(configuration, comparison.metric, '.3f')}  {state}".strip()
        axes.text(1.04, row, label, transform=at_side, va="center", fontsize=SMALL)
    axes.set_yticks(range(-1, len(rows) - 1), rows, fontsize=SMALL, family="monospace", parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 1.4, -1.6)
    axes.set_xlabel(f"best {NAMES[comparison.metric]} ± standard deviation")
    _frame(axes)
    if drawn:
        _limit(axes.set_xlim, min(drawn), max(drawn))


def _draw_row(axes: Axes, comparison: Comparison, configuration: Configuration, row: int, colour: Any) -> list[float]:
    """Draw a configuration; return the values that have to be in the picture."""
    seeds = [_value(comparison, run.best) for run in configuration.counted if run.best is not None]
    mean, std = configuration.metrics[comparison.metric].mean, configuration.metrics[comparison.metric].std
    axes.plot(seeds, [row] * len(seeds), "o", color=colour, markersize=5, alpha=1 if std is None else 0.5)
    if std is None:
        return seeds
    axes.errorbar(mean, row, xerr=std, color=colour, fmt="|", markersize=11, capsize=3)
    return [*seeds, mean - std, mean + std]


def _value(comparison: Comparison, point: Validation) -> float:
    return point.loss if comparison.metric == "best_val_loss" else point.bits_per_char


def _cut(lowest: float, values: Sequence[float]) -> float:
    """Where an axis ends, lest a few values far off squash the others."""
    median = statistics.median(values)
    return min(max(values), lowest + CUT * (median - lowest)) if median > lowest else max(values)


def _limit(set_limits: Callable[[float, float], object], lowest: float, highest: float) -> None:
    margin = 0.06 * (highest - lowest) or 0.05
    set_limits(lowest - margin, highest + margin)


def _frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
