"""Metrics of a classifier, on rows whose sentiment is known."""

from dataclasses import dataclass

import torch
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
    """Compare the probability of a positive sentiment, (rows,), with whether it is positive, (rows,) bool."""
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
