"""How many jobs of a sweep run side by side, and what of the machine each of them gets."""

import os

import psutil

from hp_lightning.schema.sweep import SweepConfig
from hp_lightning.schema.trainer import TrainerConfig

THREADS = "OMP_NUM_THREADS"
GPUS = "CUDA_VISIBLE_DEVICES"
CORES_OF_A_JOB = 2  # benchmarks/LOG.md


def make_slots(cfg: SweepConfig, trainer: TrainerConfig, cores: int, gpus: list[str]) -> list[dict[str, str]]:
    """Environment variables for each of the jobs that may run at a time.

    GPUs are shared out; where there are none, the processor's cores: the threads of one job do not wait for
    those of another. A sweep that runs one job at a time leaves it the whole machine.

    Args:
        cfg: `cfg.jobs` may be `auto`
        trainer: what every job computes on
        cores: see `available_cores`
        gpus: see `available_gpus`
    """
    if gpus:
        groups = [gpus[first : first + trainer.devices] for first in range(0, len(gpus), trainer.devices)]
        whole = [group for group in groups if len(group) == trainer.devices] or [gpus]
        jobs = len(whole) if cfg.jobs == "auto" else cfg.jobs
        return [{GPUS: ",".join(whole[slot % len(whole)])} for slot in range(jobs)]
    jobs = max(cores // (CORES_OF_A_JOB * trainer.devices), 1) if cfg.jobs == "auto" else cfg.jobs
    if jobs == 1 or THREADS in os.environ:
        return [{}] * jobs
    return [{THREADS: str(max(cores // (jobs * trainer.devices), 1))}] * jobs


def available_gpus(trainer: TrainerConfig) -> list[str]:
    """The GPUs that a run may use, as CUDA_VISIBLE_DEVICES names them."""
    if trainer.accelerator == "cpu":
        return []
    import torch  # takes a second

    chosen = os.environ.get(GPUS)
    return chosen.split(",") if chosen else [str(number) for number in range(torch.cuda.device_count())]


def available_cores() -> int:
    """Processor cores that this process may use; two threads of one core are no two cores for a matrix product."""
    allowed = len(psutil.Process().cpu_affinity() or []) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count()
    return min(allowed or 1, psutil.cpu_count(logical=False) or 1)
