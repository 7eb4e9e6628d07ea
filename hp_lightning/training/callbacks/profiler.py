"""Where the time of a step goes: a trace of some steps, and the operators that took the most of it."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

from hp_lightning.common.console import log

STEPS_BEFORE = 10  # optimizer steps, in which compiling and the first allocations fall
STEPS = 5
OPERATORS = 20


class Profile(L.Callback):
    """Leaves `trace.json.gz`, for https://ui.perfetto.dev or chrome://tracing, and `operators.txt` in a folder.

    A run that ends before these steps leaves nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._profile: profile | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes where this session begins."""
        self._first = trainer.global_step + STEPS_BEFORE

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begins."""
        if self._profile is None and self._first <= trainer.global_step < self._first + STEPS:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities)
            self._profile.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends."""
        if self._profile is not None and trainer.global_step >= self._first + STEPS:
            self._finish()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ends with the run, if that is sooner."""
        if trainer.global_step <= self._first:
            log.warning("no profile was made: it begins %s steps after the start of a run", STEPS_BEFORE)
        self._finish()

    def _finish(self) -> None:
        if self._profile is None:
            return
        self._profile.stop()
        self._folder.mkdir(exist_ok=True)
        self._profile.export_chrome_trace(str(self._folder / "trace.json.gz"))
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = self._profile.key_averages().table(sort_by=by, row_limit=OPERATORS, max_name_column_width=60)
        (self._folder / "operators.txt").write_text(table + "\n", encoding="utf-8")
        log.info("profile    %s", self._folder)
        self._profile, self._first = None, -STEPS
