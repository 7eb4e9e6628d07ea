"""What a run came to: summary.json, and the table at its end."""

import json
import math
from pathlib import Path
from typing import Any

from rich.table import Table

from hp_lightning.common.console import clock, log
from hp_lightning.common.errors import RunError
from hp_lightning.common.messages import log_table

COMPLETE = ("completed", "stopped early")


def write_summary(run_dir: Path, summary: dict[str, Any]) -> None:
    """Writes summary.json: flat, one key a figure; what is no finite number is null.

    Raises:
        RunError: it cannot be written
    """
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in summary.items()
    }
    unfinished = run_dir / ".summary.json"
    try:
        unfinished.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(run_dir / "summary.json")
    except OSError as error:
        raise RunError(
            "run.not_writable",
            f"{run_dir}/summary.json cannot be written ({error.strerror}): make room, then finish by resume={run_dir}",
        ) from error


def show_summary(run_dir: Path, summary: dict[str, Any], sample: str, commands: dict[str, str]) -> None:
    """Prints what was reached, what the model writes, and the commands for what can be done next, by purpose."""
    table = Table(title=f"{run_dir}: {summary['status']}", title_justify="left", show_edge=False)
    table.add_column("")
    for part in ("validation, best", "validation, last", "test"):
        table.add_column(part, justify="right")
    for metric, form in (("loss", ".4f"), ("perplexity", ",.2f"), ("bits_per_char", ".4f")):
        values = [summary.get(f"{part}/{metric}") for part in ("best/val", "val", "test")]
        table.add_row(metric.replace("_", " "), *("" if value is None else format(value, form) for value in values))
    rate = f"{summary['unk_rate']:.2%}"
    table.add_row("<UNK> rate", rate, rate, "" if "test/unk_rate" not in summary else f"{summary['test/unk_rate']:.2%}")
    table.add_row("unigram model's loss", f"{summary['unigram/val_loss']:.4f}", "", "")
    counted = summary["kneser_ney/val_loss"]
    if counted is not None:
        table.add_row("Kneser-Ney model's loss", f"{counted:.4f}", "", "")
    log_table(table)
    if counted is not None:
        log.info("%s", _beside_counting(summary["best/val/loss"], counted))
    log.info(
        "%s parameters, %s steps (best at %s), %s tokens seen, %s of training\n",
        f"{summary['parameters']:,}", f"{summary['steps']:,}", f"{summary['best/step']:,}",
        f"{summary['tokens_seen']:,}", clock(summary["seconds"]),
    )  # fmt: skip
    log.info("It writes:\n\n%s\n", sample)
    for purpose, command in commands.items():
        log.info("%-14s %s", purpose, command)


def _beside_counting(loss: float, counted: float) -> str:
    """Whether the network is worth its training."""
    if loss < counted:
        return f"Better than counting: a perplexity {1 - math.exp(loss - counted):.0%} below the Kneser-Ney model's."
    return (
        "Not better than counting: the Kneser-Ney model of the same tokens has a lower loss; "
        "train longer, or take a larger model"
    )


def is_complete(run_dir: Path, step: int) -> bool:
    """Whether a run was trained, tested and reported to an end after so many steps."""
    summary = read_summary(run_dir)
    return summary.get("status") in COMPLETE and summary.get("steps") == step


def read_summary(run_dir: Path) -> dict[str, Any]:
    """What `write_summary` wrote; nothing where there is none that can be read."""
    try:
        summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def short_reason(summary: dict[str, Any]) -> str:
    """Why a run did not end well, without the advice."""
    return str(summary.get("reason")).partition("; ")[0]
