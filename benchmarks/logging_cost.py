"""What logging costs a run: the share of its time, from its first step to its last, that goes into it, by kind.

    python benchmarks/logging_cost.py                 # the defaults, on the bundled stories
    python benchmarks/logging_cost.py model=small

Arguments are settings of train.py. The bundled stories are the hard case: a run of two minutes, validated every few
seconds.
"""

import runpy
import sys
import tempfile
from pathlib import Path

from timing import timed_calls

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

Times = list[tuple[float, float]]


def main() -> None:
    """Trains with the clock running, and prints the figures."""
    from lightning.pytorch import Trainer

    from hp_lightning.training import board
    from hp_lightning.training.callbacks import metrics_csv, plots, samples

    begins = timed_calls(metrics_csv.MetricsCSV, "on_train_start")
    fits = timed_calls(Trainer, "fit")
    kinds = {
        "scalars and metrics.csv": [
            timed_calls(metrics_csv.MetricsCSV, "on_train_batch_end"),
            timed_calls(metrics_csv.MetricsCSV, "on_validation_end"),
        ],
        "text": [timed_calls(samples.LogSamples, "show")],
        "images": [timed_calls(plots.LogPlots, "show")],
        "flush to the disk": [timed_calls(metrics_csv.MetricsCSV, "on_save_checkpoint")],
    }
    ends = [timed_calls(board, "write_projector")]
    with tempfile.TemporaryDirectory(prefix="logging_cost_") as folder:
        sys.argv = [str(PROJECT / "train.py"), *sys.argv[1:], f"run_dir={folder}/run"]
        runpy.run_path(sys.argv[0], run_name="__main__")
    begin, end = begins[0][1], fits[0][1]
    whole = end - begin
    print(f"\nof {whole:.1f} s between the start of the first step and the end of the last validation:")
    total = 0.0
    for kind, lists in kinds.items():
        within = [stop - start for times in lists for start, stop in times if stop <= end]
        total += sum(within)
        print(f"{kind:26} {sum(within):6.2f} s in {len(within):5} calls  {sum(within) / whole:.2%}")
    print(f"{'together':26} {total:6.2f} s                 {total / whole:.2%}")
    after = [stop - start for times in (*kinds["text"], *kinds["images"], *ends) for start, stop in times if stop > end]
    print(f"and of the best checkpoint, at the end: {sum(after):.2f} s, {sum(after) / whole:.2%}")


if __name__ == "__main__":
    main()
