"""The table at the end of a run."""

import math
from typing import Any

from hp_lightning.common.console import clock, log, log_table
from hp_lightning.common.run_dir import RunDir


def show_summary(run_dir: RunDir, summary: dict[str, Any], sample: str, commands: dict[str, str]) -> None:
    """Print the metrics, a sample, and the commands for what can be done next, by purpose."""
    rows = []
    for metric, form in (("loss", ".4f"), ("perplexity", ",.2f"), ("bits_per_char", ".4f")):
        values = [summary.get(f"{split}/{metric}") for split in ("best/val", "val", "test")]
        rows.append([metric.replace("_", " "), *("" if value is None else format(value, form) for value in values)])
    rate = f"{summary['unk_rate']:.2%}"
    tested = "" if "test/unk_rate" not in summary else f"{summary['test/unk_rate']:.2%}"
    rows.append(["<UNK> rate", rate, rate, tested])
    rows.append(["unigram model's loss", f"{summary['unigram/val_loss']:.4f}", "", ""])
    baseline = summary["kneser_ney/val_loss"]
    if baseline is not None:
        rows.append(["Kneser-Ney model's loss", f"{baseline:.4f}", "", ""])
    log_table(["", "validation, best", "validation, last", "test"], rows, f"{run_dir}: {summary['status']}")
    if baseline is not None:
        log.info("%s", _compare_with_baseline(summary["best/val/loss"], baseline))
    log.info(
        "%s parameters, %s steps (best at %s), %s tokens seen, training time %s\n",
        f"{summary['parameters']:,}", f"{summary['steps']:,}", f"{summary['best/step']:,}",
        f"{summary['tokens_seen']:,}", clock(summary["seconds"]),
    )  # fmt: skip
    log.info("Sample:\n\n%s\n", sample)
    for purpose, command in commands.items():
        log.info("%-14s %s", purpose, command)


def _compare_with_baseline(loss: float, baseline: float) -> str:
    """Whether the network predicts better than counting n-grams does."""
    if loss < baseline:
        return f"Beats the 5-gram Kneser-Ney baseline: perplexity {1 - math.exp(loss - baseline):.0%} lower."
    return (
        "Does not beat the 5-gram Kneser-Ney baseline, whose loss on the same tokens is lower; "
        "train longer, or take a larger model"
    )
