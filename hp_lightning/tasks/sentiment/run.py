"""What `hp-lightning sentiment` does: judges texts, compares judgements with labels, or teaches a model labels."""

import io
import sys
from pathlib import Path

from hp_lightning import checkpoint
from hp_lightning.common.command_line import own_command
from hp_lightning.common.errors import InputError, RunError
from hp_lightning.common.files import atomic_write_text, check_target
from hp_lightning.common.run_dir import find_checkpoint
from hp_lightning.schema.sentiment import SentimentConfig
from hp_lightning.tasks.sentiment import checkpoint as taught
from hp_lightning.tasks.sentiment.classify import Judge, find_judge, reading_settings, say, verdict
from hp_lightning.tasks.sentiment.finetune import Example, teach
from hp_lightning.tasks.sentiment.rows import Rows, as_in_corpus, read_rows, write_scores
from hp_lightning.tasks.sentiment.zero_shot import NextWordReader
from hp_lightning.tokenizers import unknown_tokens

TAUGHT_NAME = "sentiment.ckpt"  # beside the checkpoint that the model comes from


def run(cfg: SentimentConfig) -> None:
    """Does what `cfg` asks for: `text`, `file`, `evaluate` or `train`.

    Raises:
        InputError: the checkpoint, the file or the words are not usable
        RunError: a file cannot be written
    """
    path = find_checkpoint(cfg.ckpt)
    if cfg.train is not None:
        _teach(path, cfg.train, cfg)
        return
    judge = find_judge(path, cfg)
    if cfg.text is not None:
        _judge_text(judge, as_in_corpus(cfg.text, judge.data))
    elif cfg.file is not None:
        if cfg.out is not None:
            check_target(f"out={cfg.out}", Path(cfg.out), path, Path(cfg.file))
        _judge_rows(judge, read_rows("file", cfg.file, judge.data), cfg.out)
    elif cfg.evaluate is not None:
        # Imported only here: torchmetrics brings matplotlib, which takes a second and makes a folder of its own.
        from hp_lightning.tasks.sentiment.evaluate import compare

        compare(judge, cfg.evaluate, cfg)


def _judge_text(judge: Judge, text: str) -> None:
    unknown = unknown_tokens(judge.tokenizer, text)
    if unknown:
        say(f"not in the model's vocabulary, read as <UNK>: {' '.join(unknown)}")
    probability = float(judge.probabilities([text])[0])
    print(text)
    if isinstance(judge.reader, NextWordReader) and not judge.reader.calibrated:
        positive, negative = judge.reader.probabilities(text)
        print(f"P(next word is positive) = {positive:.3%}, P(next word is negative) = {negative:.3%}")
    print(f"{verdict(probability)}, confidence {max(probability, 1 - probability):.1%}  ({judge.method}, {judge.path})")


def _judge_rows(judge: Judge, rows: Rows, out: str | None) -> None:
    probabilities = judge.probabilities(rows.texts).tolist()
    scores = [
        {
            "sentiment": verdict(probability),
            "positive_probability": f"{probability:.4f}",
            "confidence": f"{max(probability, 1 - probability):.4f}",
            "unknown_words": " ".join(unknown_tokens(judge.tokenizer, text)),
        }
        for text, probability in zip(rows.texts, probabilities, strict=True)
    ]
    if out is None:
        write_scores(rows, scores, sys.stdout)
        return
    content = io.StringIO(newline="")
    write_scores(rows, scores, content)
    try:
        atomic_write_text(Path(out), content.getvalue())
    except OSError as error:
        raise RunError(
            "output.not_writable", f"out={out} cannot be written ({error.strerror}): name another file"
        ) from error
    say(f"{len(scores):,} rows judged ({judge.method}): {out}")


def _teach(path: Path, source: str, cfg: SentimentConfig) -> None:
    trained = checkpoint.load(path)
    target = path.with_name(TAUGHT_NAME) if cfg.out is None else Path(cfg.out)
    check_target(str(target) if cfg.out is None else f"out={cfg.out}", target, path, Path(source))
    if cfg.out is not None and target.is_file() and not taught.is_taught(target):
        raise InputError(
            "output.would_be_lost",
            f"out={cfg.out} is no model that was taught labels, and would be lost: name another file",
        )
    rows = read_rows("train", source, reading_settings(trained.cfg.data, cfg))
    labels = rows.labels(f"train={source}", cfg.data.label_column)
    examples = [Example(text, positive) for text, positive in zip(rows.texts, labels, strict=True)]
    reader = teach(trained, examples, cfg.teach, cfg.seed, say)
    taught.save(reader, trained, rows.texts, target)
    judging = own_command("sentiment", f"ckpt={target}", "text=Simply wonderful.")
    say(f"{target}\nClassify with: {judging}")
