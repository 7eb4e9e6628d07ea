"""How a person starts training and writing; where that changes, it changes for the benchmarks here."""

import sys

from throughput_shapes import PROJECT

TRAIN = (sys.executable, str(PROJECT / "train.py"))
GENERATE = (sys.executable, str(PROJECT / "generate.py"))
