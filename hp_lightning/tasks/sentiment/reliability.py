"""The picture that shows how far a confidence can be trusted."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from hp_lightning.common.files import atomic_write
from hp_lightning.tasks.sentiment.metrics import BINS, Quality


def draw_reliability(probabilities: Tensor, labels: Tensor, quality: Quality, path: Path) -> None:
    """A reliability diagram (Niculescu-Mizil & Caruana 2005, ICML) as a PNG file: how often a sentiment that was given
    a probability of so much is positive, and how many rows were given it.
    """
    bins = (probabilities * BINS).long().clamp(max=BINS - 1)
    counts = torch.bincount(bins, minlength=BINS)
    filled = counts > 0
    predicted = torch.bincount(bins, probabilities, BINS)[filled] / counts[filled]
    observed = torch.bincount(bins, labels.double(), BINS)[filled] / counts[filled]
    picture = Figure(figsize=(5, 6), dpi=120, layout="constrained")
    curve, histogram = picture.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    curve.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="perfectly calibrated")
    curve.plot(predicted.tolist(), observed.tolist(), color="#0072B2", marker="o", label="this model")
    curve.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is positive")
    curve.set_title(
        f"{quality.rows:,} rows, accuracy {quality.accuracy:.1%}, calibration error {quality.calibration_error:.3f}",
        fontsize=10,
    )
    curve.legend(fontsize=8)
    histogram.bar([(place + 0.5) / BINS for place in range(BINS)], counts.tolist(), width=0.9 / BINS, color="#0072B2")
    histogram.set(xlabel="probability of a positive sentiment", ylabel="rows")
    with atomic_write(path) as file:
        picture.savefig(file, format="png")
