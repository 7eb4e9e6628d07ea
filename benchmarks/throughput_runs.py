"""The runs of the benchmark of the speed: the contenders by turns, each in a process of its own."""

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from commands import TRAIN
from gpu_memory import sampled_peak
from throughput_shapes import PROJECT, Job, settings

NOT_COMPILED = "compiling failed"  # what hp_lightning says before it goes on without


@dataclass(frozen=True)
class Run:
    """What a run of a contender came to."""

    tokens_per_second: float
    peak_mb: float
    gpu_peak_mb: float | None
    compile_seconds: float  # by how much the first look at the clock came late: compiling and warming up


@dataclass
class Rounds:
    """All runs of a shape."""

    job: Job
    flops_per_token: int
    matrix_rates: list[float] = field(default_factory=list)
    runs: dict[str, list[Run]] = field(default_factory=dict)

    def speed(self, contender: str) -> float:
        """Tokens a second."""
        return statistics.median(run.tokens_per_second for run in self.runs[contender])

    def peak_mb(self, contender: str) -> float:
        """Of the run that took the most."""
        return max(run.peak_mb for run in self.runs[contender])

    def gpu_peak_mb(self, contender: str) -> float | None:
        """Of the run that took the most; None without a GPU."""
        return max((run.gpu_peak_mb for run in self.runs[contender] if run.gpu_peak_mb is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """All figures so far, as plain values."""
        return {
            "shape": asdict(self.job.shape),
            "matrix_flops": self.matrix_rate,
            "flops_per_token": self.flops_per_token,
            "contenders": {
                contender: {
                    "tokens_per_second": round(self.speed(contender), 1),
                    "by_round": [round(run.tokens_per_second, 1) for run in runs],
                    "share": round(self.share(contender), 4),
                    "peak_mb": round(self.peak_mb(contender)),
                    "gpu_peak_mb": self.gpu_peak_mb(contender),
                    "compile_seconds": round(max(run.compile_seconds for run in runs), 1),
                }
                for contender, runs in self.runs.items()
            },
        }

    def flops(self, contender: str) -> float:
        """Model operations a second."""
        return self.speed(contender) * self.flops_per_token

    @property
    def matrix_rate(self) -> float:
        """Operations a second of a matrix product."""
        return statistics.median(self.matrix_rates)

    def share(self, contender: str) -> float:
        """Of the matrix product's rate."""
        return self.flops(contender) / self.matrix_rate


def measure(job: Job, contenders: list[str], runs: int, report: Callable[[Rounds], None]) -> Rounds:
    """The contenders by turns; `report` is called after each run, so that nothing is lost where one fails."""
    prepared = _program("prepare", job).result
    print(f"{job.shape.name}: {prepared['tokens']:,} tokens, {prepared['vocabulary']:,} different ones", flush=True)
    rounds = Rounds(job, prepared["flops_per_token"])
    for number in range(runs):
        rates = _program("matrix", job).result
        rounds.matrix_rates.append(max(rates.values()))
        shown = "  ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items())
        print(f"{job.shape.name} round {number + 1}/{runs}  matrix product  {shown}", flush=True)
        for contender in contenders if number % 2 == 0 else contenders[::-1]:
            run = _run(contender, job)
            rounds.runs.setdefault(contender, []).append(run)
            figures = f"{run.tokens_per_second:>11,.0f} tokens/s  {run.peak_mb:>6,.0f} MB"
            print(f"{job.shape.name} round {number + 1}/{runs}  {contender:14}  {figures}", flush=True)
            report(rounds)
    rounds.runs = {contender: rounds.runs[contender] for contender in contenders}
    return rounds


@dataclass(frozen=True)
class Ended:
    """A process that has come to its end."""

    result: Any  # of what it printed, or left in its folder
    peak_mb: float
    gpu_peak_mb: float | None


def _run(contender: str, job: Job) -> Run:
    if contender == "ours":
        ended = train(job, job.precision)
        tokens = job.every * job.shape.tokens_per_step
        seconds = [tokens / float(row["tokens_per_second"]) for row in ended.result if row["tokens_per_second"]]
    else:
        ended = _program(contender, job)
        seconds = ended.result["seconds"]
    steady = statistics.median(seconds[max(1, len(seconds) // 4) :])
    speed = job.every * job.shape.tokens_per_step / steady
    return Run(speed, ended.peak_mb, ended.gpu_peak_mb, compile_seconds=seconds[0] - steady)


def train(job: Job, further: dict[str, str], operators: Path | None = None) -> Ended:
    """Trains by train.py, as anybody would; the result is the rows of metrics.csv.

    Args:
        further: settings besides the job's
        operators: where the profile's table goes, if the settings ask for one
    """
    run_dir = Path(job.folder) / "run"
    shutil.rmtree(run_dir, ignore_errors=True)  # of one that was cut short
    overrides = {**settings(job), **further, "run_dir": str(run_dir)}
    _, ended = _process([*TRAIN, *(f"{key}={value}" for key, value in overrides.items())], job, "ours")
    with (run_dir / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if operators is not None:
        shutil.copyfile(run_dir / "profile" / "operators.txt", operators)
    shutil.rmtree(run_dir)  # checkpoints are large
    return replace(ended, result=rows)


def _program(name: str, job: Job) -> Ended:
    """A function of `throughput_contenders.py`."""
    script = str(PROJECT / "benchmarks" / "throughput_contenders.py")
    output, ended = _process([sys.executable, script, name, job.to_json()], job, name)
    return replace(ended, result=json.loads(output.splitlines()[-1]))


def _process(command: list[str], job: Job, name: str) -> tuple[str, Ended]:
    """Runs a program to its end; gives what it printed, and its peak memory in MB."""
    # A cache of compiled code for each contender: the first run of each compiles, whoever is first.
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": f"{job.folder}/compiled_{name}",
        # transformers' Trainer would spread over all GPUs.
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
    }
    printed, complaints = Path(job.folder) / "stdout", Path(job.folder) / "stderr"
    with printed.open("w") as out, complaints.open("w") as err, sampled_peak() as gpu_peak:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=job.folder, env=environment)
        try:
            # Linux counts the memory of the process that starts another as the other's too; this one is small.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode:
        raise SystemExit(f"{name} failed with status {process.returncode}:\n{_last_lines(complaints)}")
    output = printed.read_text(errors="replace")
    for line in (output + complaints.read_text(errors="replace")).splitlines():
        if NOT_COMPILED in line:  # its speed would not be its own
            raise SystemExit(f"{name}: {line}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return output, Ended(None, usage.ru_maxrss / unit, gpu_peak.mb)


def _last_lines(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-15:])
