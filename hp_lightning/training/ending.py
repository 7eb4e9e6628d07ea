"""How a run ended: what its summary says of it, and what leaves the program."""

import signal
from dataclasses import dataclass

from lightning.pytorch.utilities.exceptions import SIGTERMException

from hp_lightning.common.command_line import own_command
from hp_lightning.common.errors import Interrupted, RunError
from hp_lightning.common.errors import reason as reason_of
from hp_lightning.common.run_dir import RunDir


@dataclass(frozen=True)
class Ending:
    """The end of a run that did not reach its last step.

    Args:
        status: `interrupted` or `failed`
        reason: one line
        interrupted: raised instead of the error where that says nothing to a person
    """

    status: str
    reason: str
    interrupted: Interrupted | None = None


def classify(error: BaseException, run_dir: RunDir) -> Ending:
    """Say how a run ended, by the error that ended it.

    A signal comes as `Interrupted` where `GracefulShutdown` has saved; as Python's or Lightning's own error where it
    ends the run at once, or comes before or after training.
    """
    signal_number = _signal_at_once(error)
    if signal_number is not None:
        reason = f"stopped by {signal_number.name}"
        advice = f"resume from the last checkpoint with: {own_command('train', f'resume={run_dir}')}"
        interrupted = Interrupted("run.interrupted_at_once", f"{reason}; {advice}", signal_number)
        return Ending("interrupted", reason, interrupted)
    if isinstance(error, RunError):
        return Ending("interrupted" if isinstance(error, Interrupted) else "failed", str(error))
    return Ending("failed", f"{type(error).__name__}: {reason_of(error)}")


def _signal_at_once(error: BaseException) -> signal.Signals | None:
    # Lightning turns a Ctrl-C that comes while no handler of ours is set into sys.exit(1).
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        return signal.SIGINT
    return signal.SIGTERM if isinstance(error, SIGTERMException) else None
