"""What gpu.py has measured, next to the targets: a table for the terminal, and a section of docs/RESULTS.md.

python benchmarks/gpu_report.py      # rewrites that section from docs/gpu.json
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from throughput_shapes import PROJECT

SHARE, TRAIN_SECONDS, TIMES_TRANSFORMERS = 0.5, 7.0, 3.0  # the targets
HEADING = "## On a GPU"
DONE = ""  # the problem of a part that has none
Figures = dict[str, Any]


class Row(NamedTuple):
    """A line of the table."""

    what: str
    figure: str
    target: str = ""  # and whether it is met; most have none


def _target(text: str, is_met: bool) -> str:
    return f"{text}: {'met' if is_met else 'missed'}"


def _startup(figures: Figures) -> Iterator[Row]:
    seconds, imports = figures["help_seconds"], figures["imports_seconds"]
    yield Row("startup", f"`import lightning` for the first time {imports:.1f} s, `train.py --help` {seconds:.1f} s")


def _smoke(figures: Figures) -> Iterator[Row]:
    yield Row(
        "experiment=smoke",
        f"{figures['command_seconds']:.1f} s from command to end, {figures['train_seconds']:.1f} s of training; "
        f"precision {figures['precision']}; `generate.py` {figures['generate_seconds']:.1f} s",
    )
    yield Row(
        "killed and resumed",
        f"at step {figures['resumed_at_step']}: every loss within {figures['largest_difference']:.1e} of the "
        "uninterrupted run's",
    )


def _tests(figures: Figures) -> Iterator[Row]:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in figures["counts"].items())
    yield Row("tests marked gpu", ": ".join([f"{counts} in {figures['seconds']:.0f} s", *figures["failed"]]))


def _gpt2(figures: Figures) -> Iterator[Row]:
    shape, ours, nanogpt = figures["shape"], figures["contenders"]["ours"], figures["contenders"].get("nanogpt")
    yield Row(
        f"{shape['name']}, T {shape['seq_len']:,}, batch {shape['batch_size']}",
        f"{ours['tokens_per_second']:,.0f} tokens/s, {ours['share']:.1%} of the matrix product's rate "
        f"({figures['matrix_flops'] / 1e12:,.3g} TFLOP/s), {ours['gpu_peak_mb'] / 1024:.1f} GiB",
        _target(f"≥ {SHARE:.0%}", ours["share"] >= SHARE),
    )
    if nanogpt is not None:
        ratio = ours["tokens_per_second"] / nanogpt["tokens_per_second"]
        figure = f"{ratio:.2f} times its {nanogpt['tokens_per_second']:,.0f} tokens/s"
        peak = f", {nanogpt['gpu_peak_mb'] / 1024:.1f} GiB"
        yield Row("next to compiled nanoGPT", figure + peak, _target("> 1", ratio > 1))
    yield _profile(shape["name"], figures)


def _verse(figures: Figures) -> Iterator[Row]:
    for run in figures["seeds"]:
        seconds, whole = run["train_seconds"], f"{run['command_seconds']:.1f} s from command to end"
        reached = f"not reached, best loss {run['best_loss']:.4f}"
        if seconds is not None:
            reached = f"{seconds:.1f} s of training, {run['steps']} steps"
        is_met = seconds is not None and seconds <= TRAIN_SECONDS
        what = f"verse to loss {figures['loss']}, seed {run['seed']}"
        yield Row(what, f"{reached}; {whole}", _target(f"≤ {TRAIN_SECONDS:g} s", is_met))


def _verse_best(figures: Figures) -> Iterator[Row]:
    best = ", ".join(f"{run['best_loss']:.4f} (seed {run['seed']})" for run in figures["seeds"])
    yield Row(f"verse, {figures['seeds'][0]['steps']} steps", f"best validation loss {best}")
    yield _profile("verse", figures)


def _generation(figures: Figures) -> Iterator[Row]:
    for shape, batches in figures["shapes"].items():
        for batch, speeds in batches.items():
            ours, other = speeds["ours, float32"], speeds.get("transformers")
            figure, target = f"{ours:,.0f} tokens/s (`generate.py`, on the processor: {speeds['ours']:,.0f})", ""
            if other is not None:
                figure += f", {ours / other:.1f} times transformers' {other:,.0f}"
                target = _target(f"≥ {TIMES_TRANSFORMERS:g}", ours / other >= TIMES_TRANSFORMERS)
            yield Row(f"generation, {shape} size, batch {batch}", figure, target)


def _million_words(figures: Figures) -> Iterator[Row]:
    yield Row(
        "a million words, model=base",
        f"{figures['tokens_per_second']:,.0f} tokens/s; best validation loss {figures['best/val/loss']:.3f} in "
        f"{figures['seconds']:.0f} s of training, Kneser-Ney {figures['kneser_ney/val_loss']:.3f}",
    )


def _profile(name: str, figures: Figures) -> Row:
    return Row(f"a step's time, {name}", ", ".join(f"{each} {share}" for each, share in figures["operators"].items()))


ROWS: dict[str, Callable[[Figures], Iterator[Row]]] = {
    "startup": _startup,
    "smoke": _smoke,
    "tests": _tests,
    "gpt2": _gpt2,
    "verse": _verse,
    "verse_best": _verse_best,
    "generation": _generation,
    "million_words": _million_words,
}


def rows_of(name: str, parts: Figures) -> Iterator[Row]:
    """What a part has measured so far."""
    try:
        yield from ROWS[name](parts[name]["result"])
    except (LookupError, TypeError):  # the rest is not measured yet
        return


def table(parts: Figures) -> str:
    """For the terminal: every part, with its problem if it is not done."""
    lines = []
    for name in ROWS:
        lines += [f"  {what:36} {figure}{target and f'  [{target}]'}" for what, figure, target in rows_of(name, parts)]
        problem = parts.get(name, {"problem": "not started"})["problem"]
        if problem != DONE:
            lines.append(f"  {name:36} {problem}")
    return "\n".join(lines)


def section(path: Path) -> list[str]:
    """Paragraphs in Markdown; none where there is no such file."""
    if not path.is_file():
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| what | measured | target |", "| :-- | :-- | :-- |"]
    lines += [f"| {' | '.join(row)} |" for name in ROWS for row in rows_of(name, record["parts"])]
    return [HEADING, f"Made by `benchmarks/gpu.sh`. {described(record['machine'])}.", "\n".join(lines)]


def described(machine: Figures) -> str:
    """The machine, the versions and the day."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f"{machine['gpu']}, driver {machine['driver']}" if machine["gpu"] else "no GPU, in miniature"
    return f"{gpu}, {machine['cores']} cores; {versions}; {machine['date']}"


def write_section(page: Path, path: Path) -> None:
    """Replaces the section, which is the page's last, or adds it."""
    before = page.read_text(encoding="utf-8").partition(f"\n\n{HEADING}\n")[0].rstrip("\n")
    page.write_text("\n\n".join([before, *section(path)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_section(PROJECT / "docs" / "RESULTS.md", PROJECT / "docs" / "gpu.json")
