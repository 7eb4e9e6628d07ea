"""How fast, and in how much memory, train.py trains, beside others that train the same network on the same data.

    python benchmarks/throughput.py --nanogpt ../nanoGPT                # the shapes char, word and roadmap, by turns
    python benchmarks/throughput.py --shapes gpt2 --json speeds.json    # 124M parameters, for a GPU
    python benchmarks/throughput.py --scaling --runs 1                  # ours over widths and lengths
    python benchmarks/throughput.py --losses                            # does speed cost anything? float32 beside it

The contenders: `ours` is train.py as anybody starts it, with logging, clipping and callbacks; `plain_loop` our network
in a loop of PyTorch alone; `transformers` its GPT-2 in its Trainer (pip install -e '.[bench]'); `nanogpt` a checkout
of nanoGPT. Each runs in a process of its own, one after the other, in the other order in every second round. A speed is
the median over the steps of a run without its first quarter, which compiles and warms up, and then over the rounds.
Validation, reading and saving are not in it. The share is that of a product of 2048 x 2048 matrices (on a GPU 8192),
measured before each round, in the number format in which it is faster. Memory is the process's largest resident set:
validation, saving and imports are in it. A GPU's memory is what its driver says is in use, every half second. `--ours
trainer.profile=true` puts the operators that a step spends its time in into the JSON.
"""

import argparse
import importlib.util
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from json_files import write_json
from rich.console import Console
from rich.table import Table
from throughput_runs import Rounds, measure, train
from throughput_shapes import (
    AUTOMATIC,
    FLOAT32,
    LENGTH_SHAPES,
    SCALED_TOKENS,
    SHAPES,
    WIDTH_SHAPES,
    Job,
    Shape,
    write_corpus,
)

CONTENDERS = ("ours", "plain_loop", "transformers", "nanogpt")
MEMORY_BOUND = 1.2  # of ours to plain_loop's
LOSS_BOUND, LAST_LOSSES = 0.01, 50
MODEL_COLUMNS = ("model GFLOP/s", "of the product", "peak MB", "GPU MB")
CONSOLE = Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def main() -> int:
    """Makes the text, runs what was asked for and prints the tables; the status tells whether the losses are right."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the contender and the folder along
    shapes: dict[str, Any] = {}

    def report(rounds: Rounds) -> None:
        shapes[rounds.job.shape.name] = rounds.to_json()
        if arguments.json is not None:
            write_json(arguments.json, shapes)

    with tempfile.TemporaryDirectory(prefix="throughput_") as folder:
        jobs = [_job(shape, arguments, Path(folder)) for shape in arguments.shapes]
        if arguments.losses:
            return _compare_losses(jobs)
        measured = [measure(job, arguments.only, arguments.runs, report) for job in jobs]
    if arguments.scaling:
        _show_scaling({rounds.job.shape.name: rounds for rounds in measured})
    else:
        for rounds in measured:
            _show(rounds)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=_names(SHAPES), help=f"of {', '.join(SHAPES)}; the first three by default")
    parser.add_argument("--only", type=_names(CONTENDERS), help=f"of {', '.join(CONTENDERS)}; all by default")
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a checkout of github.com/karpathy/nanoGPT")
    parser.add_argument("--runs", type=_at_least(1), default=3, metavar="N", help="rounds, 3 by default")
    parser.add_argument("--steps", type=_at_least(4), metavar="N", help="of each run; has a default for each shape")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a CSV of your own in place of the made-up text")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go, after every run")
    parser.add_argument("--ours", nargs="+", default=[], metavar="KEY=VALUE", help="further settings of ours alone")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--scaling", action="store_true", help="ours over d_model and T")
    modes.add_argument(
        "--losses", type=_at_least(4), nargs="?", const=300, metavar="STEPS",
        help="ours with the automatic settings and in float32, uncompiled: are the losses within 1 %%? 300 steps "
        "unless said otherwise; char and word unless --shapes says otherwise",
    )  # fmt: skip
    arguments = parser.parse_args()
    problem = next(_problems(arguments), None)
    if problem is not None:
        parser.error(problem)
    _complete(arguments)
    return arguments


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = list(dict.fromkeys(text.split(",")))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def _at_least(bound: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < bound:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {bound}")
        return int(text)

    return parse


def _problems(arguments: argparse.Namespace) -> Iterator[str]:
    """What argparse cannot see."""
    contenders = arguments.only or CONTENDERS
    if arguments.nanogpt is None and "nanogpt" in (arguments.only or ()):
        yield "nanogpt needs a checkout: --nanogpt DIR"
    if arguments.nanogpt is not None and not (arguments.nanogpt / "model.py").is_file():
        yield f"--nanogpt {arguments.nanogpt} holds no model.py"
    if arguments.csv is not None and not arguments.csv.is_file():
        yield f"--csv {arguments.csv} is no file"
    if arguments.json is not None and not arguments.json.parent.is_dir():
        yield f"--json {arguments.json}: there is no such folder"
    if arguments.scaling and (arguments.shapes or arguments.only):
        yield "--scaling has shapes of its own, and ours alone"
    if arguments.losses and (arguments.only or arguments.json or arguments.steps):
        yield "--losses goes with --shapes and --csv alone"
    missing = [name for name in ("transformers", "accelerate") if importlib.util.find_spec(name) is None]
    if missing and "transformers" in contenders and not arguments.scaling and not arguments.losses:
        yield f"{' and '.join(missing)} missing: pip install -e '.[bench]', or --only ours,plain_loop"


def _complete(arguments: argparse.Namespace) -> None:
    """Puts shapes in the place of their names, and what depends on other arguments in the place of nothing."""
    if arguments.scaling:
        arguments.shapes, arguments.only = list(dict.fromkeys(WIDTH_SHAPES + LENGTH_SHAPES)), ["ours"]
        return
    names = arguments.shapes or (["char", "word"] if arguments.losses else ["char", "word", "roadmap"])
    arguments.shapes = [SHAPES[name] for name in names]
    arguments.only = arguments.only or [name for name in CONTENDERS if name != "nanogpt" or arguments.nanogpt]


def _job(shape: Shape, arguments: argparse.Namespace, folder: Path) -> Job:
    """The shape with its text, which it shares with others of the same kind."""
    alike = [other for other in arguments.shapes if other.tokenizer == shape.tokenizer]
    steps = {other: arguments.losses or arguments.steps or other.steps for other in alike}
    corpus = arguments.csv and arguments.csv.resolve()
    if corpus is None:
        corpus = folder / f"{shape.tokenizer}.csv"
        if not corpus.exists():
            write_corpus(corpus, shape.tokenizer, max(steps[other] * other.tokens_per_step for other in alike))
    nanogpt = arguments.nanogpt and str(arguments.nanogpt.resolve())
    return Job(
        shape, str(corpus), str(folder), steps[shape], nanogpt, dict(each.split("=", 1) for each in arguments.ours)
    )


def _show(rounds: Rounds) -> None:
    """The table of a shape."""
    against_ours = "ours" in rounds.runs
    title = f"\n{_described(rounds)}"
    table = _table(title, "contender", "tokens/s", "from", "to", "ours is", *MODEL_COLUMNS, "compiling")
    for name, runs in rounds.runs.items():
        speeds = [run.tokens_per_second for run in runs]
        ratio = f"{rounds.speed('ours') / rounds.speed(name):.2f} x" if against_ours else ""
        figures = (f"{figure:,.0f}" for figure in (rounds.speed(name), min(speeds), max(speeds)))
        compiling = f"{max(run.compile_seconds for run in runs):.1f} s"
        table.add_row(name, *figures, ratio, *_model_figures(rounds, name), compiling)
    CONSOLE.print(table)
    if against_ours and "plain_loop" in rounds.runs:
        ratio_of_peaks = rounds.peak_mb("ours") / rounds.peak_mb("plain_loop")
        CONSOLE.print(f"ours has {ratio_of_peaks:.2f} times plain_loop's peak memory; at most {MEMORY_BOUND} is wanted")


def _table(title: str, *columns: str) -> Table:
    """A table with words in its first column and figures in the others."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _model_figures(rounds: Rounds, contender: str) -> tuple[str, ...]:
    return (
        f"{rounds.flops(contender) / 1e9:,.0f}",
        f"{rounds.share(contender):.1%}",
        f"{rounds.peak_mb(contender):,.0f}",
        f"{rounds.gpu_peak_mb(contender):,.0f}",
    )


def _described(rounds: Rounds) -> str:
    shape, mega, giga = rounds.job.shape, rounds.flops_per_token / 1e6, rounds.matrix_rate / 1e9
    return (
        f"{shape.name}: vocabulary {shape.vocab_size:,}, {shape.num_layers} layers, {shape.num_heads} heads, "
        f"d {shape.d_model}, T {shape.seq_len}, B {shape.batch_size}, dropout {shape.dropout}\n"
        f"{rounds.job.steps} steps; {mega:.1f} MFLOP a token; matrix product {giga:,.0f} GFLOP/s"
    )


def _show_scaling(measured: dict[str, Rounds]) -> None:
    """Two tables: one size moves, the other stays."""
    for moving, shapes in (("d", WIDTH_SHAPES), ("T", LENGTH_SHAPES)):
        title = f"\nours over {moving}: 4 layers, {SCALED_TOKENS:,} tokens a batch"
        table = _table(title, "d", "heads", "T", "B", "tokens/s", *MODEL_COLUMNS)
        for shape in shapes:
            rounds = measured[shape.name]
            sizes = map(str, (shape.d_model, shape.num_heads, shape.seq_len, shape.batch_size))
            table.add_row(*sizes, f"{rounds.speed('ours'):,.0f}", *_model_figures(rounds, "ours"))
        CONSOLE.print(table)


def _compare_losses(jobs: list[Job]) -> int:
    """Trains each shape with the automatic settings and in float32; status 1 where the losses differ."""
    title = f"\nlosses after {jobs[0].steps} steps, in nats per token"
    table = _table(title, "loss", "float32", "automatic", "differs by", f"within {LOSS_BOUND:.0%}")
    right = True
    for job in jobs:
        wanted, got = _losses(job, FLOAT32), _losses(job, AUTOMATIC)
        for name in wanted:
            difference = got[name] / wanted[name] - 1
            within = abs(difference) <= LOSS_BOUND
            right = right and within
            figures = (f"{wanted[name]:.4f}", f"{got[name]:.4f}", f"{difference:+.2%}")
            table.add_row(f"{job.shape.name}, {name}", *figures, "yes" if within else "NO")
    CONSOLE.print(table)
    return 0 if right else 1


def _losses(job: Job, precision: dict[str, str]) -> dict[str, float]:
    """What a run ends with."""
    rows = train(job, {**precision, "logger.log_every_steps": "1"}).rows
    of_training = [float(row["train/loss"]) for row in rows if row["train/loss"]][-LAST_LOSSES:]
    of_validation = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    losses = {
        "validation": of_validation[-1],
        f"training, mean of the last {len(of_training)}": statistics.fmean(of_training),
    }
    print(job.shape.name, precision, losses, flush=True)
    return losses


if __name__ == "__main__":
    sys.exit(main())
