"""The command `sentiment`: classify texts, compare with labels, or finetune a model with labels."""

import io
import sys
from pathlib import Path

from hp_lightning import checkpoint
from hp_lightning.common.command_line import own_command
from hp_lightning.common.errors import InputError, RunError
from hp_lightning.common.files import atomic_write_text, check_target
from hp_lightning.common.run_dir import find_checkpoint
from hp_lightning.schema.sentiment import SentimentConfig
from hp_lightning.tasks.sentiment import checkpoint as finetuned
from hp_lightning.tasks.sentiment.classify import Classifier, load_classifier, reading_settings, say, verdict
from hp_lightning.tasks.sentiment.rows import Rows, as_in_corpus, read_rows, write_scores
from hp_lightning.tasks.sentiment.zero_shot import NextWordReader
from hp_lightning.tokenizers import unknown_tokens

FINETUNED_NAME = "sentiment.ckpt"  # next to the checkpoint that the model comes from


def run(cfg: SentimentConfig) -> None:
    """Do what `cfg` asks for: `text`, `file`, `evaluate` or `train`.

    Raises:
        InputError: the checkpoint, the file or the words are not usable
        RunError: a file cannot be written
    """
    path = find_checkpoint(cfg.ckpt)
    if cfg.train is not None:
        _finetune(path, cfg.train, cfg)
        return
    classifier = load_classifier(path, cfg)
    if cfg.text is not None:
        _classify_text(classifier, as_in_corpus(cfg.text, classifier.data))
    elif cfg.file is not None:
        if cfg.out is not None:
            check_target(f"out={cfg.out}", Path(cfg.out), path, Path(cfg.file))
        _classify_rows(classifier, read_rows("file", cfg.file, classifier.data), cfg.out)
    elif cfg.evaluate is not None:
        # Imported only here: torchmetrics brings matplotlib, which takes a second and makes a folder of its own.
        from hp_lightning.tasks.sentiment.evaluate import compare

        compare(classifier, cfg.evaluate, cfg)


def _classify_text(classifier: Classifier, text: str) -> None:
    unknown = unknown_tokens(classifier.tokenizer, text)
    if unknown:
        say(f"not in the model's vocabulary, read as <UNK>: {' '.join(unknown)}")
    probability = float(classifier.probabilities([text])[0])
    print(text)
    if isinstance(classifier.reader, NextWordReader) and not classifier.reader.calibrated:
        positive, negative = classifier.reader.probabilities(text)
        print(f"P(next word is positive) = {positive:.3%}, P(next word is negative) = {negative:.3%}")
    confidence = max(probability, 1 - probability)
    print(f"{verdict(probability)}, confidence {confidence:.1%}  ({classifier.method}, {classifier.path})")


def _classify_rows(classifier: Classifier, rows: Rows, out: str | None) -> None:
    probabilities = classifier.probabilities(rows.texts).tolist()
    scores = [
        {
            "sentiment": verdict(probability),
            "positive_probability": f"{probability:.4f}",
            "confidence": f"{max(probability, 1 - probability):.4f}",
            "unknown_words": " ".join(unknown_tokens(classifier.tokenizer, text)),
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
    say(f"{len(scores):,} rows classified ({classifier.method}): {out}")


def _finetune(path: Path, source: str, cfg: SentimentConfig) -> None:
    from hp_lightning.tasks.sentiment.finetune import Example, finetune  # Lightning takes two seconds

    trained = checkpoint.load(path)
    target = path.with_name(FINETUNED_NAME) if cfg.out is None else Path(cfg.out)
    check_target(str(target) if cfg.out is None else f"out={cfg.out}", target, path, Path(source))
    if cfg.out is not None and target.is_file() and not finetuned.is_finetuned(target):
        raise InputError(
            "output.would_be_lost",
            f"out={cfg.out} is not a finetuned model, and would be lost: name another file",
        )
    rows = read_rows("train", source, reading_settings(trained.cfg.data, cfg))
    labels = rows.labels(f"train={source}", cfg.data.label_column)
    examples = [Example(text, positive) for text, positive in zip(rows.texts, labels, strict=True)]
    reader = finetune(trained, examples, cfg.finetune, cfg.seed, say)
    finetuned.save(reader, trained, rows.texts, target)
    classify = own_command("sentiment", f"ckpt={target}", "text=Simply wonderful.")
    say(f"{target}\nClassify with: {classify}")
