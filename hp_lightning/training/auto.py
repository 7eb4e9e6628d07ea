"""What `auto` means on this machine: precision and compiling; and how an optimizer step is made up.

Each is chosen before a run starts and stands in its config from then on: a resumed run computes as it did.
"""

import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock

from hp_lightning.common.command_line import IN_SWEEP
from hp_lightning.common.console import clock
from hp_lightning.common.errors import InputError
from hp_lightning.common.files import atomic_write_text
from hp_lightning.common.hardware import device_name, device_of, matrix_rate, missing_for_compile
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.data import USUAL_BATCH
from hp_lightning.schema.train import TrainConfig

BF16_GAIN = 1.3  # bfloat16 must be faster than float32 by so much
# Share of the matrix rate that an uncompiled run reaches, and the work, in seconds, that makes up for compiling
# (benchmarks/LOG.md).
EAGER_SHARE = 0.3
WORTH_COMPILING = 90


@dataclass(frozen=True)
class ResolvedConfig:
    """A config without `auto`, and what was measured for it."""

    cfg: TrainConfig
    peak_flops: float  # FLOP/s of a matrix product in the precision of the run, over all devices
    reasons: list[str]  # a line for each choice


def resolve_auto(cfg: TrainConfig, train_tokens: int) -> ResolvedConfig:
    """Replace every `auto` by what suits the machine and the length of the run.

    Args:
        cfg: `cfg.model.vocab_size` is set
        train_tokens: in an epoch

    Raises:
        InputError: the batch cannot be made up as the config wants it
    """
    device = device_of(cfg.trainer.accelerator)
    try:
        rates = _matrix_rates(device)
    except torch.OutOfMemoryError as error:
        raise InputError(
            "machine.out_of_memory", f"the memory of {device_name(device)} is taken: end the programs that use it"
        ) from error
    precision, why_precision = _precision(cfg, device, rates["bfloat16"] / rates["float32"])
    peak = rates["float32" if precision == "32-true" else "bfloat16"]
    if device.type != "cpu":  # processes on a processor share its cores
        peak *= cfg.trainer.devices
    batch_size, accumulate = _batch(cfg, train_tokens)
    trainer = replace(cfg.trainer, precision=precision, accumulate_grad_batches=accumulate)
    cfg = replace(cfg, trainer=trainer, data=replace(cfg.data, batch_size=batch_size))
    compiles, why_compile = _compile(cfg, device, _seconds_of_work(cfg, train_tokens, peak))
    cfg = replace(cfg, trainer=replace(trainer, compile=compiles))
    passes = "1 forward pass" if accumulate == 1 else f"{accumulate} forward passes"
    measured = ", ".join(f"{name} {_flops(rate)}" for name, rate in rates.items())
    reasons = [
        f"machine    {device_name(device)}; matrix products: {measured}",
        f"precision  {precision}{why_precision}",
        f"batch      {batch_size} sequences of {cfg.data.seq_len} tokens, {passes} per optimizer step",
        f"compile    {'on' if compiles else 'off'}{why_compile}",
    ]
    return ResolvedConfig(cfg, peak, reasons)


def _matrix_rates(device: torch.device) -> dict[str, float]:
    """FLOP/s by precision; in a sweep as its first job measured them, for all its jobs must compute alike."""
    sweep_dir = os.environ.get(IN_SWEEP)
    if sweep_dir is None:
        return _measure(device)
    path = Path(sweep_dir) / f".{device_name(device)}.json".replace(" ", "_")
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            atomic_write_text(path, json.dumps(_measure(device)))
        known: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return known


def _measure(device: torch.device) -> dict[str, float]:
    return {"float32": matrix_rate(device, torch.float32), "bfloat16": matrix_rate(device, torch.bfloat16)}


def _precision(cfg: TrainConfig, device: torch.device, gain: float) -> tuple[str, str]:
    """The precision, and why."""
    if cfg.trainer.precision != "auto":
        return cfg.trainer.precision, ""
    use_bf16 = gain >= BF16_GAIN and device.type in ("cpu", "cuda")
    why = f" (auto: bfloat16 is {gain:.1f} times as fast as float32 here)"
    return "bf16-mixed" if use_bf16 else "32-true", why


def _batch(cfg: TrainConfig, train_tokens: int) -> tuple[int, int]:
    """Sequences in a forward pass, over all devices, and forward passes in an optimizer step."""
    data, devices, accumulate = cfg.data, cfg.trainer.devices, cfg.trainer.accumulate_grad_batches
    if data.batch_tokens is not None and data.batch_tokens > train_tokens:
        raise InputError(
            "data.batch_too_large",
            f"data.batch_tokens={data.batch_tokens} is more than the training split's {train_tokens} tokens: lower it",
        )
    if data.batch_tokens is None or data.batch_size_is_settled(accumulate):
        batch_size = data.batch_size or USUAL_BATCH
    else:
        sequences = _sequences_per_step(data.batch_tokens, data.seq_len, devices)
        sizes = [size for size in range(devices, sequences + 1, devices) if sequences % size == 0]
        batch_size = max((size for size in sizes if size <= (data.batch_size or sequences)), default=devices)
        accumulate = sequences // batch_size
    if batch_size % devices:
        raise InputError(
            "data.indivisible_batch",
            f"data.batch_size={batch_size} cannot be divided among trainer.devices={devices}: "
            f"use a multiple of {devices}",
        )
    return batch_size, accumulate


def _sequences_per_step(batch_tokens: int, seq_len: int, devices: int) -> int:
    unit = seq_len * devices
    if batch_tokens % unit:
        nearest = max(round(batch_tokens / unit), 1) * unit
        over = f" on each of {devices} devices" if devices > 1 else ""
        raise InputError(
            "data.indivisible_batch",
            f"data.batch_tokens={batch_tokens} must be a whole number of sequences of data.seq_len={seq_len} "
            f"tokens{over}: use {nearest}",
        )
    return batch_tokens // seq_len


def _seconds_of_work(cfg: TrainConfig, train_tokens: int, peak: float) -> float:
    """About how long the run would train without being compiled."""
    assert cfg.data.batch_size is not None
    tokens_per_step = cfg.data.batch_size * cfg.data.seq_len * cfg.trainer.accumulate_grad_batches
    by_steps = math.inf if cfg.max_steps is None else cfg.max_steps * tokens_per_step
    by_epochs = math.inf if cfg.max_epochs is None else cfg.max_epochs * train_tokens
    with torch.device("meta"):
        flops_per_token = GPT(cfg.model).flops_per_token(cfg.data.seq_len)
    return min(by_steps, by_epochs) * flops_per_token / (EAGER_SHARE * peak)


def _compile(cfg: TrainConfig, device: torch.device, work: float) -> tuple[bool, str]:
    """Whether to compile, and why: it takes about half a minute the first time, and saves about a third of a step."""
    missing = missing_for_compile(device)
    wanted = cfg.trainer.compile
    if wanted is True and missing is not None:
        raise InputError(
            "machine.no_compiler",
            f"trainer.compile=true needs {missing}, which is not there: install it, or use trainer.compile=auto",
        )
    if wanted != "auto":
        return bool(wanted), ""
    if device.type not in ("cpu", "cuda"):
        return False, f" (auto: PyTorch compiles little for {device.type})"
    if device.type == "cpu" and cfg.trainer.precision == "32-true":
        return False, " (auto: in float32 it gains too little on a processor)"
    if missing is not None:
        return False, f" (auto: {missing} is not there; with it long runs take about a third less time)"
    time = "less than a minute" if work < 60 else f"about {clock(work)}"
    why = f" (auto: the run would take {time} without it; compiling takes about half a minute, once)"
    return work >= WORTH_COMPILING, why


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.0f} GFLOP/s"
