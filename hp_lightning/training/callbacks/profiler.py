"""Where the time of a step goes: a trace of some passes, and the operators that took the most of it."""

from pathlib import Path
from typing import Any

import lightning as L
from torch.profiler import profile

from hp_lightning.common.console import log

PASSES_BEFORE = 10  # forward and backward passes, in which compiling and the first allocations fall
PASSES = 5
OPERATORS = 20


class StepProfiler(L.Callback):
    """Leaves `trace.json.gz`, for https://ui.perfetto.dev or chrome://tracing, and `operators.txt` in a folder.

    A run that ends before the first of these passes leaves nothing. Lightning's `PyTorchProfiler` counts the batches of
    a validation, too, and would write their trace over that of training.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._profile = profile()
        self._passes = 0  # of this session

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the trace."""
        if self._passes == PASSES_BEFORE:
            self._profile.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the trace, and write it."""
        self._passes += 1
        if self._passes == PASSES_BEFORE + PASSES:
            self._finish(trainer.strategy.root_device.type == "cuda")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the trace with the run, where that ends sooner."""
        if self._passes <= PASSES_BEFORE:
            log.warning("no profile was made: it starts after %s passes", PASSES_BEFORE)
        if PASSES_BEFORE < self._passes < PASSES_BEFORE + PASSES:
            self._finish(trainer.strategy.root_device.type == "cuda")

    def _finish(self, on_gpu: bool) -> None:
        self._profile.stop()
        self._folder.mkdir(exist_ok=True)
        self._profile.export_chrome_trace(str(self._folder / "trace.json.gz"))
        by = f"self_{'cuda' if on_gpu else 'cpu'}_time_total"
        table = self._profile.key_averages().table(sort_by=by, row_limit=OPERATORS, max_name_column_width=60)
        (self._folder / "operators.txt").write_text(table + "\n", encoding="utf-8")
        log.info("profile    %s", self._folder)
