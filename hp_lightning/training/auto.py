"""What `auto` means on this machine: precision and compiling; and how an optimizer step is made up.

Each is settled before a run begins and stands in its config from then on, so that a resumed run computes as it did.
"""

import json
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
from hp_lightning.schema.data import DataConfig
from hp_lightning.schema.train import TrainConfig

BF16_GAIN = 1.3  # bfloat16 must be faster than float32 by so much
USUAL_BATCH = 16  # windows: smaller steps learn more from a token (benchmarks/LOG.md)
# Share of the matrix rate that an uncompiled run comes to, and the work, in seconds, that earns the compiling back
# (benchmarks/LOG.md).
EAGER_SHARE = 0.3
WORTH_COMPILING = 90


@dataclass(frozen=True)
class ResolvedConfig:
    """A config without `auto`, and what was found out on the way."""

    cfg: TrainConfig
    device: torch.device
    peak_flops: float  # FLOP/s of a matrix product in the precision of the run, over all devices
    reasons: list[str]  # a line for each choice


def resolve_auto(cfg: TrainConfig, train_tokens: int) -> ResolvedConfig:
    """Replaces every `auto` by what suits the machine and the length of the run.

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
    rate_line = ", ".join(f"{name} {_flops(rate)}" for name, rate in rates.items())
    reasons = [f"machine    {device_name(device)}; matrix products: {rate_line}"]
    cfg, reason = _precision(cfg, device, rates["bfloat16"] / rates["float32"])
    reasons.append(f"precision  {cfg.trainer.precision}{reason}")
    peak = rates["float32" if cfg.trainer.precision == "32-true" else "bfloat16"]
    if device.type != "cpu":  # processes on a processor share its cores
        peak *= cfg.trainer.devices
    cfg, line = _batch(cfg, train_tokens)
    reasons.append(f"batch      {line}")
    cfg, reason = _compile(cfg, device, _seconds_of_work(cfg, train_tokens, peak))
    reasons.append(f"compile    {'on' if cfg.trainer.compile else 'off'}{reason}")
    return ResolvedConfig(cfg, device, peak, reasons)


def _matrix_rates(device: torch.device) -> dict[str, float]:
    """FLOP/s by precision; in a sweep as its first job found them, so that no job is settled by when it was begun."""
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


def _precision(cfg: TrainConfig, device: torch.device, gain: float) -> tuple[TrainConfig, str]:
    if cfg.trainer.precision != "auto":
        return cfg, ""
    use_bf16 = gain >= BF16_GAIN and device.type in ("cpu", "cuda")
    cfg = replace(cfg, trainer=replace(cfg.trainer, precision="bf16-mixed" if use_bf16 else "32-true"))
    return cfg, f" (auto: bfloat16 is {gain:.1f} times as fast as float32 here)"


def _seconds_of_work(cfg: TrainConfig, train_tokens: int, peak: float) -> float:
    """About how long the run would train without being compiled."""
    assert cfg.data.batch_size is not None
    tokens_per_step = cfg.data.batch_size * cfg.data.seq_len * cfg.trainer.accumulate_grad_batches
    bounds = [
        float("inf") if cfg.max_steps is None else cfg.max_steps * tokens_per_step,
        float("inf") if cfg.max_epochs is None else cfg.max_epochs * train_tokens,
    ]
    with torch.device("meta"):
        flops_per_token = GPT(cfg.model).flops_per_token(cfg.data.seq_len)
    return min(bounds) * flops_per_token / (EAGER_SHARE * peak)


def _compile(cfg: TrainConfig, device: torch.device, work: float) -> tuple[TrainConfig, str]:
    """Compiling takes about half a minute the first time, and saves about a third of each step."""
    missing = missing_for_compile(device)
    if cfg.trainer.compile is True and missing is not None:
        raise InputError(
            "machine.no_compiler",
            f"trainer.compile=true needs {missing}, which is not there: install it, or set it to auto",
        )
    if cfg.trainer.compile != "auto":
        return cfg, ""
    if device.type not in ("cpu", "cuda"):
        missing = f"support for {device.type}"
    if device.type == "cpu" and cfg.trainer.precision == "32-true":
        cfg = replace(cfg, trainer=replace(cfg.trainer, compile=False))
        return cfg, " (auto: in float32 it gains too little on a processor)"
    chosen = missing is None and work >= WORTH_COMPILING
    cfg = replace(cfg, trainer=replace(cfg.trainer, compile=chosen))
    if missing is not None:
        return cfg, f" (auto: {missing} is not there; with it long runs take about a third less time)"
    time = "less than a minute" if work < 60 else f"about {clock(work)}"
    return cfg, f" (auto: the run would take {time} without it; compiling takes about half a minute, once)"


def _batch(cfg: TrainConfig, train_tokens: int) -> tuple[TrainConfig, str]:
    """Windows in a forward pass, and forward passes in an optimizer step."""
    data, trainer = cfg.data, cfg.trainer
    if data.batch_tokens is not None and data.batch_tokens > train_tokens:
        raise InputError(
            "data.batch_too_large",
            f"data.batch_tokens={data.batch_tokens} is more than the training split's {train_tokens} tokens: lower it",
        )
    if data.batch_tokens is None or data.batch_size_is_settled(trainer.accumulate_grad_batches):
        data = replace(data, batch_size=data.batch_size or USUAL_BATCH)
        accumulate, reason = trainer.accumulate_grad_batches, ""
    else:
        windows = _windows_per_step(data, trainer.devices)
        divisors = [size for size in range(trainer.devices, windows + 1, trainer.devices) if windows % size == 0]
        most = data.batch_size or windows
        data = replace(data, batch_size=max((size for size in divisors if size <= most), default=divisors[0]))
        assert data.batch_size is not None
        accumulate = windows // data.batch_size
        reason = f" (data.batch_tokens={data.batch_tokens})"
    assert data.batch_size is not None
    if data.batch_size % trainer.devices:
        raise InputError(
            "data.indivisible_batch",
            f"data.batch_size={data.batch_size} cannot be shared out over trainer.devices={trainer.devices}: "
            f"take a multiple of {trainer.devices}",
        )
    cfg = replace(cfg, data=data, trainer=replace(trainer, accumulate_grad_batches=accumulate))
    passes = "one forward pass" if accumulate == 1 else f"{accumulate} forward passes"
    return cfg, f"{data.batch_size} windows of {data.seq_len} tokens, {passes} an optimizer step{reason}"


def _windows_per_step(data: DataConfig, devices: int) -> int:
    assert data.batch_tokens is not None
    unit = data.seq_len * devices
    if data.batch_tokens % unit:
        nearest = max(round(data.batch_tokens / unit), 1) * unit
        over = f" on each of {devices} devices" if devices > 1 else ""
        raise InputError(
            "data.indivisible_batch",
            f"data.batch_tokens={data.batch_tokens} is no whole number of windows of data.seq_len={data.seq_len} "
            f"tokens{over}: take {nearest}",
        )
    return data.batch_tokens // data.seq_len


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.0f} GFLOP/s"
