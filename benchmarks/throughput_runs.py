"""The runs of the benchmark of the speed: the contenders by turns, each in a process of its own."""

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from commands import TRAIN
from throughput_shapes import AUTOMATIC, PROJECT, Job, settings

NOT_COMPILED = "compiling failed"  # what hp_lightning says before it goes on without
POLL_SECONDS = 0.5  # between two looks at the memory of a GPU


@dataclass(frozen=True)
class Run:
    """What a run of a contender came to."""

    tokens_per_second: float
    ended: "Ended"
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
        return max(run.ended.peak_mb for run in self.runs[contender])

    def gpu_peak_mb(self, contender: str) -> float:
        """Of the run that took the most; 0 without a GPU."""
        return max(run.ended.gpu_peak_mb for run in self.runs[contender])

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
                    "profile": runs[-1].ended.profile,
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
    prepared, _ = _program("prepare", job)
    print(f"{job.shape.name}: {prepared['tokens']:,} tokens, {prepared['vocabulary']:,} different ones", flush=True)
    rounds = Rounds(job, prepared["flops_per_token"])
    for number in range(runs):
        rates, _ = _program("matrix", job)
        rounds.matrix_rates.append(max(rates.values()))
        shown = "  ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items())
        print(f"{job.shape.name} round {number + 1}/{runs}  matrix product  {shown}", flush=True)
        for contender in contenders if number % 2 == 0 else contenders[::-1]:
            run = _run(contender, job)
            rounds.runs.setdefault(contender, []).append(run)
            figures = f"{run.tokens_per_second:>11,.0f} tokens/s  {run.ended.peak_mb:>6,.0f} MB"
            print(f"{job.shape.name} round {number + 1}/{runs}  {contender:14}  {figures}", flush=True)
            report(rounds)
    rounds.runs = {contender: rounds.runs[contender] for contender in contenders}
    return rounds


@dataclass
class Ended:
    """A process that has come to its end."""

    output: str
    peak_mb: float
    gpu_peak_mb: float
    rows: list[dict[str, str]] = field(default_factory=list)  # of metrics.csv, where it was train.py
    profile: str = ""  # its table of operators, where the settings ask for one


def _run(contender: str, job: Job) -> Run:
    if contender == "ours":
        ended = train(job, {**AUTOMATIC, **(job.further or {})})
        tokens = job.every * job.shape.tokens_per_step
        seconds = [tokens / float(row["tokens_per_second"]) for row in ended.rows if row["tokens_per_second"]]
    else:
        result, ended = _program(contender, job)
        seconds = result["seconds"]
    steady = statistics.median(seconds[max(1, len(seconds) // 4) :])
    speed = job.every * job.shape.tokens_per_step / steady
    return Run(speed, ended, compile_seconds=seconds[0] - steady)


def train(job: Job, further: dict[str, str]) -> Ended:
    """Trains by train.py, as anybody would; takes what it has measured from its folder."""
    run_dir = Path(job.folder) / "run"
    overrides = {**settings(job), **further, "run_dir": str(run_dir)}
    ended = _process([*TRAIN, *(f"{key}={value}" for key, value in overrides.items())], job, "ours")
    with (run_dir / "metrics.csv").open(newline="") as file:
        ended.rows = list(csv.DictReader(file))
    if further.get("trainer.profile") == "true":
        ended.profile = (run_dir / "profile" / "operators.txt").read_text(encoding="utf-8")
    shutil.rmtree(run_dir)  # checkpoints are large
    return ended


def _program(name: str, job: Job) -> tuple[Any, Ended]:
    """A function of `throughput_contenders.py`, and its result."""
    script = str(PROJECT / "benchmarks" / "throughput_contenders.py")
    ended = _process([sys.executable, script, name, job.to_json()], job, name)
    return json.loads(ended.output.splitlines()[-1]), ended


def _process(command: list[str], job: Job, name: str) -> Ended:
    """Runs a program to its end, and looks at the GPU's memory until then."""
    # A cache of compiled code for each contender: the first run of each compiles, whoever is first.
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": f"{job.folder}/compiled_{name}",
        # transformers' Trainer would spread over all GPUs.
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0],
    }
    printed, complaints = Path(job.folder) / "stdout", Path(job.folder) / "stderr"
    gpu_peak_mb, ended = 0.0, 0
    with printed.open("w") as out, complaints.open("w") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=job.folder, env=environment)
        try:
            while not ended:
                gpu_peak_mb = max(gpu_peak_mb, _gpu_mb(environment["CUDA_VISIBLE_DEVICES"]))
                time.sleep(POLL_SECONDS)
                # Linux counts the memory of the process that starts another as the other's too; this one is small.
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
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
    return Ended(output, usage.ru_maxrss / unit, gpu_peak_mb)


def _gpu_mb(device: str) -> float:
    """What is in use of a GPU's memory, whatever is running there; 0 without a GPU."""
    if shutil.which("nvidia-smi") is None:
        return 0.0
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={device}"]
    used = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return float(used) if used.isdecimal() else 0.0


def _last_lines(path: Path) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-15:])
