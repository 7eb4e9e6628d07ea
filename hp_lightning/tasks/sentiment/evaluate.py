"""Predictions compared with the labels of rows whose sentiment is known."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from hp_lightning.common.errors import InputError, RunError
from hp_lightning.common.files import atomic_write_text, check_target
from hp_lightning.schema.sentiment import SentimentConfig
from hp_lightning.tasks.sentiment.classify import Classifier, say
from hp_lightning.tasks.sentiment.metrics import Quality, measure
from hp_lightning.tasks.sentiment.rows import read_rows


def compare(classifier: Classifier, source: str, cfg: SentimentConfig) -> None:
    """Print the metrics, and write them as JSON: to `cfg.out`, or next to the checkpoint.

    Raises:
        InputError: the file cannot be read, or its labels are of one kind
        RunError: a file cannot be written
    """
    default = classifier.path.with_suffix(f".sentiment_{classifier.method}.{Path(source).stem}.json")
    report = default if cfg.out is None else Path(cfg.out)
    check_target(str(report) if cfg.out is None else f"out={cfg.out}", report, classifier.path, Path(source))
    rows = read_rows("evaluate", source, classifier.data)
    labels = torch.tensor(rows.labels(f"evaluate={source}", cfg.data.label_column))
    if labels.all() or not labels.any():
        raise InputError(
            "sentiment.one_label", f"evaluate={source}: every row has the same label: rows of both were expected"
        )
    known = classifier.seen_in_training(rows.texts)
    if known:
        say(
            f"evaluate={source}: {known:,} of {len(rows.texts):,} rows were in the training data: metrics are "
            "optimistic; take rows that the model has not seen"
        )
    quality = measure(classifier.probabilities(rows.texts), labels)
    print(_described(classifier, quality))
    try:
        atomic_write_text(report, json.dumps(_report(classifier, source, cfg, quality), indent=2) + "\n")
    except OSError as error:
        raise RunError(
            "output.not_writable", f"{report} cannot be written ({error.strerror}): name another place by out="
        ) from error
    say(str(report))


def _described(classifier: Classifier, quality: Quality) -> str:
    return (
        f"{classifier.method}: {quality.rows:,} rows, accuracy {quality.accuracy:.1%}, F1 {quality.f1:.3f}, "
        f"AUC {quality.auc:.3f}, mean confidence {quality.mean_confidence:.1%}, "
        f"expected calibration error {quality.calibration_error:.3f}"
    )


def _report(classifier: Classifier, source: str, cfg: SentimentConfig, quality: Quality) -> dict[str, Any]:
    next_words = {} if classifier.words is None else {**dataclasses.asdict(classifier.words), "template": cfg.template}
    return {
        "checkpoint": str(classifier.path),
        "evaluated_on": source,
        "method": classifier.method,
        **next_words,
        **dataclasses.asdict(quality),
    }
