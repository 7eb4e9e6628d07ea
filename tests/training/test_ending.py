"""What the summary of a run says of its end, by the error that ended it."""

from pathlib import Path

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from hp_lightning.common.errors import Interrupted, RunError
from hp_lightning.common.run_dir import RunDir
from hp_lightning.training.ending import classify


def _exit_after_ctrl_c() -> BaseException:
    """What Lightning raises where it has caught Ctrl-C itself."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        try:
            raise SystemExit(1)
        except SystemExit as error:
            return error


@pytest.mark.parametrize(
    ("error", "status", "reason", "exit_status"),
    [
        (KeyboardInterrupt(), "interrupted", "stopped by SIGINT", 130),
        (_exit_after_ctrl_c(), "interrupted", "stopped by SIGINT", 130),
        (SIGTERMException(), "interrupted", "stopped by SIGTERM", 143),
        (
            Interrupted("run.interrupted", "stopped by SIGHUP, saved", 1),
            "interrupted",
            "stopped by SIGHUP, saved",
            None,
        ),
        (RunError("run.diverged", "the loss is nan"), "failed", "the loss is nan", None),
        (SystemExit(1), "failed", "SystemExit: 1", None),
        (ZeroDivisionError("division by zero"), "failed", "ZeroDivisionError: division by zero", None),
    ],
)
def test_every_end_has_its_status_and_reason(
    error: BaseException, status: str, reason: str, exit_status: int | None
) -> None:
    ending = classify(error, RunDir(Path("outputs/runs/mine")))
    assert (ending.status, ending.reason) == (status, reason)
    assert (ending.interrupted and ending.interrupted.exit_status) == exit_status
    if ending.interrupted is not None:
        assert "resume=outputs/runs/mine" in str(ending.interrupted)
