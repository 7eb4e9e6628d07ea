"""How long a person waits for the scripts to answer: python benchmarks/startup.py [--runs 3]

Whole processes, on a warm cache; the first of each kind, which fills it, does not count.
"""

import argparse
import atexit
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from commands import GENERATE, TRAIN
from throughput_shapes import PROJECT


def seconds_until_done(*command: str) -> float:
    """Until the process has ended."""
    begin = time.monotonic()
    subprocess.run(command, cwd=PROJECT, capture_output=True, check=False)
    return time.monotonic() - begin


def seconds_until_first_step() -> float:
    """Until the first training step of `make train`'s run stands in metrics.csv; then the run is ended."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "metrics.csv"
        command = [*TRAIN, "model=tiny", "logger.log_every_steps=1", f"run_dir={folder}"]
        begin = time.monotonic()
        process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not metrics.exists() or metrics.read_text().count("\n") < 2:
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
            time.sleep(0.01)
        passed = time.monotonic() - begin
        process.kill()
        process.wait()
    return passed


def seconds_until_first_word() -> float:
    """Until generate.py has written something, with a network of step 11's size; then it is ended."""
    command = [*GENERATE, f"ckpt={_checkpoint_of_step_11()}", "prompt=The lantern", "seed=1"]
    begin = time.monotonic()
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if not process.stdout.read(len("The lantern") + 1):
            raise SystemExit(f"{' '.join(command)} ended with status {process.wait()}")
        passed = time.monotonic() - begin
        process.kill()
    return passed


@cache
def _checkpoint_of_step_11() -> str:
    """A run folder whose checkpoint, optimizer state included, is as large as any of `model=roadmap`."""
    folder = tempfile.TemporaryDirectory(prefix="startup_")
    atexit.register(folder.cleanup)
    settings = ["model=roadmap", "max_steps=1", "data.batch_size=4", f"run_dir={folder.name}"]
    subprocess.run([*TRAIN, *settings], cwd=PROJECT, stdout=subprocess.DEVNULL, check=True)
    return folder.name


WAITS: dict[str, Callable[[], float]] = {
    "train.py --help": lambda: seconds_until_done(*TRAIN, "--help"),
    "generate.py --help": lambda: seconds_until_done(*GENERATE, "--help"),
    "train.py with a refused value": lambda: seconds_until_done(*TRAIN, "model.num_heads=3"),
    "train.py model=tiny to its first step": seconds_until_first_step,
    "generate.py, step 11's network, to its first word": seconds_until_first_word,
}


def main() -> None:
    """Prints a line for each wait."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    for name, wait in WAITS.items():
        wait()
        seconds = [wait() for _ in range(runs)]
        print(f"{name:50} {statistics.median(seconds):5.1f} s   ({', '.join(f'{second:.1f}' for second in seconds)})")


if __name__ == "__main__":
    main()
