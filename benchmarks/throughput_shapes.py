"""What the benchmark of the speed trains: networks and batches, made-up text, and the settings that train.py takes.

Imports nothing heavy: the process that starts the others must stay small, see `throughput.py`.
"""

import csv
import dataclasses
import json
import random
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

LEARNING_RATE, BETAS, WEIGHT_DECAY, CLIP_NORM, SEED = 1e-3, (0.9, 0.99), 0.1, 1.0, 1
VAL_FRACTION = 0.05

# 61 characters, with the space and the full stop 63, with <UNK> and <EOS> the 65 of nanoGPT's Shakespeare.
ALPHABETS = {"char": string.ascii_letters + string.digits[:9], "word": string.ascii_lowercase}
LEAST_WORDS = {"char": 20_000, "word": 500_000}  # so many bring enough different ones
WORDS_A_SENTENCE, WORDS_A_CHAPTER = 12, 2_000
LETTERS_A_WORD = (3, 8)
FOLLOWS = 0.5  # how often a word is followed by the one that mostly follows it: something to be learned


@dataclass(frozen=True)
class Shape:
    """A network and its batches, as they are given to every contender."""

    name: str
    tokenizer: str  # char | word
    vocab_size: int
    num_layers: int
    num_heads: int
    d_model: int
    seq_len: int
    batch_size: int
    dropout: float
    steps: int  # where nothing else is asked for

    @property
    def tokens_per_step(self) -> int:
        """Training tokens that an optimizer step sees."""
        return self.seq_len * self.batch_size


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("char", "char", 65, 4, 4, 128, seq_len=64, batch_size=12, dropout=0.0, steps=400),
        Shape("word", "word", 10_000, 4, 4, 256, seq_len=128, batch_size=32, dropout=0.1, steps=40),
        Shape("roadmap", "word", 10_000, 6, 8, 512, seq_len=256, batch_size=8, dropout=0.1, steps=20),
        Shape("gpt2", "word", 50_304, 12, 12, 768, seq_len=1024, batch_size=16, dropout=0.0, steps=300),  # for a GPU
    )
}

SCALED_TOKENS = 4_096  # in a batch


def _scaled(d_model: int, seq_len: int) -> Shape:
    """The shape `word` in another width and another length of its windows."""
    name, batch_size = f"d{d_model}_T{seq_len}", SCALED_TOKENS // seq_len
    return Shape(name, "word", 10_000, 4, d_model // 64, d_model, seq_len, batch_size, dropout=0.1, steps=12)


WIDTH_SHAPES = [_scaled(width, 128) for width in (128, 256, 512, 1024)]
LENGTH_SHAPES = [_scaled(256, length) for length in (64, 128, 256, 512, 1024)]

# What decides on the means: as fast as the machine can, and the plain sums that those are held against.
AUTOMATIC = {"trainer.precision": "auto", "trainer.compile": "true"}
FLOAT32 = {"trainer.precision": "32-true", "trainer.compile": "false"}


@dataclass(frozen=True)
class Job:
    """What a contender is to do; goes to its process as JSON."""

    shape: Shape
    corpus: str  # a CSV
    folder: str  # for caches, runs and what else must be written
    steps: int
    nanogpt: str | None = None  # a checkout
    further: dict[str, str] | None = None  # settings of ours alone

    @property
    def every(self) -> int:
        """Steps between two looks at the clock: the default of `logger.log_every_steps`, fewer in a short run."""
        return max(1, min(10, self.steps // 8))

    @property
    def token_file(self) -> Path:
        """The training split's ids, for the contenders that know nothing of our data."""
        return Path(self.folder) / f"{self.shape.tokenizer}_{self.shape.vocab_size}.bin"

    def to_json(self) -> str:
        """For the command line of a contender."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """What `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "shape": Shape(**values["shape"])})


def settings(job: Job) -> dict[str, str]:
    """The shape as settings of train.py: GPT-2's network without biases, trained as the other contenders train it."""
    shape = job.shape
    return {
        "data": "csv",
        "data.path": job.corpus,
        "data.cache_dir": f"{job.folder}/cache",
        "data.split": "tail",
        "data.val_fraction": str(VAL_FRACTION),
        "data.test_fraction": "0",
        "data.batch_size": str(shape.batch_size),
        "tokenizer": shape.tokenizer,
        "tokenizer.vocab_size": str(shape.vocab_size),
        "model.vocab_size": str(shape.vocab_size),
        "model.num_layers": str(shape.num_layers),
        "model.num_heads": str(shape.num_heads),
        "model.d_model": str(shape.d_model),
        "model.d_ff": str(4 * shape.d_model),
        "model.max_seq_len": str(shape.seq_len),  # and so data.seq_len
        "model.position": "learned",
        "model.norm": "layer",
        "model.norm_position": "pre",
        "model.activation": "gelu",
        "model.bias": "false",
        "model.tie_embeddings": "true",
        "model.qk_norm": "false",
        "regularization": "none",
        "regularization.dropout": str(shape.dropout),
        "regularization.weight_decay": str(WEIGHT_DECAY),
        "regularization.gradient_clip_norm": str(CLIP_NORM),
        "optim": "adamw",
        "optim.lr": str(LEARNING_RATE),
        "optim.betas": f"[{BETAS[0]},{BETAS[1]}]",
        "trainer": "auto",
        "trainer.accelerator": "cpu" if sys.platform == "darwin" else "auto",  # the others know no GPU of a Mac
        "trainer.val_every_steps": str(job.steps + 1),  # only after the last step, when the clock is stopped
        "logger": "tensorboard",
        "logger.log_every_steps": str(job.every),
        "logger.sample_tokens": "0",
        "logger.images": "false",
        "max_steps": str(job.steps),
        "max_epochs": "null",
        "seed": str(SEED),
    }


def write_corpus(path: Path, tokenizer: str, tokens: int) -> None:
    """A CSV of made-up text with at least so many training tokens; the same one each time."""
    draw = random.Random(SEED)
    per_word = sum(LETTERS_A_WORD) / 2 + 1 if tokenizer == "char" else 1
    count = max(LEAST_WORDS[tokenizer], round(1.2 * tokens / per_word))
    words = iter(_words(draw, _lexicon(draw, ALPHABETS[tokenizer], count // 25), count))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "chapter"])
        for chapter in range(count // WORDS_A_CHAPTER):
            sentences = (
                " ".join(next(words) for _ in range(WORDS_A_SENTENCE)) + "."
                for _ in range(WORDS_A_CHAPTER // WORDS_A_SENTENCE)
            )
            writer.writerow([" ".join(sentences), chapter])


def _lexicon(draw: random.Random, alphabet: str, size: int) -> list[str]:
    """So many words, each a different one."""
    found: dict[str, None] = {}
    while len(found) < size:
        found["".join(draw.choices(alphabet, k=draw.randint(*LETTERS_A_WORD)))] = None
    return list(found)


def _words(draw: random.Random, lexicon: list[str], count: int) -> Iterator[str]:
    """The n-th word about 1/n as often as the first (Zipf); each is mostly followed by one of its own."""
    weights = list(accumulate(1 / rank for rank in range(1, len(lexicon) + 1)))
    drawn = draw.choices(range(len(lexicon)), cum_weights=weights, k=count)
    follower = draw.choices(range(len(lexicon)), cum_weights=weights, k=len(lexicon))
    word = 0
    for other in drawn:
        word = follower[word] if draw.random() < FOLLOWS else other
        yield lexicon[word]
