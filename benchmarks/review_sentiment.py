"""How well the ways of `hp-lightning sentiment` tell positive from negative sentences, beside Naive Bayes.

    python benchmarks/review_sentiment.py movie_review_sentences.csv

Of each label the last fifth is held out: no vocabulary, no weight, no temperature and no choice comes from it. What has
been done already in the folder `--work` is not done again.
"""

import argparse
import csv
import json
import math
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from commands import SENTIMENT, TRAIN

PROJECT = Path(__file__).resolve().parent.parent
LABELS = ("positive", "negative")
Row = tuple[str, str]  # text and label


def main() -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, help="with columns text and label (positive or negative)")
    parser.add_argument("--work", type=Path, default=Path("outputs/sentiment"), help="folder for all that is made")
    parser.add_argument(
        "--finetune", nargs="*", default=[], help="settings of hp-lightning sentiment, as in finetune.networks=1"
    )
    parser.add_argument("--validate", action="store_true", help="hold out of the training split: for making choices")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    train, held_out = split(read(args.csv))
    if args.validate:
        train, held_out = split(train)
    write(train, args.work / "train.csv")
    write(held_out, args.work / "held_out.csv")
    print(f"{len(train):,} sentences to learn from, {len(held_out):,} held out", flush=True)
    for name, with_pairs in (("Naive Bayes, words", False), ("Naive Bayes, words and pairs", True)):
        print(f"{name:30} accuracy {naive_bayes(train, held_out, with_pairs):.1%}", flush=True)
    language_model = train_language_model(args.work)
    for method in ("next_word", "calibrated"):
        evaluate(args.work, language_model, f"method={method}")
    finetuned = args.work / "sentiment.ckpt"
    if not finetuned.is_file():
        program(SENTIMENT, f"ckpt={language_model}", f"train={args.work}/train.csv", f"out={finetuned}", *args.finetune)
    evaluate(args.work, finetuned)


def read(path: Path) -> list[Row]:
    """The rows, in the order of the file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def split(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """All but the last fifth of each label, and that."""
    kept: list[Row] = []
    held_out: list[Row] = []
    for label in LABELS:
        own = [row for row in rows if row[1] == label]
        border = len(own) - len(own) // 5
        kept += own[:border]
        held_out += own[border:]
    return kept, held_out


def write(rows: list[Row], path: Path) -> None:
    """A CSV in which every row is a document of its own."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "document"])
        writer.writerows([text, label, number] for number, (text, label) in enumerate(rows))


def naive_bayes(train: list[Row], held_out: list[Row], with_pairs: bool) -> float:
    """Accuracy of Naive Bayes with add-one smoothing, each feature counted once a sentence (Pang & Lee 2002)."""

    def features(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {(word,) for word in words} | (set(pairwise(words)) if with_pairs else set())

    counts = {label: Counter(f for text, own in train if own == label for f in features(text)) for label in LABELS}
    size = len(counts["positive"].keys() | counts["negative"].keys())
    totals = {label: math.log(counts[label].total() + size) for label in LABELS}

    def log_likelihood(text: str, label: str) -> float:
        return sum(math.log(counts[label][feature] + 1) - totals[label] for feature in features(text))

    right = sum(max(LABELS, key=lambda label: log_likelihood(text, label)) == own for text, own in held_out)
    return right / len(held_out)


def train_language_model(work: Path) -> Path:
    """A run on the sentences alone, without their labels."""
    run_dir = work / "language_model"
    done = run_dir / "summary.json"
    if not (done.is_file() and json.loads(done.read_text())["status"] in ("completed", "stopped early")):
        begun = (run_dir / ".hydra" / "config.yaml").is_file()
        settings = [
            f"data.path={work}/train.csv", "data=csv", "data.test_fraction=0", "data.val_fraction=0.05",
            "max_epochs=4", "tokenizer.vocab_size=null", "tokenizer.min_frequency=1",
            "logger=csv", f"run_dir={run_dir}", "model.num_layers=1", "model.d_model=64", "model.d_ff=256",
            "trainer.compile=false",
        ]  # fmt: skip
        program(TRAIN, *([f"resume={run_dir}"] if begun else settings))
    return run_dir / "checkpoints" / "best.ckpt"


def evaluate(work: Path, ckpt: Path, *settings: str) -> None:
    """Prints what `hp-lightning sentiment` says of the sentences held out."""
    program(SENTIMENT, f"ckpt={ckpt}", f"evaluate={work}/held_out.csv", *settings)


def program(command: Sequence[str], *arguments: str) -> None:
    """Runs a command of the project; what it prints is seen."""
    path = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    subprocess.run([*command, *arguments], check=True, env=os.environ | {"PYTHONPATH": path})


if __name__ == "__main__":
    main()
