"""Figures of a network, from arrays, and their pixels. By matplotlib, without the state of its pyplot.

TensorBoard shows an image about 350 pixels wide, and leaves pixels out of a wider one: so the figures are of that size,
and their letters as small as can still be read.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 100
WIDTH = 350  # pixels
SMALL, NORMAL = 6.5, 7.5  # points
PIXELS_OF_A_TOKEN = 10
LABEL_LENGTH = 9  # characters
COLORS = "viridis"

Floats = npt.NDArray[np.floating]
Pixels = npt.NDArray[np.uint8]


def attention_figure(weights: Floats, labels: Sequence[str], title: str) -> Figure:
    """The heads of a layer, side by side; rows are the tokens that look, columns those that are looked at.

    The heads are one image with gaps, which is drawn in half the time of a set of axes for each.

    Args:
        weights: (H, T, T)
        labels: of the T tokens
        title: stands above
    """
    heads, length, _ = weights.shape
    columns = math.ceil(math.sqrt(heads))
    rows = math.ceil(heads / columns)
    right, down = length + 1, length + 2  # from one head to the next
    image = np.full((rows * down - 2, columns * right - 1), np.nan)
    unseen = np.triu_indices(length, 1)
    for head in range(heads):
        row, column = divmod(head, columns)
        shown = weights[head].astype(float)
        shown[unseen] = np.nan
        image[row * down : row * down + length, column * right : column * right + length] = shown
    height, width = (PIXELS_OF_A_TOKEN * size for size in image.shape)
    left, below = 60, 58  # for labels
    whole_width, whole_height = left + width + 8, below + height + 34
    figure = _figure(whole_width, whole_height)
    axes = figure.add_axes((left / whole_width, below / whole_height, width / whole_width, height / whole_height))
    axes.set_axis_off()
    axes.imshow(image, cmap=COLORS, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    figure.suptitle(title, fontsize=NORMAL, y=1 - 4 / whole_height, va="top", parse_math=False)
    short = [_short(label) for label in labels]
    for head in range(heads):
        row, column = divmod(head, columns)
        _text(axes, (column + 0.5) * right - 1, row * down - 0.6, f"head {head + 1}", ha="center", va="bottom")
    for index, label in enumerate(short):
        for row in range(rows):
            _text(axes, -0.8, row * down + index, label, ha="right", va="center_baseline")
        for column in range(columns):
            _text(axes, column * right + index, image.shape[0] - 0.3, label, ha="center", va="top", rotation=90)
    return figure


def pixels(figure: Figure) -> Pixels:
    """(height, width, 3)."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # signs that the font has not are boxes
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _figure(width: int, height: int) -> Figure:
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI)


def _text(axes: Axes, x: float, y: float, text: str, **settings: object) -> None:
    axes.text(x, y, text, fontsize=SMALL, parse_math=False, **settings)  # type: ignore[arg-type]


def _short(label: str) -> str:
    return label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"
