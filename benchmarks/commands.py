"""How a person calls the project: the one place of the benchmarks to change when its command line does."""

import sys

from throughput_shapes import PROJECT

TRAIN = (sys.executable, str(PROJECT / "train.py"))
GENERATE = (sys.executable, str(PROJECT / "generate.py"))
