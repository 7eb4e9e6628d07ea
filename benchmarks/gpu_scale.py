"""How large the parts of gpu.py are: as they are meant for a GPU, and in miniature for a processor."""

from dataclasses import dataclass
from pathlib import Path

from throughput_shapes import FLOAT32, PROJECT

Settings = tuple[str, ...]


@dataclass(frozen=True)
class Scale:
    """What differs between the two; the path through the program is the same."""

    train: Settings  # of every run
    test_processes: str
    gpt2: Settings  # of throughput.py
    gpt2_rounds: Settings
    profiled_steps: Settings
    verse_loss: float
    verse_net: Settings
    verse: Settings
    verse_best: Settings
    seeds: Settings
    words: Settings
    probe_steps: int
    words_seconds: float  # of training, where there is time
    words_margin: float  # seconds of the part in which it does not train: start, validations, end
    words_validations: int
    generation: Settings  # of generation.py
    corpus: Path | None = None  # in place of verse and words


FULL = Scale(
    train=("trainer.accelerator=gpu",),
    test_processes="4",
    gpt2=("--shapes", "gpt2"),
    gpt2_rounds=("--steps", "60", "--runs", "2"),
    profiled_steps=("--steps", "20"),
    verse_loss=1.4697,  # what nanoGPT reports for this network
    verse_net=(),
    verse=("max_steps=350", "trainer.val_every_steps=50"),
    verse_best=("max_steps=900", "trainer.val_every_steps=100"),
    seeds=("1", "2"),
    words=("model=base", "trainer=gpu"),
    probe_steps=150,
    words_seconds=180,
    words_margin=40,
    words_validations=8,
    generation=("--device", "cuda", "--shapes", "roadmap,gpt2", "--runs", "2", "--tokens", "64"),
)

SMALL = (
    "model.d_model=32", "model.num_heads=2", "model.num_layers=1", "model.d_ff=64", "model.max_seq_len=64",
    "data.batch_size=16",
)  # fmt: skip

DRY = Scale(
    train=("trainer.accelerator=cpu", *(f"{key}={value}" for key, value in FLOAT32.items())),
    test_processes="0",
    gpt2=("--shapes", "char", "--eager"),
    gpt2_rounds=("--steps", "8", "--runs", "1"),
    profiled_steps=("--steps", "16"),
    verse_loss=100.0,
    verse_net=SMALL,
    verse=("max_steps=10", "trainer.val_every_steps=5"),
    verse_best=("max_steps=12", "trainer.val_every_steps=12"),
    seeds=("1",),
    words=("model=base", *SMALL),
    probe_steps=16,
    words_seconds=1,
    words_margin=0,
    words_validations=2,
    generation=("--shapes", "small", "--runs", "1", "--tokens", "8"),
    corpus=PROJECT / "books" / "lanterns_of_saltmere.csv",
)
