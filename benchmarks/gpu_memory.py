"""The memory of a GPU that is in use, as its driver tells it, whatever is running there."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SECONDS = 0.5  # between two samples


@dataclass
class Peak:
    """The largest sample so far."""

    mb: float | None = None  # None: there is no such GPU, or no sample

    def sample(self) -> None:
        """Asks the driver's own program about the first visible GPU; the memory of other programs is part of it."""
        device = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", f"--id={device}"]
        used = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        if used.isdecimal():
            self.mb = max(self.mb or 0.0, float(used))


@contextmanager
def sampled_peak() -> Iterator[Peak]:
    """Samples while the body runs."""
    peak, over = Peak(), threading.Event()

    def sample() -> None:
        while not over.wait(SECONDS):
            peak.sample()

    sampler = threading.Thread(target=sample, daemon=True)
    if shutil.which("nvidia-smi") is not None:
        sampler.start()
    try:
        yield peak
    finally:
        over.set()
        if sampler.ident is not None:
            sampler.join()
