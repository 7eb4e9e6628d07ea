"""What saving costs a run: the share of its time, from its first step to its last, that goes into checkpoints.

    python benchmarks/checkpoint_cost.py                            # model=small on the bundled stories, 8 epochs
    python benchmarks/checkpoint_cost.py model=base max_steps=100

Arguments are settings of train.py. The bundled stories are the hard case: so small a corpus is validated, and
therefore saved, every few seconds.
"""

import runpy
import statistics
import sys
import tempfile
from pathlib import Path

from timing import timed_calls

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

SETTINGS = ("model=small", "max_epochs=8")


def main() -> None:
    """Trains with the clock running, and prints the figures."""
    from lightning.pytorch import Trainer

    from hp_lightning.training.callbacks.resumable_checkpoint import ResumableCheckpoint

    saves = timed_calls(ResumableCheckpoint, "save")
    fits = timed_calls(Trainer, "fit")
    starts = timed_calls(ResumableCheckpoint, "on_train_start")
    with tempfile.TemporaryDirectory(prefix="checkpoint_cost_") as folder:
        sys.argv = [str(PROJECT / "train.py"), *(sys.argv[1:] or SETTINGS), f"run_dir={folder}/run"]
        runpy.run_path(sys.argv[0], run_name="__main__")
        size = (Path(folder) / "run" / "checkpoints" / "last.ckpt").stat().st_size
    whole = fits[0][1] - starts[0][1]
    spent = [end - begin for begin, end in saves]
    print(f"\n{len(spent)} checkpoints of {size / 1e6:.1f} MB, {1000 * statistics.median(spent):.0f} ms each (median)")
    print(f"{sum(spent):.2f} s of {whole:.1f} s: {sum(spent) / whole:.2%}")


if __name__ == "__main__":
    main()
