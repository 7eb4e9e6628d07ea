"""How far the judgements can be trusted, measured on rows whose sentiment is known."""

from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_auroc,
    binary_calibration_error,
    binary_f1_score,
)

BINS = 10  # of equal width, by confidence


@dataclass(frozen=True)
class Quality:
    """Measures of predicted probabilities; what is positive is the class that F1 and AUC are of."""

    rows: int
    accuracy: float
    f1: float  # harmonic mean of precision and recall
    auc: float  # area under the ROC curve: that a positive row is found more positive than a negative one
    calibration_error: float  # expected: mean gap between confidence and accuracy (Guo et al. 2017, arXiv:1706.04599)
    mean_confidence: float


def measure(probabilities: Tensor, labels: Tensor) -> Quality:
    """Compares the probability of a positive sentiment, (rows,), with whether it is positive, (rows,) bool."""
    confidence = torch.maximum(probabilities, 1 - probabilities)
    right = ((probabilities >= 0.5) == labels).long()
    truth = labels.long()
    return Quality(
        rows=len(labels),
        accuracy=float(binary_accuracy(probabilities, truth)),
        f1=float(binary_f1_score(probabilities, truth)),
        auc=float(binary_auroc(probabilities, truth)),
        calibration_error=float(binary_calibration_error(confidence, right, n_bins=BINS)),
        mean_confidence=float(confidence.mean()),
    )


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
    curve.plot(predicted, observed, color="#0072B2", marker="o", label="this model")
    curve.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is positive")
    curve.set_title(
        f"{quality.rows:,} rows, accuracy {quality.accuracy:.1%}, calibration error {quality.calibration_error:.3f}",
        fontsize=10,
    )
    curve.legend(fontsize=8)
    histogram.bar((torch.arange(BINS) + 0.5) / BINS, counts, width=0.9 / BINS, color="#0072B2")
    histogram.set(xlabel="probability of a positive sentiment", ylabel="rows")
    unfinished = path.with_suffix(".unfinished")
    picture.savefig(unfinished, format="png")
    unfinished.replace(path)
