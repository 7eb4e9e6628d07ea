"""docs/RESULTS.md: tables, sentences and pictures of what `results.py` has trained."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from gpu_report import section
from matplotlib.figure import Figure
from results_plan import Plan
from throughput_shapes import PROJECT

sys.path.insert(0, str(PROJECT))

from hp_lightning.sweeps.comparison.compare import Comparison, Configuration, compare
from hp_lightning.sweeps.comparison.plot import COLOURS
from hp_lightning.sweeps.comparison.runs import RunRecord, find_run_folders, read_run
from hp_lightning.sweeps.comparison.table import named, table

COMMAND = "python benchmarks/results.py --data DIR --nanogpt DIR"
DPI = 110
SAME_SIZE = 0.1  # by which networks that are compared may differ in their number of parameters
SHOWN = 1.6  # nats above the best: what a picture shows


@dataclass(frozen=True)
class Curve:
    """The validation loss of another program's run."""

    label: str
    parameters: int
    steps: int
    points: list[tuple[float, float]]  # seconds of training, loss

    @property
    def best(self) -> tuple[float, float]:
        """Seconds and loss."""
        return min(self.points, key=lambda point: point[1])


@dataclass(frozen=True)
class Measured:
    """What was trained on a corpus."""

    plan: Plan
    folders: list[Path]
    others: list[Curve]


def write_page(to: Path, found: dict[str, Measured]) -> None:
    """Writes the page and its pictures into the folder `to`."""
    parts = [
        "# What the presets come to",
        f"Made by `{COMMAND}`, which trains all but the two million words (`--only two_million`) and writes it "
        "(`--page`: writes it again). The losses are in nats per token "
        "over every token of the validation split. The minutes are of training, without validations, on one of two "
        "cores of a server, another run on the other; where nanoGPT is compared, it and the first of ours were begun "
        "together. *The n-gram baseline* is the Kneser-Ney model of order 5 on the "
        "same tokens.",
    ]
    for name, measured in found.items():
        found_runs = map(read_run, find_run_folders(measured.folders))
        records = [run for run in found_runs if run is not None and run.is_complete]
        comparison = compare(records)
        parts += [
            f"## {measured.plan.title}",
            measured.plan.about,
            *_beside(comparison, measured, _counted(records)),
            _markdown(*table(comparison)),
        ]
        if any(len(run.curve) > 1 for run in records):
            picture = to / "images" / f"results_{name}.png"
            _draw(comparison, measured, _counted(records), picture)
            parts.append(f"![Validation loss over time](images/{picture.name})")
    parts += section(to / "gpu.json")
    (to / "RESULTS.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("<", "\\<")


def _counted(records: list[RunRecord]) -> float:
    return next((loss for run in records if math.isfinite(loss := run.metric("kneser_ney/val_loss"))), math.nan)


def _beside(comparison: Comparison, measured: Measured, counted: float) -> list[str]:
    """The best of ours, compared with the n-gram baseline and with the other programs."""
    best = comparison.ranked[0]
    loss = comparison.value(best)
    ratio = math.exp(loss - counted) - 1
    lines = [
        f"The n-gram baseline is {counted:.3f}, perplexity {math.exp(counted):,.1f}; the best of ours, "
        f"`{named(best)}`, is {loss:.3f}, "
        f"perplexity {math.exp(loss):,.1f}, {abs(ratio):.0%} {'below' if ratio < 0 else 'above'} it."
    ]
    for other in measured.others:
        seconds, reached = other.best
        whole = other.points[-1][0]
        lines.append(
            f"{other.label}: {other.parameters:,} parameters, {other.steps:,} steps in {whole / 60:.1f} minutes, best "
            f"{reached:.3f}, perplexity {math.exp(reached):,.1f}, after {seconds / 60:.1f}. "
            + _sooner(comparison, other.parameters, reached, whole)
        )
    return lines


def _sooner(comparison: Comparison, parameters: int, loss: float, seconds: float) -> str:
    """Which of our runs with a network of that size came to a loss the soonest."""
    arrivals = [
        (validation.seconds, each)
        for each in comparison.configurations
        for run in each.counted
        if abs(run.metric("parameters") / parameters - 1) < SAME_SIZE
        for validation in run.curve
        if validation.loss <= loss
    ]
    if not arrivals:
        return "None of ours of its size came to that."
    ours, configuration = min(arrivals, key=lambda arrival: arrival[0])
    return f"`{named(configuration)}` had reached that after {ours / 60:.1f} minutes, {ours / seconds:.0%} of its time."


def _draw(comparison: Comparison, measured: Measured, counted: float, path: Path) -> None:
    """The best of the runs of each configuration, over minutes."""
    picture = Figure(figsize=(9, 6.5), dpi=DPI, layout="constrained")
    axes = picture.subplots()
    for place, configuration in enumerate(comparison.ranked):
        colour, style = COLOURS[place % len(COLOURS)], ("-", "--", ":")[place // len(COLOURS) % 3]
        points = [(validation.seconds / 60, validation.loss) for validation in _best_run(configuration).curve]
        axes.plot(*zip(*points, strict=True), style, color=colour, label=named(configuration))
    for other in measured.others:
        axes.plot([s / 60 for s, _ in other.points], [v for _, v in other.points], "k-.", label=other.label)
    if math.isfinite(counted):
        axes.axhline(counted, color="gray", linewidth=0.9, label="n-gram baseline")
    least = min(comparison.value(each) for each in comparison.ranked)
    axes.set_ylim(min(least, counted) - 0.05 * SHOWN, least + SHOWN)
    axes.set(xlabel="minutes of training", ylabel="validation loss, nats per token", title=measured.plan.title)
    picture.legend(loc="outside lower left", fontsize=7)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path)


def _best_run(configuration: Configuration) -> RunRecord:
    return min(configuration.counted, key=lambda run: math.inf if run.best is None else run.best.loss)
