"""How fast a corpus becomes tokens, and in how much memory, beside NLTK doing the same one step after the other.

    python benchmarks/tokenization.py --csv state_union.csv
    python benchmarks/tokenization.py --csv state_union.csv --megabytes 300 --runs 1 --only ours

Makes a CSV of the wished size out of the given one by repeating it with changed, moved and new words, then times in
processes of their own, by turns: NLTK (train Punkt, cut into sentences, cut into words; reading the file is not
counted), ours without a cache (from the file to ids, everything counted) and ours with the cache that this left.
"""

import argparse
import csv
import hashlib
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))
BOOKS = PROJECT / "books" / "lanterns_of_saltmere.csv"
MARK = "\u3000\u3000"
LINE_LENGTH = 100
ROWS_A_CHAPTER = 500
MUTATED, REPLACED = 0.02, 0.1  # of the words of each repetition
CONTENDERS = ("nltk", "cold", "warm")


def main() -> None:
    """Makes the corpus, runs the contenders by turns and prints the medians."""
    arguments = _arguments()
    if arguments.contender:
        print(json.dumps(_measure(arguments.contender, arguments.csv, arguments.cache)))
        return
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.csv"
        rows, words = _write_corpus(arguments.csv, corpus, arguments.megabytes * 1_000_000)
        print(f"{corpus.stat().st_size / 1e6:.1f} MB, {rows:,} rows, {words:,} words")
        contenders = CONTENDERS if arguments.only is None else ("cold", "warm")
        results: dict[str, list[dict[str, Any]]] = {contender: [] for contender in contenders}
        for run in range(arguments.runs):
            for contender in contenders:
                results[contender].append(_in_process(contender, corpus, Path(folder) / f"cache{run}"))
                print(contender, json.dumps(results[contender][-1]), flush=True)
    _report(results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, default=BOOKS, help="a CSV with a column `text`")
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=["ours"], help="leave NLTK out, which takes three seconds per megabyte")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _write_corpus(source: Path, target: Path, size: float) -> tuple[int, int]:
    """Printed lines, as in a book; gives the number of rows and words."""
    csv.field_size_limit(2**31 - 1)
    with source.open(encoding="utf-8-sig", newline="") as file:
        paragraphs = [row["text"].replace(MARK, "") for row in csv.DictReader(file)]
    rows = words = 0
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "book", "chapter"])
        for copy, paragraph in _repeated(paragraphs):
            for number, line in enumerate(textwrap.wrap(paragraph, LINE_LENGTH)):
                writer.writerow([("" if number else MARK) + line, f"copy {copy}", rows // ROWS_A_CHAPTER])
                rows += 1
                words += line.count(" ") + 1
            if file.tell() >= size:
                return rows, words
    raise AssertionError("the repetitions do not end")


def _repeated(paragraphs: list[str]) -> Iterator[tuple[int, str]]:
    """The paragraphs as they are, then again and again with other words among theirs."""
    draw = random.Random(0)
    vocabulary = [word for paragraph in paragraphs for word in paragraph.split()]
    copy = 0
    while True:
        for paragraph in paragraphs:
            yield copy, paragraph if copy == 0 else " ".join(_changed(paragraph.split(), vocabulary, draw))
        copy += 1


def _changed(words: list[str], vocabulary: list[str], draw: random.Random) -> Iterator[str]:
    for word in words:
        chance = draw.random()
        if chance < MUTATED:
            place = draw.randrange(len(word))
            yield word[:place] + draw.choice("abcdefghijklmnopqrstuvwxyz") + draw.choice("aeioust") + word[place + 1 :]
        else:
            yield draw.choice(vocabulary) if chance < MUTATED + REPLACED else word


def _in_process(contender: str, corpus: Path, cache: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--contender", contender, "--csv", str(corpus), "--cache", str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(contender: str, corpus: Path, cache: Path) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    from hp_lightning.cli import app  # noqa: F401  makes schemas and resolvers known
    from hp_lightning.schema.train import train_config

    overrides = [f"data.path='{corpus}'", f"data.cache_dir='{cache}'"]
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = train_config(compose("train", overrides=overrides))
    return _nltk(cfg) if contender == "nltk" else _ours(cfg)


def _nltk(cfg: Any) -> dict[str, Any]:
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTrainer

    from hp_lightning.data.documents import read_documents
    from hp_lightning.data.splits import split_documents

    splits = split_documents(read_documents(cfg.data).documents, cfg.data)
    texts = [document.text for part in vars(splits).values() for document in part]
    begin = time.perf_counter()
    trainer = PunktTrainer()
    trainer.train("\n".join(document.text for document in splits.train))
    sentence_tokenizer = PunktSentenceTokenizer(trainer.get_params())
    trained = time.perf_counter()
    sentences = [[sentence_tokenizer.tokenize(line) for line in text.split("\n")] for text in texts]
    split = time.perf_counter()
    word_tokenizer = NLTKWordTokenizer()
    tokens = [
        [token for line in text for part in line for token in word_tokenizer.tokenize(part)] for text in sentences
    ]
    end = time.perf_counter()
    return {
        "seconds": round(end - begin, 3),
        "punkt": round(trained - begin, 3),
        "sentences": round(split - trained, 3),
        "words": round(end - split, 3),
        "peak_mb": _peak_mb(),
        **_signature([token for text in tokens for token in text]),
    }


def _ours(cfg: Any) -> dict[str, Any]:
    from hp_lightning.data.dataset import tokenize_corpus

    begin = time.perf_counter()
    corpus = tokenize_corpus(cfg.data, cfg.tokenizer)
    seconds = time.perf_counter() - begin
    peak = _peak_mb()
    tokens = [token for text in _texts(cfg) for token in corpus.tokenizer.tokens(text) if token != "\n"]
    return {"seconds": round(seconds, 3), "peak_mb": peak, **_signature(tokens)}


def _texts(cfg: Any) -> list[str]:
    from hp_lightning.data.documents import read_documents
    from hp_lightning.data.splits import split_documents

    splits = split_documents(read_documents(cfg.data).documents, cfg.data)
    return [document.text for part in vars(splits).values() for document in part]


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _signature(tokens: list[str]) -> dict[str, Any]:
    return {"tokens": len(tokens), "sha256": hashlib.sha256("\n".join(tokens).encode()).hexdigest()[:16]}


def _report(results: dict[str, list[dict[str, Any]]]) -> None:
    medians = {name: statistics.median(run["seconds"] for run in runs) for name, runs in results.items()}
    for name, runs in results.items():
        print(f"{name:5} median {medians[name]:8.2f} s   peak memory {max(run['peak_mb'] for run in runs):,} MB")
    if "nltk" in medians:
        print(f"ours without a cache is {medians['nltk'] / medians['cold']:.1f} times as fast as NLTK")
    signatures = {(run["tokens"], run["sha256"]) for runs in results.values() for run in runs}
    print("the tokens are the same" if len(signatures) == 1 else f"THE TOKENS DIFFER: {signatures}")


if __name__ == "__main__":
    main()
