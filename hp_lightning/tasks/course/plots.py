"""The figures of the page that no run draws, and any figure as SVG that is part of the page.

They are about as wide as a phone, 350 units, so letters need not shrink there; a wider screen shows them larger.
"""

import io
import re
import warnings
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hp_lightning.common.plots import DPI, WIDTH, Floats

SMALL, NORMAL = 7, 8  # points
BLUE, ORANGE, GRAY = "#2f8fd0", "#d9742b", "#8a8f98"  # legible on white and on black
BINS = 30
IMAGE_DPI = 2 * DPI  # of what is pixels within a figure
Points = Sequence[tuple[int, float]]


def position_figure(table: Floats, title: str) -> Figure:
    """What tells positions apart, and how alike it makes two of them.

    Args:
        table: (T, F), a row for each position
        title: says what the rows are
    """
    figure = Figure(figsize=(WIDTH / DPI, 4), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, 1)
    bound = np.abs(table).max() or 1.0
    above.imshow(table.T, cmap="RdBu", vmin=-bound, vmax=bound, aspect="auto", interpolation="nearest")
    _dress(above, title, "position", "feature")
    lengths = np.linalg.norm(table, axis=1, keepdims=True)
    directions = table / np.maximum(lengths, 1e-12)
    below.imshow(directions @ directions.T, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    _dress(below, "cosine of two positions (blue 1, white 0, red −1)", "position", "position")
    return figure


def norm_figure(rows: Sequence[tuple[str, Floats]]) -> Figure:
    """How the features of one token are distributed, before and after normalizations.

    Args:
        rows: a title and the (C,) features of each histogram
    """
    figure = Figure(figsize=(WIDTH / DPI, 1.15 * len(rows)), dpi=DPI, layout="constrained")
    bound = max(float(np.abs(values).max()) for _, values in rows) or 1.0
    for axes, (title, values) in zip(np.atleast_1d(figure.subplots(len(rows), 1, sharex=True)), rows, strict=True):
        axes.stairs(*np.histogram(values, bins=BINS, range=(-bound, bound)), fill=True, color=BLUE)
        axes.axvline(float(values.mean()), color=ORANGE, linewidth=1.2)
        _dress(axes, title, "", "features")
    axes.set_xlabel("value of a feature (orange: their mean)", fontsize=SMALL)
    return figure


def activation_figure(curves: Sequence[tuple[str, Floats]], x: Floats, inputs: Floats) -> Figure:
    """Activation functions, and below them where the inputs of a network fall.

    Args:
        curves: a name and the (N,) values at `x` of each
        x: (N,)
        inputs: any shape
    """
    figure = Figure(figsize=(WIDTH / DPI, 3.4), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    styles = zip(curves, (GRAY, BLUE, ORANGE), ("--", "-", "-"), strict=False)
    for (name, values), colour, style in styles:
        above.plot(x, values, color=colour, linestyle=style, linewidth=1.6, label=name)
    above.set_ylim(-0.4, x[-1])
    above.legend(fontsize=SMALL, frameon=False, loc="upper left")
    _dress(above, "activation", "", "output")
    below.stairs(*np.histogram(inputs, bins=60, range=(x[0], x[-1])), fill=True, color=BLUE)
    below.set_yticks([])
    _dress(below, "where your network's inputs fall, all layers", "input", "how many")
    return figure


def loss_curves(train: Points, val: Points, references: Sequence[tuple[str, float]], step: int) -> Figure:
    """Training and validation loss of a run.

    Args:
        train: steps and losses in nats
        val: the same
        references: name and loss of models that know less
        step: at which the model on the page was saved
    """
    figure = Figure(figsize=(WIDTH / DPI, 3.1), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*_columns(train), color=GRAY, linewidth=0.9, label="training")
    axes.plot(*_columns(val), color=BLUE, linewidth=1.6, marker="o", markersize=2.5, label="validation")
    for (name, loss), style in zip(references, ("--", ":"), strict=False):
        axes.axhline(loss, color=ORANGE, linewidth=1, linestyle=style, label=name)
    axes.axvline(step, color="black", linewidth=0.8, linestyle=":", label="the model on this page")
    figure.legend(fontsize=SMALL, frameon=False, loc="outside lower center", ncols=2)
    _dress(axes, "", "optimizer step", "loss, nats per token")
    return figure


def rate_figure(rates: Points) -> Figure:
    """The learning rate of a run over its steps."""
    figure = Figure(figsize=(WIDTH / DPI, 1.7), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*_columns(rates), color=BLUE, linewidth=1.4)
    axes.set_ylim(bottom=0)
    _dress(axes, "", "optimizer step", "learning rate")
    return figure


def svg(figure: Figure, alt: str) -> Markup:
    """A figure as an element of a page, in the colour of its text, and the same for the same figure.

    Args:
        alt: what is to be seen, for those who do not see it
    """
    drawn = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": alt}  # letters stay letters; ids differ from figure to figure
    with mpl.rc_context(settings), warnings.catch_warnings(action="ignore", category=UserWarning):  # type: ignore[arg-type]
        figure.savefig(drawn, format="svg", dpi=IMAGE_DPI, transparent=True)
    element = drawn.getvalue()
    element = element[element.index("<svg") :].replace(": #000000", ": currentColor")
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)  # with the date
    width = round(figure.get_figwidth() * DPI)
    begin = f'<svg role="img" aria-label="{escape(alt)}" fill="currentColor" style="min-width: {width}px"'
    return Markup(re.sub(r'^<svg| (?:width|height)="[\d.]+pt"', lambda m: begin if m[0] == "<svg" else "", element))


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=NORMAL)
    axes.set_xlabel(x, fontsize=SMALL)
    axes.set_ylabel(y, fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
