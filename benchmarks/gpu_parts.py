"""The parts of gpu.py in order of worth: what each runs, and the figures that it takes from what was left behind.

The project is called by its command line alone, and of a run folder only metrics.csv, summary.json and the profile's
table are read.
"""

import csv
import importlib.util
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commands import GENERATE, TRAIN
from gpu_programs import Ended, Programs
from gpu_record import INTERRUPTED, Record
from gpu_scale import Scale
from json_files import read_json
from throughput_shapes import PROJECT, write_corpus

VERSE, WORDS = "tinyshakespeare.csv", "novels.csv"
MADE_UP_TOKENS = 1_000_000
SMOKE = "experiment=smoke"
Figures = dict[str, Any]
Rows = list[dict[str, str]]  # of metrics.csv
Look = Callable[[], bool]  # what is called all the time while a program runs; true: it is to be killed


class AbsentError(Exception):
    """What a part needs is not there."""


@dataclass(frozen=True)
class Folders:
    """Where things lie."""

    work: Path  # caches and runs, of no worth afterwards
    data: Path | None = None  # corpora
    nanogpt: Path | None = None  # a checkout


@dataclass
class Session:
    """What a part is given.

    Args:
        part: its name
        seconds: that it may take
    """

    programs: Programs
    folders: Folders
    scale: Scale
    record: Record
    part: str
    seconds: float
    figures: Figures = field(default_factory=dict)  # so far
    begin: float = field(default_factory=time.monotonic)

    @property
    def limit(self) -> float:
        """Seconds that are left."""
        return max(self.begin + self.seconds - time.monotonic(), 0.1)

    def keep(self, figures: Figures) -> None:
        """Adds figures to those of the part, and records them at once."""
        self.figures.update(figures)
        self.end(INTERRUPTED, "under way")

    def end(self, status: str, reason: str) -> None:
        """Records the status of the part, with its figures."""
        self.record.note(self.part, status, time.monotonic() - self.begin, reason, self.figures)

    def run(self, *command: str, look: Look = lambda: False) -> Ended:
        """Runs a program to its end, within what is left of the part's time."""
        return self.programs.run(command, limit=self.limit, kill_when=look)

    def benchmark(self, script: str, *arguments: str, look: Look = lambda: False) -> Ended:
        """Runs a script beside this one."""
        return self.run(sys.executable, str(PROJECT / "benchmarks" / script), *arguments, look=look)


@dataclass(frozen=True)
class Run:
    """A run of train.py that has come to its end."""

    ended: Ended
    summary: Figures
    rows: Rows

    @property
    def seconds(self) -> float:
        """Of training, without validation."""
        return float(self.summary["seconds"])

    @property
    def tokens_per_second(self) -> float:
        """The median without the first quarter, which compiles and warms up."""
        speeds = [float(row["tokens_per_second"]) for row in self.rows if row["tokens_per_second"]]
        return statistics.median(speeds[len(speeds) // 4 :])


def startup(session: Session) -> None:
    """How long the imports take."""
    session.keep({"help_seconds": session.run(*TRAIN, "--help").seconds})
    session.keep({"imports_seconds": session.run(sys.executable, "-c", "import lightning").seconds})


def smoke(session: Session) -> None:
    """Every stage of a run, then generation from its checkpoint."""
    with run_folder(session) as folder:
        run = train(session, folder, SMOKE)
        session.keep({"command_seconds": run.ended.seconds, "train_seconds": run.seconds, "losses": losses(run.rows)})
        session.keep({"precision": word_after("precision", run.ended.output)})
        writing = session.run(*GENERATE, f"ckpt={folder}", "prompt=The", "seed=1", "max_new_tokens=20")
        session.keep({"generate_seconds": writing.seconds})


def resume(session: Session) -> None:
    """The same run, killed as soon as it has saved its first state, and resumed."""
    unbroken = session.record.result("smoke").get("losses")
    if unbroken is None:
        raise AbsentError("needs the losses of smoke")
    with run_folder(session) as folder:
        saved = folder / "checkpoints" / "last.ckpt"
        session.run(*TRAIN, SMOKE, *session.scale.train, f"run_dir={folder}", look=saved.is_file)
        killed_at = max((int(row["step"]) for row in read_rows(folder)), default=0)
        ended = session.run(*TRAIN, f"resume={folder}")
        resumed = losses(read_rows(folder))
    differences = [abs(resumed[key] - loss) for key, loss in unbroken.items() if key in resumed]
    session.keep({"killed_at_step": killed_at, "resumed_at_step": word_after("resumed at step", ended.output)})
    session.keep({"equal": resumed == unbroken, "largest_difference": max(differences)})
    session.keep({"missing": len(unbroken) - len(differences)})


def tests(session: Session) -> None:
    """The tests that are marked `gpu`."""
    side_by_side = ["-n", session.scale.test_processes] if importlib.util.find_spec("xdist") else []
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", *side_by_side]
    command = [*pytest, str(PROJECT / "tests" / "training" / "test_on_gpu.py")]
    ended = session.programs.run(command, limit=session.limit, statuses=(0, 1))  # 1: some have failed
    last_line = ended.output.strip().splitlines()[-1]
    counts = {outcome: int(count) for count, outcome in re.findall(r"(\d+) (passed|failed|skipped|error)", last_line)}
    failed = re.findall(r"^(?:FAILED|ERROR) \S*::(\S+)", ended.output, re.MULTILINE)
    session.keep({"counts": counts, "failed": failed, "seconds": ended.seconds})


def gpt2(session: Session) -> None:
    """GPT-2 124M and a compiled nanoGPT, by turns."""

    def keep(shapes: Figures) -> None:
        [shape] = shapes.values()
        session.keep(shape)

    nanogpt = session.folders.nanogpt
    contenders = ["ours"] if nanogpt is None else ["ours,nanogpt", "--nanogpt", str(nanogpt)]
    with followed(session, keep) as (path, look):
        throughput(session, "--only", *contenders, "--json", str(path), *session.scale.gpt2_rounds, look=look)


def verse(session: Session) -> None:
    """nanoGPT's network on verse until its loss, with every seed; one after the other, since they are timed."""
    bound, seeds = session.scale.verse_loss, []
    for seed in session.scale.seeds:
        with run_folder(session) as folder:
            arrival = Arrival(folder, bound)
            settings = [*verse_settings(session), *session.scale.verse, f"seed={seed}"]
            run = train(session, folder, *settings, look=arrival.look)
        first = next(iter(reaching(bound, run.rows)), None)
        seeds.append(
            {
                "seed": seed,
                "steps": first and int(first["step"]),
                "train_seconds": first and float(first["seconds"]),
                "command_seconds": arrival.seconds,
                "whole_command_seconds": run.ended.seconds,
                "best_loss": run.summary["best/val/loss"],
                "tokens_per_second": run.tokens_per_second,
            }
        )
        session.keep({"loss": bound, "seeds": seeds})


class Arrival:
    """Notes when a validation loss can first be read in metrics.csv, as somebody would who watches the file.

    Args:
        folder: of a run that is begun now
        bound: of the loss
    """

    def __init__(self, folder: Path, bound: float) -> None:
        self.seconds: float | None = None  # since the command
        self._folder, self._bound = folder, bound
        self._begin, self._size = time.monotonic(), 0

    def look(self) -> bool:
        """Looks, if the file has grown."""
        path = self._folder / "metrics.csv"
        if self.seconds is None and path.is_file() and path.stat().st_size != self._size:
            self._size = path.stat().st_size
            if reaching(self._bound, read_rows(self._folder)):
                self.seconds = time.monotonic() - self._begin
        return False


def reaching(bound: float, rows: Rows) -> Rows:
    """The validations with a loss of at most so much."""
    return [row for row in rows if row["val/loss"] and float(row["val/loss"]) <= bound]


def verse_best(session: Session) -> None:
    """The best loss of the whole experiment, the seeds side by side: here no time counts."""
    settings = [*verse_settings(session), *session.scale.verse_best, *session.scale.train, "logger=csv"]
    with run_folder(session) as folder:
        runs = {seed: folder / f"seed_{seed}" for seed in session.scale.seeds}
        commands = [[*TRAIN, *settings, f"seed={seed}", f"run_dir={run}"] for seed, run in runs.items()]
        session.programs.run(*commands, limit=session.limit)
        ends = {seed: read_json(run / "summary.json") for seed, run in runs.items()}
    best = [{"seed": seed, "steps": end["steps"], "best_loss": end["best/val/loss"]} for seed, end in ends.items()]
    session.keep({"seeds": best})


def million_words(session: Session) -> None:
    """A short run tells how many steps fill the time, a second takes them."""
    path, scale = corpus(session, WORDS), session.scale
    settings = [f"data.path={path}", *scale.words, "max_epochs=null", "logger=csv"]
    with run_folder(session) as folder:
        short = [f"max_steps={scale.probe_steps}", f"trainer.val_every_steps={scale.probe_steps}"]
        probe = train(session, folder, *settings, *short)
    steps_per_second = probe.tokens_per_second * int(probe.summary["steps"]) / int(probe.summary["tokens_seen"])
    session.keep({"corpus": path.name, "probe_tokens_per_second": probe.tokens_per_second})
    seconds = min(scale.words_seconds, session.limit - scale.words_margin)
    steps = max(int(seconds * steps_per_second), scale.probe_steps)
    with run_folder(session) as folder:
        every = max(steps // scale.words_validations, 1)
        run = train(session, folder, *settings, f"max_steps={steps}", f"trainer.val_every_steps={every}")
    taken_over = ("steps", "parameters", "best/val/loss", "val/loss", "kneser_ney/val_loss", "unk_rate")
    session.keep({key: run.summary[key] for key in taken_over})
    session.keep({"train_seconds": run.seconds, "tokens_per_second": run.tokens_per_second})


def generation(session: Session) -> None:
    """Generation next to transformers."""
    with followed(session, lambda shapes: session.keep({"shapes": shapes})) as (path, look):
        session.benchmark("generation.py", "--json", str(path), *session.scale.generation, look=look)


def profile_gpt2(session: Session) -> None:
    """Where the time of a step of GPT-2's goes."""
    path = session.folders.work / "operators.txt"
    throughput(session, *session.scale.profiled_steps, "--profile", str(path))
    session.keep({"operators": read_operators(path)})


def profile_verse(session: Session) -> None:
    """Where the time of a step on verse goes."""
    with run_folder(session) as folder:
        settings = [*verse_settings(session), "trainer.profile=true", "max_steps=20", "trainer.val_every_steps=20"]
        train(session, folder, *settings, "logger=csv")
        session.keep({"operators": read_operators(folder / "profile" / "operators.txt")})


@dataclass(frozen=True)
class Part:
    """A part, and the time that it takes on a fast GPU."""

    measure: Callable[[Session], None]
    least: float  # seconds that it needs
    most: float  # seconds after which it is cut off
    elastic: bool = False  # takes what the later ones leave

    @property
    def name(self) -> str:
        """Of its entry in the JSON."""
        return self.measure.__name__


PARTS = (
    Part(startup, least=10, most=60),
    Part(smoke, least=20, most=90),
    Part(resume, least=25, most=90),
    Part(tests, least=40, most=120),
    Part(gpt2, least=100, most=300),
    Part(verse, least=40, most=120),
    Part(verse_best, least=30, most=120),
    Part(million_words, least=110, most=300, elastic=True),
    Part(generation, least=35, most=120),
    Part(profile_gpt2, least=25, most=120),
    Part(profile_verse, least=15, most=60),
)


def throughput(session: Session, *arguments: str, look: Look = lambda: False) -> Ended:
    """throughput.py with GPT-2's shape, and a folder that keeps what it has compiled."""
    work = session.folders.work / "throughput"
    work.mkdir(exist_ok=True)
    return session.benchmark("throughput.py", "--work", str(work), *session.scale.gpt2, *arguments, look=look)


@contextmanager
def followed(session: Session, keep: Callable[[Any], None]) -> Iterator[tuple[Path, Look]]:
    """A JSON file for a program to write, and what takes its figures over while it runs, however it ends."""
    path = session.folders.work / f"{session.part}.json"
    path.unlink(missing_ok=True)
    seen = 0

    def look() -> bool:
        nonlocal seen
        if path.is_file() and path.stat().st_mtime_ns != seen:
            seen = path.stat().st_mtime_ns
            keep(read_json(path))
        return False

    try:
        yield path, look
    finally:
        look()


def verse_settings(session: Session) -> list[str]:
    """The experiment on its corpus."""
    return ["experiment=shakespeare_char_gpu", f"data.path={corpus(session, VERSE)}", *session.scale.verse_net]


def corpus(session: Session, name: str) -> Path:
    """A corpus that was carried along; words are made up if missing, since Kneser-Ney gives their loss a scale.

    Raises:
        AbsentError: verse is missing
    """
    if session.scale.corpus is not None:
        return session.scale.corpus
    carried = session.folders.data and session.folders.data / name
    if carried and carried.is_file():
        return carried
    if name != WORDS:
        raise AbsentError(f"{name} is missing: name its folder with --data")
    made_up = session.folders.work / "made_up.csv"
    if not made_up.is_file():
        write_corpus(made_up, "word", MADE_UP_TOKENS)
    return made_up


def train(session: Session, folder: Path, *settings: str, look: Look = lambda: False) -> Run:
    """A run of train.py to its end."""
    ended = session.run(*TRAIN, *settings, *session.scale.train, f"run_dir={folder}", look=look)
    return Run(ended, read_json(folder / "summary.json"), read_rows(folder))


@contextmanager
def run_folder(session: Session) -> Iterator[Path]:
    """An empty place for a run, which is taken away afterwards: checkpoints are large."""
    folder = session.folders.work / "runs" / session.part
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_rows(folder: Path) -> Rows:
    """The whole rows of metrics.csv, which another program may be writing."""
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def losses(rows: Rows) -> dict[str, float]:
    """Every loss, by its kind and step."""
    kinds = ("train/loss", "val/loss")
    return {f"{kind} {row['step']}": float(row[kind]) for row in rows for kind in kinds if row[kind]}


def word_after(words: str, output: str) -> str | None:
    """The word after some others in what a program printed."""
    match = re.search(rf"{words} +(\S+)", output)
    return match and match[1]


def read_operators(path: Path) -> list[dict[str, str]]:
    """The rows of a profiler's table, whose columns are as wide as the dashes above and under their names."""
    lines = path.read_text(encoding="utf-8").splitlines()
    top, under_header, bottom = [number for number, line in enumerate(lines) if line.startswith("---")][:3]
    spans = [match.span() for match in re.finditer("-+", lines[top])]
    cells = [[line[begin:end].strip() for begin, end in spans] for line in lines[:bottom]]
    return [dict(zip(cells[top + 1], row, strict=True)) for row in cells[under_header + 1 :]]
