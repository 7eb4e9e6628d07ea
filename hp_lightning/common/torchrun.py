"""The processes that torchrun(1) starts: the first has the run and speaks, the others train along."""

import functools
import os
import signal
import sys
import time
from typing import Any

from hp_lightning.common.errors import InputError

RUN, ARRIVED = "run", "arrived"  # keys in the store that torchrun keeps for its processes
SECONDS_BETWEEN_LOOKS = 0.05


def is_used() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def check(devices: int) -> None:
    """Whether it has started a process for each device, on one machine, if processes were started at all.

    Raises:
        InputError: it has not, or another program has
    """
    fits = is_used() and os.environ["WORLD_SIZE"] == os.environ["LOCAL_WORLD_SIZE"] == str(devices)
    if not fits and (is_used() or (devices > 1 and "LOCAL_RANK" in os.environ)):
        raise InputError(
            "machine.several_processes",
            f"trainer.devices={devices} takes as many processes on one machine, and "
            f"{os.environ.get('WORLD_SIZE', 'others')} were started: give torchrun the same --nproc_per_node, or start "
            "the run alone",
        )


def tell(known: str) -> None:
    """Tell the others what the first process knows of the run: nothing, where there is none to train."""
    if is_used():
        _store().set(RUN, known)


def hear() -> str:
    """What the first process tells, however long it takes.

    Where that is refused, it says so, and torchrun ends the others by a signal, on which they leave as it did.
    """
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: sys.exit(InputError.exit_status)) for number in signals]
    _store().add(ARRIVED, 1)
    while not _store().check([RUN]):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    for number, handler in zip(signals, before, strict=True):
        signal.signal(number, handler)
    return str(_store().get(RUN), "utf-8")


def await_others() -> None:
    """Before the first process ends with a refusal: until the others know how to leave."""
    while is_used() and _store().add(ARRIVED, 0) < int(os.environ["WORLD_SIZE"]) - 1:
        time.sleep(SECONDS_BETWEEN_LOOKS)


@functools.cache
def _store() -> Any:
    from torch.distributed.distributed_c10d import PrefixStore  # torch takes a second
    from torch.distributed.rendezvous import rendezvous

    return PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], next(rendezvous("env://"))[0])
