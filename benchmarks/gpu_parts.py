"""The parts of gpu.py: each runs programs and yields the figures that it takes from what they left behind.

The project is called by its command line alone, and of a run folder only metrics.csv, summary.json and the profile's
table are read.
"""

import csv
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from commands import GENERATE, TRAIN
from throughput_shapes import FLOAT32, PROJECT

SMOKE = "experiment=smoke"
LOSSES = ("train/loss", "val/loss")
WORDS_SECONDS = (30, 180)  # of training: as the time that is left allows
WORDS_MARGIN = 75  # seconds in which that part does not train: start, tokenizing, counting, compiling, validations
OPERATORS = 5
POLL_SECONDS = 0.02
LAST_LINES = 3  # of a failure, for the table; the log has all

Figures = dict[str, Any]
Settings = tuple[str, ...]


class PartError(Exception):
    """Why a part has no more figures, in one line."""


@dataclass(frozen=True)
class Scale:
    """How large the parts are; the path through the program is the same for all."""

    train: Settings  # of every run
    gpt2: Settings  # of throughput.py
    ours: Settings  # of train.py there
    verse_net: Settings
    verse_loss: float
    verse: Settings
    verse_best: Settings
    seeds: Settings
    words: Settings
    words_rate: float  # steps per second, of which a GPU takes rather more
    generation: Settings
    corpus: Path | None = None  # in place of those of --data


FULL = Scale(
    train=("trainer.accelerator=gpu",),
    gpt2=("--shapes", "gpt2", "--steps", "40", "--runs", "1"),
    ours=("trainer.profile=true",),
    verse_net=(),
    verse_loss=1.4697,  # what nanoGPT reports for this network
    verse=("max_steps=350", "trainer.val_every_steps=50"),
    verse_best=("max_steps=900", "trainer.val_every_steps=100"),
    seeds=("1", "2"),
    words=("model=base", "trainer=gpu"),
    words_rate=60,
    generation=("--device", "cuda", "--shapes", "roadmap", "--runs", "2", "--tokens", "64"),
)

EAGER = tuple(f"{key}={value}" for key, value in FLOAT32.items())
SMALL = (
    "model.d_model=32", "model.num_heads=2", "model.num_layers=1", "model.d_ff=64", "model.max_seq_len=64",
    "data.batch_size=16", "logger.sample_tokens=0",
)  # fmt: skip

DRY = Scale(
    train=("trainer.accelerator=cpu", *EAGER),
    gpt2=("--shapes", "char", "--steps", "16", "--runs", "1"),
    ours=("trainer.profile=true", *EAGER),
    verse_net=SMALL,
    verse_loss=100.0,
    verse=("max_steps=10", "trainer.val_every_steps=5"),
    verse_best=("max_steps=12", "trainer.val_every_steps=12"),
    seeds=("1",),
    words=("model=base", *SMALL),
    words_rate=0.1,
    generation=("--shapes", "small", "--runs", "1", "--tokens", "8"),
    corpus=PROJECT / "books" / "lanterns_of_saltmere.csv",
)


class Ended(NamedTuple):
    """Programs that have come to their end."""

    seconds: float  # from the command to the end of the last of them
    output: str


@dataclass
class Bench:
    """What the parts are given."""

    work: Path  # an empty folder for caches and runs, of no worth afterwards
    log: Path  # gets everything that the programs print
    environment: Mapping[str, str]
    scale: Scale
    data: Path | None = None  # a folder of corpora
    nanogpt: Path | None = None  # a checkout
    deadline: float = 0.0  # of the part that is running, by time.monotonic()

    def run(self, *commands: Sequence[str], until: Path | None = None, statuses: tuple[int, ...] = (0,)) -> Ended:
        """Runs programs side by side to their end.

        Args:
            commands: each in a process group of its own, so that all that it starts can be killed with it
            until: as soon as there is such a file, the programs are killed, which is no failure
            statuses: with which a program may end

        Raises:
            PartError: one failed, or the time of the part is over
        """
        begin, processes = time.monotonic(), []
        options: dict[str, Any] = {"cwd": PROJECT, "env": self.environment, "start_new_session": True}
        with self.log.open("a+", encoding="utf-8", errors="replace") as log:
            print("", *map(shlex.join, commands), sep="\n$ ", file=log, flush=True)
            offset = log.tell()
            try:
                for command in commands:
                    processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **options))
                while any(process.poll() is None for process in processes) and not (until and until.is_file()):
                    if time.monotonic() >= self.deadline:
                        raise PartError(f"cut off after {time.monotonic() - begin:.0f} s")
                    time.sleep(POLL_SECONDS)
            finally:
                for process in processes:
                    with suppress(ProcessLookupError):  # one that has ended may have left others
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            seconds = time.monotonic() - begin
            log.seek(offset)
            output = log.read()
        allowed = statuses if until is None else (*statuses, -signal.SIGKILL)
        for process in processes:
            if process.returncode not in allowed:
                last_lines = [line.strip() for line in output.splitlines() if line.strip()][-LAST_LINES:]
                raise PartError(f"status {process.returncode}: {' / '.join(last_lines)}")
        return Ended(seconds, output)

    def benchmark(self, script: str, *arguments: str) -> Ended:
        """Runs a script beside this one."""
        return self.run([sys.executable, str(PROJECT / "benchmarks" / script), *arguments])

    def train(self, folder: Path, *settings: str) -> "Trained":
        """Runs train.py to its end."""
        ended = self.run([*TRAIN, *settings, *self.scale.train, f"run_dir={folder}"])
        return Trained(ended, _read_summary(folder), _read_rows(folder))

    def corpus(self, name: str) -> str:
        """The setting for a corpus that was carried along.

        Raises:
            PartError: it was not
        """
        path = self.scale.corpus or (self.data and self.data / name)
        if path is None or not path.is_file():
            raise PartError(f"{name} is missing: name its folder with --data")
        return f"data.path={path}"

    def verse(self) -> list[str]:
        """The settings of nanoGPT's network on verse."""
        return ["experiment=shakespeare_char_gpu", self.corpus("tinyshakespeare.csv"), *self.scale.verse_net]


class Trained(NamedTuple):
    """A run of train.py that has come to its end."""

    ended: Ended
    summary: Figures
    rows: list[dict[str, str]]  # of metrics.csv


def startup(bench: Bench) -> Iterator[Figures]:
    """How long the imports take, the first from a disk that may not have been read yet."""
    yield {"imports_seconds": bench.run([sys.executable, "-c", "import lightning"]).seconds}
    yield {"help_seconds": bench.run([*TRAIN, "--help"]).seconds}


def smoke(bench: Bench) -> Iterator[Figures]:
    """Every stage of a run, generation from its checkpoint; then the same run killed at its first state and resumed."""
    whole, broken = bench.work / "whole", bench.work / "broken"
    run = bench.train(whole, SMOKE)
    precision = re.search(r"precision +(\S+)", run.ended.output)
    yield {
        "command_seconds": run.ended.seconds,
        "train_seconds": run.summary["seconds"],
        "precision": precision and precision[1],
    }
    generation = bench.run([*GENERATE, f"ckpt={whole}", "prompt=The", "seed=1", "max_new_tokens=20"])
    yield {"generate_seconds": generation.seconds}
    command = [*TRAIN, SMOKE, *bench.scale.train, f"run_dir={broken}"]
    bench.run(command, until=broken / "checkpoints" / "last.ckpt")
    resumed = re.search(r"resumed at step (\d+)", bench.run([*TRAIN, f"resume={broken}"]).output)
    if resumed is None:
        raise PartError("the killed run was not resumed")
    pairs = zip(run.rows, _read_rows(broken), strict=True)
    differences = [abs(float(a[key]) - float(b[key])) for a, b in pairs for key in LOSSES if a[key]]
    yield {"resumed_at_step": resumed[1], "largest_difference": max(differences)}


def tests(bench: Bench) -> Iterator[Figures]:
    """The tests that are marked `gpu`."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "tests/training/test_on_gpu.py"]
    ended = bench.run(command, statuses=(0, 1))  # 1: some have failed
    counts = {
        outcome: int(count) for count, outcome in re.findall(r"(\d+) (passed|failed|skipped|error)", ended.output)
    }
    failed = re.findall(r"^(?:FAILED|ERROR) \S*::(\S+)", ended.output, re.MULTILINE)
    yield {"counts": counts, "failed": failed, "seconds": ended.seconds}
    if failed:
        raise PartError(f"{len(failed)} failed")


def gpt2(bench: Bench) -> Iterator[Figures]:
    """GPT-2 124M and a compiled nanoGPT, and where a step's time goes."""
    path = bench.work / "gpt2.json"
    contenders = ["ours"] if bench.nanogpt is None else ["ours,nanogpt", "--nanogpt", str(bench.nanogpt)]
    arguments = ["--only", *contenders, "--json", str(path), *bench.scale.gpt2, "--ours", *bench.scale.ours]
    try:
        bench.benchmark("throughput.py", *arguments)
    finally:  # where nanoGPT fails or comes too late, ours has been measured
        if path.is_file():
            [shape] = json.loads(path.read_text(encoding="utf-8")).values()
            profiles = [contender.pop("profile") for contender in shape["contenders"].values()]
            yield {**shape, "operators": read_operators("".join(profiles))}


def verse(bench: Bench) -> Iterator[Figures]:
    """nanoGPT's network on verse until its loss, with every seed; one after the other, since they are timed."""
    bound, seeds = bench.scale.verse_loss, []
    for seed in bench.scale.seeds:
        run = bench.train(bench.work / f"verse_{seed}", *bench.verse(), *bench.scale.verse, f"seed={seed}")
        reached = [row for row in run.rows if row["val/loss"] and float(row["val/loss"]) <= bound]
        seeds.append(
            {
                "seed": seed,
                "steps": int(reached[0]["step"]) if reached else None,
                "train_seconds": float(reached[0]["seconds"]) if reached else None,
                "command_seconds": run.ended.seconds,
                "best_loss": run.summary["best/val/loss"],
            }
        )
        yield {"loss": bound, "seeds": seeds}


def verse_best(bench: Bench) -> Iterator[Figures]:
    """The best loss of the whole experiment, and where a step's time goes; side by side, since no time counts here."""
    settings = [*bench.verse(), *bench.scale.verse_best, *bench.scale.train, "logger=csv", "trainer.profile=true"]
    folders = {seed: bench.work / f"best_{seed}" for seed in bench.scale.seeds}
    bench.run(*([*TRAIN, *settings, f"seed={seed}", f"run_dir={folder}"] for seed, folder in folders.items()))
    ends = {seed: _read_summary(folder) for seed, folder in folders.items()}
    yield {
        "seeds": [
            {"seed": seed, "steps": end["steps"], "best_loss": end["best/val/loss"]} for seed, end in ends.items()
        ]
    }
    profile = folders[bench.scale.seeds[0]] / "profile" / "operators.txt"
    yield {"operators": read_operators(profile.read_text(encoding="utf-8"))}


def generation(bench: Bench) -> Iterator[Figures]:
    """Generation next to transformers."""
    path = bench.work / "generation.json"
    bench.benchmark("generation.py", "--json", str(path), *bench.scale.generation)
    yield {"shapes": json.loads(path.read_text(encoding="utf-8"))}


def million_words(bench: Bench) -> Iterator[Figures]:
    """model=base on novels, for the time that is left; last for that reason."""
    least, most = WORDS_SECONDS
    left = bench.deadline - time.monotonic() - WORDS_MARGIN
    if left < least:
        raise PartError(f"needs {least + WORDS_MARGIN} s")
    steps = int(min(left, most) * bench.scale.words_rate)
    settings = [*bench.scale.words, "max_epochs=null", f"max_steps={steps}", f"trainer.val_every_steps={steps // 8}"]
    run = bench.train(bench.work / "words", bench.corpus("novels.csv"), *settings, "logger=csv")
    speeds = [float(row["tokens_per_second"]) for row in run.rows if row["tokens_per_second"]]
    yield {
        "tokens_per_second": statistics.median(speeds[len(speeds) // 4 :]),  # compiles and warms up before
        **{key: run.summary[key] for key in ("seconds", "steps", "best/val/loss", "kneser_ney/val_loss")},
    }
    if left < most:  # these figures stay until another call has the time for better ones
        raise PartError(f"planned for {left:.0f} s of training instead of {most}")


Part = Callable[[Bench], Iterator[Figures]]

# In this order, with the seconds after which each is cut off: about twice what it should take on an H200.
PARTS: dict[Part, float] = {
    startup: 60,
    smoke: 120,
    tests: 90,
    gpt2: 240,
    verse: 90,
    verse_best: 90,
    generation: 75,
    million_words: WORDS_SECONDS[1] + 2 * WORDS_MARGIN,
}


def _read_summary(folder: Path) -> Figures:
    summary: Figures = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return summary


def _read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_operators(table: str) -> dict[str, str]:
    """The operators of a profiler's table that took the most, with their share of the time."""
    lines = [re.split(" {2,}", line.strip()) for line in table.splitlines() if not line.startswith("-")]
    column = lines[0].index("Self CUDA %" if "Self CUDA %" in lines[0] else "Self CPU %")
    rows = [cells for cells in lines[1:] if len(cells) == len(lines[0])][:OPERATORS]
    return {cells[0]: cells[column] for cells in rows}
