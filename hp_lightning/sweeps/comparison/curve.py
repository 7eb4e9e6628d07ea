"""The validation curve of a run, read back from metrics.csv."""

import csv
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Validation:
    """The figures of a validation; NaN is what is not known."""

    step: int
    tokens: float  # seen until then
    seconds: float  # of training until then
    loss: float
    perplexity: float
    bits_per_char: float
    gap: float  # the loss less the mean of the training losses since the validation before


def read_metrics(text: str) -> tuple[list[Validation], list[float]]:
    """The validations in a metrics.csv, and the tokens per second of every row that has them."""
    curve: list[Validation] = []
    speeds: list[float] = []
    losses: list[float] = []  # of training, since the validation before
    for row in _rows(text):
        numbers = {name: number(value) for name, value in row.items()}
        if not math.isfinite(numbers.get("step", math.nan)):
            continue
        if math.isfinite(speed := numbers.get("tokens_per_second", math.nan)):
            speeds.append(speed)
        if row.get("train/loss"):
            losses.append(numbers["train/loss"])
        if row.get("val/loss"):
            curve.append(_validation(numbers, statistics.fmean(losses) if losses else math.nan))
            losses = []
    return curve, speeds


def read_figure(text: str, name: str) -> list[tuple[int, float]]:
    """The steps and values of one figure in a metrics.csv, such as train/loss, where it has one."""
    found = [(number(row.get("step")), number(row.get(name))) for row in _rows(text)]
    return [(int(step), value) for step, value in found if math.isfinite(step) and math.isfinite(value)]


def _rows(text: str) -> Iterator[dict[str, str]]:
    """Those that were written to their ends: a run that is going on, or was killed, may be in the middle of one."""
    whole, _, _ = text.rpartition("\n")
    try:
        for row in csv.DictReader(whole.splitlines()):
            if None not in row and None not in row.values():
                yield row
    except csv.Error:
        return


def _validation(numbers: dict[str, float], train_loss: float) -> Validation:
    loss = numbers["val/loss"]
    gap = numbers.get("val/gap", math.nan)
    return Validation(
        step=int(numbers["step"]),
        tokens=numbers.get("tokens", math.nan),
        seconds=numbers.get("seconds", math.nan),
        loss=loss,
        perplexity=numbers.get("val/perplexity", math.nan),
        bits_per_char=numbers.get("val/bits_per_char", math.nan),
        gap=gap if math.isfinite(gap) else loss - train_loss,
    )


def with_the_known_best(curve: list[Validation], summary: dict[str, Any]) -> list[Validation]:
    """The curve; where its best point is lost with metrics.csv, with what summary.json knows of it."""
    loss, step = number(summary.get("best/val/loss")), number(summary.get("best/step"))
    known = [validation.loss for validation in curve if math.isfinite(validation.loss)]
    if not (math.isfinite(loss) and math.isfinite(step)) or min(known, default=math.inf) <= loss:
        return curve
    perplexity, bits = (number(summary.get(f"best/val/{name}")) for name in ("perplexity", "bits_per_char"))
    best = Validation(int(step), math.nan, math.nan, loss, perplexity, bits, math.nan)
    return sorted([*curve, best], key=lambda validation: validation.step)


def number(value: Any) -> float:
    """A figure of a file as a number; NaN where it is none."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan
