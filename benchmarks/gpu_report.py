"""What gpu.py has measured, next to the targets: a table for the terminal, and a section of docs/RESULTS.md.

python benchmarks/gpu_report.py      # rewrites that section from docs/gpu.json
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gpu_record import DONE, NOT_STARTED
from json_files import read_json
from throughput_shapes import PROJECT

SHARE, TRAIN_SECONDS, TIMES_TRANSFORMERS = 0.5, 7.0, 3.0  # the targets
HEADING = "## On a GPU"
COMMAND = "benchmarks/gpu.sh"
OPERATORS = 5
Figures = dict[str, Any]


class Row(NamedTuple):
    """A line of the table."""

    what: str
    figure: str
    target: str = ""  # none for most
    is_met: bool = False

    @property
    def verdict(self) -> str:
        """The target, and whether it is met."""
        return self.target and f"{self.target}: {'met' if self.is_met else 'missed'}"


def _startup(figures: Figures) -> Iterator[Row]:
    seconds, imports = figures["help_seconds"], figures["imports_seconds"]
    yield Row("startup", f"`train.py --help` {seconds:.1f} s, `import lightning` {imports:.1f} s")


def _smoke(figures: Figures) -> Iterator[Row]:
    yield Row(
        "experiment=smoke",
        f"{figures['command_seconds']:.1f} s from command to end, {figures['train_seconds']:.1f} s of training; "
        f"precision {figures['precision']}; `generate.py` {figures['generate_seconds']:.1f} s",
    )


def _resume(figures: Figures) -> Iterator[Row]:
    difference = "identical to" if figures["equal"] else f"within {figures['largest_difference']:.1e} of"
    missing = f", {figures['missing']} missing" if figures["missing"] else ""
    yield Row(
        "killed and resumed",
        f"killed at step {figures['killed_at_step']}, resumed at {figures['resumed_at_step']}: losses {difference} "
        f"those of the uninterrupted run{missing}",
    )


def _tests(figures: Figures) -> Iterator[Row]:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in figures["counts"].items())
    failed = f" ({', '.join(figures['failed'])})" if figures["failed"] else ""
    yield Row("tests marked gpu", f"{counts} in {figures['seconds']:.0f} s{failed}")


def _gpt2(figures: Figures) -> Iterator[Row]:
    contenders, shape = figures["contenders"], figures["shape"]
    ours = contenders["ours"]
    yield Row(
        f"{shape['name']}, T {shape['seq_len']:,}, batch {shape['batch_size']}",
        f"{ours['tokens_per_second']:,.0f} tokens/s, {ours['share']:.1%} of the matrix product's rate "
        f"({figures['matrix_flops'] / 1e12:,.3g} TFLOP/s){_peak(ours)}",
        f"≥ {SHARE:.0%}",
        ours["share"] >= SHARE,
    )
    if "nanogpt" in contenders:
        other = contenders["nanogpt"]
        ratio = ours["tokens_per_second"] / other["tokens_per_second"]
        yield Row(
            "next to compiled nanoGPT",
            f"{ratio:.2f} times nanoGPT's {other['tokens_per_second']:,.0f} tokens/s{_peak(other)}",
            "> 1",
            ratio > 1,
        )


def _peak(contender: Figures) -> str:
    peak = contender["gpu_peak_mb"]
    return "" if peak is None else f", {peak / 1024:.1f} GiB"


def _verse(figures: Figures) -> Iterator[Row]:
    for run in figures["seeds"]:
        what = f"verse to loss {figures['loss']}, seed {run['seed']}"
        if run["train_seconds"] is None:
            yield Row(what, f"not reached, best loss {run['best_loss']:.4f}", f"≤ {TRAIN_SECONDS:g} s")
            continue
        command = "" if run["command_seconds"] is None else f", {run['command_seconds']:.1f} s from the command"
        yield Row(
            what,
            f"{run['train_seconds']:.1f} s of training, {run['steps']} steps{command}",
            f"≤ {TRAIN_SECONDS:g} s",
            run["train_seconds"] <= TRAIN_SECONDS,
        )


def _verse_best(figures: Figures) -> Iterator[Row]:
    runs = figures["seeds"]
    best = ", ".join(f"{run['best_loss']:.4f} (seed {run['seed']})" for run in runs)
    yield Row(f"verse, {runs[0]['steps']} steps", f"best validation loss {best}")


def _million_words(figures: Figures) -> Iterator[Row]:
    yield Row(
        f"model=base on {figures['corpus']}",
        f"{figures['tokens_per_second']:,.0f} tokens/s; best validation loss {figures['best/val/loss']:.3f} in "
        f"{figures['train_seconds']:.0f} s of training, Kneser-Ney {figures['kneser_ney/val_loss']:.3f}",
    )


def _generation(figures: Figures) -> Iterator[Row]:
    for shape, batches in figures["shapes"].items():
        for batch, speeds in batches.items():
            ours, other = speeds["ours, float32"], speeds.get("transformers")
            figure = f"{ours:,.0f} tokens/s (`generate.py`, on the processor: {speeds['ours']:,.0f})"
            what = f"generation, {shape} size, batch {batch}"
            if other is None:
                yield Row(what, figure)
                continue
            yield Row(
                what,
                f"{figure}, {ours / other:.1f} times transformers' {other:,.0f}",
                f"≥ {TIMES_TRANSFORMERS:g}",
                ours / other >= TIMES_TRANSFORMERS,
            )


def _operators(name: str) -> Callable[[Figures], Iterator[Row]]:
    def rows(figures: Figures) -> Iterator[Row]:
        table = figures["operators"][:OPERATORS]
        column = "Self CUDA %" if "Self CUDA %" in table[0] else "Self CPU %"
        yield Row(f"profile of a step, {name}", ", ".join(f"{row['Name']} {row[column]}" for row in table))

    return rows


ROWS: dict[str, Callable[[Figures], Iterator[Row]]] = {
    "startup": _startup,
    "smoke": _smoke,
    "resume": _resume,
    "tests": _tests,
    "gpt2": _gpt2,
    "verse": _verse,
    "verse_best": _verse_best,
    "million_words": _million_words,
    "generation": _generation,
    "profile_gpt2": _operators("GPT-2"),
    "profile_verse": _operators("verse"),
}


def rows_of(name: str, part: Figures) -> list[Row]:
    """What a part has measured so far."""
    try:
        return list(ROWS[name](part["result"]))
    except (LookupError, TypeError):  # not measured yet
        return []


def table(parts: dict[str, Figures]) -> str:
    """For the terminal: every part, with the reason if it is not done."""
    lines = []
    for name in ROWS:
        part = parts.get(name, {"status": NOT_STARTED, "reason": "", "result": {}})
        lines += [f"  {row.what:40} {row.figure}{row.verdict and f'  [{row.verdict}]'}" for row in rows_of(name, part)]
        if part["status"] != DONE:
            lines.append(f"  {name:40} {': '.join(filter(None, (part['status'], part['reason'])))}")
    return "\n".join(lines)


def section(path: Path) -> list[str]:
    """Paragraphs in Markdown; none where there is no such file."""
    if not path.is_file():
        return []
    record = read_json(path)
    rows = [row for name, part in record["parts"].items() for row in rows_of(name, part)]
    lines = ["| what | measured | target |", "| :-- | :-- | :-- |"]
    lines += [f"| {row.what} | {row.figure} | {row.verdict} |" for row in rows]
    return [HEADING, f"Made by `{COMMAND}`. {described(record['machine'])}.", "\n".join(lines)]


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
