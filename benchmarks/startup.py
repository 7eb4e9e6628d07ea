"""How long a person waits for the scripts to answer: python benchmarks/startup.py [--runs 3]

Whole processes, on a warm cache; the first of each kind, which fills it, does not count.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def seconds_until_done(*arguments: str) -> float:
    """Until the process has ended."""
    begin = time.monotonic()
    subprocess.run([sys.executable, *arguments], cwd=PROJECT, capture_output=True, check=False)
    return time.monotonic() - begin


def seconds_until_first_step() -> float:
    """Until the first training step of `make train`'s run stands in metrics.csv; then the run is ended."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "metrics.csv"
        command = [sys.executable, "train.py", "model=tiny", "logger.log_every_steps=1", f"run_dir={folder}"]
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


WAITS: dict[str, Callable[[], float]] = {
    "train.py --help": lambda: seconds_until_done("train.py", "--help"),
    "generate.py --help": lambda: seconds_until_done("generate.py", "--help"),
    "train.py with a refused value": lambda: seconds_until_done("train.py", "model.num_heads=3"),
    "train.py model=tiny to its first step": seconds_until_first_step,
}


def main() -> None:
    """Prints a line for each wait."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    for name, wait in WAITS.items():
        wait()
        seconds = [wait() for _ in range(runs)]
        print(f"{name:40} {statistics.median(seconds):5.1f} s   ({', '.join(f'{second:.1f}' for second in seconds)})")


if __name__ == "__main__":
    main()
