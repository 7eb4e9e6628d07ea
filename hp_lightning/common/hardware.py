"""What the machine can do: found out, not assumed."""

import importlib.util
import os
import shutil
import sysconfig
import time

import torch

from hp_lightning.common import torchrun
from hp_lightning.common.errors import InputError

# The best of the samples counts, since others may be using the machine; a slow number format has fewer.
MOST_SAMPLES, LEAST_SAMPLES, SECONDS = 20, 3, 0.4
SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices that are multiplied: some milliseconds of work


def check_devices(accelerator: str, devices: int) -> None:
    """Whether the machine has what the config wants, and torchrun has started as many processes.

    Raises:
        InputError: it has not
    """
    torchrun.check(devices)
    on_gpu = accelerator != "cpu" and torch.accelerator.is_available()
    if accelerator == "gpu" and not on_gpu:
        raise InputError(
            "machine.no_gpu",
            "trainer.accelerator=gpu, but there is no GPU that PyTorch can use: set trainer.accelerator=cpu",
        )
    there = torch.accelerator.device_count() if on_gpu else os.cpu_count() or 1
    if devices > there:
        raise InputError(
            "machine.too_few_devices",
            f"trainer.devices={devices}, but there are {there} {'GPUs' if on_gpu else 'processor cores'}: lower it",
        )


def device_of(accelerator: str) -> torch.device:
    """The first device that `trainer.accelerator` means."""
    if accelerator == "cpu" or not torch.accelerator.is_available():
        return torch.device("cpu")
    current = torch.accelerator.current_accelerator()
    assert current is not None
    return torch.device(current.type, 0)


def device_name(device: torch.device) -> str:
    """What a person calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} processor threads" if device.type == "cpu" else device.type


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int | None = None) -> float:
    """FLOP/s of a product of two square matrices, the best of several."""
    side = side or SIDE.get(device.type, 2048)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))  # equal numbers take less power
    seconds: list[float] = []
    while len(seconds) < LEAST_SAMPLES or (len(seconds) < MOST_SAMPLES and sum(seconds) < SECONDS):
        start = time.perf_counter()
        torch.mm(left, right)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def missing_for_compile(device: torch.device) -> str | None:
    """What `torch.compile` would need and the machine lacks; None where all is there."""
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"] if device.type == "cpu" else ["gcc", "clang", "cc"]
    if not any(map(shutil.which, filter(None, compilers))):
        return "a C++ compiler (g++)"
    if not os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")):
        return "Python's header files (the package python3-dev)"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton"
    return None
