"""What `sentiment.py` does: judges texts, compares judgements with labels, or teaches a model labels."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hp_lightning import checkpoint, runs
from hp_lightning.config import DataConfig, SentimentConfig
from hp_lightning.errors import InputError, RunError
from hp_lightning.sentiment import taught
from hp_lightning.sentiment.next_words import unknown_tokens
from hp_lightning.sentiment.quality import Quality, measure
from hp_lightning.sentiment.reading import NextWordReader, WordLists
from hp_lightning.sentiment.rows import Rows, as_in_corpus, read_rows, write_scores
from hp_lightning.sentiment.teaching import Example, LabelReader, teach
from hp_lightning.tokenization import Tokenizer

TAUGHT_NAME = "sentiment.ckpt"  # beside the checkpoint that the model comes from
LABEL_METHOD = "label"


@dataclass(frozen=True)
class Judge:
    """What judges texts."""

    path: Path
    method: str
    tokenizer: Tokenizer
    reader: NextWordReader | LabelReader
    words: WordLists | None  # that are weighed, where it is the next words
    data: DataConfig  # how texts are read

    def probabilities(self, texts: list[str]) -> torch.Tensor:
        """Of a positive sentiment: (texts,) in float64."""
        return self.reader.log_odds(texts).sigmoid()


def run(cfg: SentimentConfig) -> None:
    """Does what `cfg` asks for: `text`, `file`, `evaluate` or `train`.

    Raises:
        InputError: the checkpoint, the file or the words are not usable
        RunError: a file cannot be written
    """
    path = runs.find_checkpoint(cfg.ckpt)
    if cfg.train is not None:
        _teach(path, cfg.train, cfg)
        return
    judge = _judge(path, cfg)
    if cfg.text is not None:
        _judge_text(judge, as_in_corpus(cfg.text, judge.data))
    elif cfg.file is not None:
        _judge_rows(judge, read_rows("file", cfg.file, judge.data), cfg.out)
    elif cfg.evaluate is not None:
        _evaluate(judge, cfg.evaluate, cfg)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _judge(path: Path, cfg: SentimentConfig) -> Judge:
    found = taught.load(path)
    if found is not None:
        data = _reading(found.cfg.data, cfg)
        return Judge(path, LABEL_METHOD, found.tokenizer, found.reader, None, data)
    trained = checkpoint.load(path)
    tokenizer = trained.tokenizer
    words = WordLists.known_to(tokenizer, cfg.positive, cfg.negative)
    left_out = [word for word in [*cfg.positive, *cfg.negative] if word not in [*words.positive, *words.negative]]
    if left_out:
        _say(f"not in the model's vocabulary, left out of the lists: {' '.join(left_out)}")
    calibrated = cfg.method == "calibrated"
    reader = NextWordReader(
        trained.net(), tokenizer, words, cfg.template if calibrated else "", calibrated, trained.cfg.data.seq_len
    )
    return Judge(path, cfg.method, tokenizer, reader, words, _reading(trained.cfg.data, cfg))


def _reading(of_run: DataConfig, cfg: SentimentConfig) -> DataConfig:
    """How texts are read: from files of their own kind, but in the form that the corpus has."""
    return dataclasses.replace(
        of_run, delimiter=cfg.data.delimiter, encoding=cfg.data.encoding, text_column=cfg.data.text_column
    )


def _judge_text(judge: Judge, text: str) -> None:
    unknown = unknown_tokens(judge.tokenizer, text)
    if unknown:
        _say(f"not in the model's vocabulary, read as <UNK>: {' '.join(unknown)}")
    probability = float(judge.probabilities([text])[0])
    print(text)
    if isinstance(judge.reader, NextWordReader):
        positive, negative = judge.reader.probabilities(text)
        print(f"next comes one of the positive words with {positive:.3%}, one of the negative with {negative:.3%}")
    print(
        f"{_verdict(probability)}, confidence {max(probability, 1 - probability):.1%}  ({judge.method}, {judge.path})"
    )


def _verdict(probability: float) -> str:
    return "positive" if probability >= 0.5 else "negative"


def _judge_rows(judge: Judge, rows: Rows, out: str | None) -> None:
    probabilities = judge.probabilities(rows.texts).tolist()
    scores = [
        {
            "sentiment": _verdict(probability),
            "positive_probability": f"{probability:.4f}",
            "confidence": f"{max(probability, 1 - probability):.4f}",
            "unknown_words": " ".join(unknown_tokens(judge.tokenizer, text)),
        }
        for text, probability in zip(rows.texts, probabilities, strict=True)
    ]
    if out is None:
        write_scores(rows, scores, sys.stdout)
        return
    path = Path(out)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            write_scores(rows, scores, file)
        unfinished.replace(path)
    except OSError as error:
        raise RunError(f"out={out} cannot be written ({error.strerror}): name another file") from error
    _say(f"{len(scores):,} rows judged ({judge.method}): {path}")


def _evaluate(judge: Judge, source: str, cfg: SentimentConfig) -> None:
    rows = read_rows("evaluate", source, judge.data)
    labels = torch.tensor(rows.labels(f"evaluate={source}", cfg.data.label_column))
    if labels.all() or not labels.any():
        raise InputError(f"evaluate={source}: every row has the same label: rows of both were expected")
    probabilities = judge.probabilities(rows.texts)
    quality = measure(probabilities, labels)
    print(_described(judge, quality))
    stem = judge.path.with_suffix(f".sentiment_{judge.method}") if cfg.out is None else Path(cfg.out)
    picture, report = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.json")
    from hp_lightning.sentiment.reliability import draw_reliability  # a second, and a folder of matplotlib's own

    try:
        draw_reliability(probabilities, labels, quality, picture)
        unfinished = report.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(_report(judge, source, cfg, quality), indent=2) + "\n", encoding="utf-8")
        unfinished.replace(report)
    except OSError as error:
        raise RunError(f"{report} cannot be written ({error.strerror}): name another place by out=") from error
    _say(f"{report}, {picture.name}")


def _described(judge: Judge, quality: Quality) -> str:
    return (
        f"{judge.method}: {quality.rows:,} rows, accuracy {quality.accuracy:.1%}, F1 {quality.f1:.3f}, "
        f"AUC {quality.auc:.3f}, mean confidence {quality.mean_confidence:.1%}, "
        f"expected calibration error {quality.calibration_error:.3f}"
    )


def _report(judge: Judge, source: str, cfg: SentimentConfig, quality: Quality) -> dict[str, Any]:
    next_words = {} if judge.words is None else {**dataclasses.asdict(judge.words), "template": cfg.template}
    return {
        "checkpoint": str(judge.path),
        "evaluated_on": source,
        "method": judge.method,
        **next_words,
        **dataclasses.asdict(quality),
    }


def _teach(path: Path, source: str, cfg: SentimentConfig) -> None:
    trained = checkpoint.load(path)
    rows = read_rows("train", source, _reading(trained.cfg.data, cfg))
    labels = rows.labels(f"train={source}", cfg.data.label_column)
    examples = [Example(text, positive) for text, positive in zip(rows.texts, labels, strict=True)]
    reader = teach(trained, examples, cfg.teach, cfg.seed, _say)
    target = path.with_name(TAUGHT_NAME) if cfg.out is None else Path(cfg.out)
    taught.save(reader, trained, target)
    judging = runs.command("python", runs.script("sentiment.py"), f"ckpt={target}", "text=Simply wonderful.")
    _say(f"{target}\njudge by it: {judging}")
