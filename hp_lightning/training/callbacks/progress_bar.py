"""The live progress of a run."""

import time
from typing import Any

import lightning as L
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hp_lightning.common.console import clock, console, log
from hp_lightning.training.callbacks.metrics_csv import MetricsCSV

SECONDS_BETWEEN_MOVES = 0.1
SECONDS_BETWEEN_LINES = 60  # where there is no live display, a line at least so often


class ProgressDisplay(L.Callback):
    """A live bar in a terminal; a line after each validation, which is all that a log file gets to see."""

    def __init__(self, metrics_csv: MetricsCSV, total_steps: int) -> None:
        self._metrics_csv = metrics_csv
        self._total = total_steps
        self._live = console.is_terminal
        self._bar = Progress(
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._live,
            expand=True,
        )
        self._task = self._bar.add_task("train", total=total_steps, metrics="")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        self._first_step, self._start = trainer.global_step, time.monotonic()
        self._last_line = self._last_move = self._start
        self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, but no oftener than one can see: a small network takes a hundred steps per second."""
        now = time.monotonic()
        if self._live and now - self._last_move > SECONDS_BETWEEN_MOVES:
            self._last_move = now
            self._bar.update(self._task, completed=trainer.global_step, metrics=self._metrics("train/loss", "val/loss"))
        if not self._live and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._line(trainer.global_step, self._metrics("train/loss"))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print a line that stays."""
        self._bar.update(self._task, completed=trainer.global_step)
        keys = ("train/loss", "val/loss", "val/perplexity", "val/bits_per_char", "lr")
        self._line(trainer.global_step, self._metrics(*keys))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar."""
        self._bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self._bar.stop()

    def _line(self, step: int, metrics: str) -> None:
        self._last_line = time.monotonic()
        done = step - self._first_step
        left = f"  {clock((self._total - step) * (self._last_line - self._start) / done)} left" if done else ""
        log.info("step %*d/%d  %s%s", len(str(self._total)), step, self._total, metrics, left)

    def _metrics(self, *keys: str) -> str:
        latest = self._metrics_csv.latest
        shown = [f"{key} {_short(latest[key])}" for key in keys if key in latest]
        if "tokens_per_second" in latest:
            shown.append(f"{latest['tokens_per_second']:,.0f} tokens/s  mfu {latest['mfu']:.0%}")
        return "  ".join(shown)


def _short(value: float) -> str:
    return f"{value:.2e}" if 0 < abs(value) < 0.01 else f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
