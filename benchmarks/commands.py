"""How a person starts the project's commands; where that changes, it changes for the benchmarks here."""

import sys

from throughput_shapes import PROJECT

TRAIN = (sys.executable, str(PROJECT / "train.py"))
GENERATE = (sys.executable, str(PROJECT / "generate.py"))
SENTIMENT = (
    sys.executable,
    "-m",
    "hp_lightning",
    "sentiment",
)  # with the project installed, or its folder in PYTHONPATH
