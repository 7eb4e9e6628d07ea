"""Steps 12 and 13: what the run has learned from, and how its losses went."""

import math
from dataclasses import dataclass

import torch
from markupsafe import Markup

from hp_lightning.sweeps.comparison.runs import Validation, number, read_metric, read_metrics
from hp_lightning.tasks.course.plots import loss_curves, rate_figure, svg
from hp_lightning.tasks.course.subject import Subject
from hp_lightning.tokenizers.base import labels

PREDICTIONS = 10  # of the passage
VALIDATIONS = 8  # rows of the table


@dataclass(frozen=True)
class Prediction:
    """A token of the passage, what came next, and what the model thought of it."""

    seen: str
    next: str
    probability: float  # of what came next
    loss: float  # nats
    guess: str  # the likeliest


@dataclass(frozen=True)
class Curves:
    """What metrics.csv tells of the run."""

    losses: Markup
    rates: Markup | None
    validations: list[Validation]  # some of them, the first, the best and the last always
    best: Validation
    lowered: int  # how often the learning rate fell


@dataclass(frozen=True)
class Learning:
    """What steps 12 and 13 show."""

    predictions: list[Prediction]
    passage_loss: float | None  # mean over all of its tokens
    uniform_loss: float
    unigram_loss: float | None
    curves: Curves | None
    no_curves: str  # why there are none


def look_at_learning(subject: Subject) -> Learning:
    """The passage with shifted targets, and the curves of the run where its folder is there."""
    inside = subject.inside
    count = len(inside.targets)
    log_probs = inside.logits[:count].log_softmax(dim=1)
    of_next = log_probs.gather(1, inside.targets[:, None])[:, 0]
    following = labels(subject.tokenizer, inside.targets[:PREDICTIONS].tolist())
    guesses = labels(subject.tokenizer, log_probs[:PREDICTIONS].argmax(dim=1).tolist())
    chosen = of_next[:PREDICTIONS].tolist()
    predictions = [
        Prediction(seen, coming, math.exp(log_prob), -log_prob, guess)
        for seen, coming, log_prob, guess in zip(inside.labels, following, chosen, guesses, strict=False)
    ]
    uniform = math.log(len(subject.tokenizer.vocabulary))
    unigram = None if subject.run_dir is None else number(subject.run_dir.read_summary().get("unigram/val_loss"))
    unigram = unigram if unigram is not None and math.isfinite(unigram) else None
    curves, why = _curves(subject, [("guessing every token alike", uniform), ("guessing by frequency", unigram)])
    return Learning(predictions, -float(torch.mean(of_next)), uniform, unigram, curves, why)


def _curves(subject: Subject, references: list[tuple[str, float | None]]) -> tuple[Curves | None, str]:
    if subject.run_dir is None:
        return None, "this checkpoint lies in no run folder, and the losses of a run stand in its folder's metrics.csv"
    try:
        text = subject.run_dir.metrics.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None, "there is no metrics.csv that can be read in the folder of its run"
    validations = [validation for validation in read_metrics(text)[0] if math.isfinite(validation.loss)]
    if not validations:
        return None, "metrics.csv in the folder of its run has no validation"
    train, rates = read_metric(text, "train/loss"), read_metric(text, "lr")
    val = [(validation.step, validation.loss) for validation in validations]
    known = [(name, loss) for name, loss in references if loss is not None]
    best = min(validations, key=lambda validation: validation.loss)
    alt = f"Training and validation loss over {val[-1][0]:,} steps; the latter was lowest at step {best.step:,}."
    values = [rate for _, rate in rates]
    peak = values.index(max(values)) if values else 0  # before it the rate was warming up
    return Curves(
        losses=svg(loss_curves(train, val, known, subject.trained.step), alt),
        rates=svg(rate_figure(rates), f"Learning rate over {rates[-1][0]:,} steps.") if rates else None,
        validations=_some(validations, best),
        best=best,
        lowered=sum(after < before for before, after in zip(values[peak:], values[peak + 1 :], strict=False)),
    ), ""


def _some(validations: list[Validation], best: Validation) -> list[Validation]:
    last = len(validations) - 1
    places = {round(last * part / (VALIDATIONS - 1)) for part in range(VALIDATIONS)} | {validations.index(best)}
    return [validations[index] for index in sorted(places)]
