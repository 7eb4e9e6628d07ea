"""What `auto` comes to: by the machine's rates and compiler, and by the length of the run."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.errors import refused
from omegaconf import OmegaConf

from hp_lightning.schema.train import TrainConfig, from_plain, to_plain
from hp_lightning.training import auto
from hp_lightning.training.auto import ResolvedConfig, resolve_auto

EPOCH = 100_000  # tokens
LONG, SHORT = "max_steps=10_000_000", "max_steps=10"
MakeConfig = Callable[..., TrainConfig]
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Resolves on a machine that is described: how fast, and what is missing for compiling."""

    def describe(float32: float = 1e11, bfloat16: float = 2e11, missing: str | None = None) -> None:
        rates = {torch.float32: float32, torch.bfloat16: bfloat16}
        monkeypatch.setattr(auto, "matrix_rate", lambda device, dtype, *_: rates[dtype])
        monkeypatch.setattr(auto, "missing_for_compile", lambda device: missing)

    describe()
    return describe


@pytest.fixture
def cfg(make_config: MakeConfig) -> Callable[..., TrainConfig]:
    """A small network's config whose vocabulary is known, on a processor."""

    def make(*overrides: str) -> TrainConfig:
        small = ("model.vocab_size=500", "model.d_model=32", "model.num_layers=2", "data.seq_len=32")
        return make_config(*small, "trainer.accelerator=cpu", *overrides)

    return make


def reason(resolved: ResolvedConfig, name: str) -> str:
    [line] = [line for line in resolved.reasons if line.startswith(name)]
    return line


def batch(resolved: ResolvedConfig) -> tuple[int | None, int]:
    return resolved.cfg.data.batch_size, resolved.cfg.trainer.accumulate_grad_batches


# Precision


@pytest.mark.parametrize(
    ("bfloat16", "precision"), [(3e11, "bf16-mixed"), (1e11, "32-true"), (1.1e11, "32-true"), (1e10, "32-true")]
)
def test_bfloat16_where_the_machine_gains_by_it(
    machine: Machine, cfg: MakeConfig, bfloat16: float, precision: str
) -> None:
    machine(float32=1e11, bfloat16=bfloat16)
    resolved = resolve_auto(cfg(), EPOCH)
    assert resolved.cfg.trainer.precision == precision
    assert f"{bfloat16 / 1e11:.1f} times as fast" in reason(resolved, "precision")


@pytest.mark.parametrize("bfloat16", [1e10, 1e12])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_precision_that_is_chosen_stays(machine: Machine, cfg: MakeConfig, precision: str, bfloat16: float) -> None:
    machine(bfloat16=bfloat16)
    resolved = resolve_auto(cfg(f"trainer.precision={precision}"), EPOCH)
    assert resolved.cfg.trainer.precision == precision
    assert "auto" not in reason(resolved, "precision")


@pytest.mark.parametrize(("precision", "rate"), [("32-true", 1e11), ("bf16-mixed", 4e11), ("bf16-true", 4e11)])
def test_utilisation_is_measured_by_the_precision_of_the_run(
    machine: Machine, cfg: MakeConfig, precision: str, rate: float
) -> None:
    machine(float32=1e11, bfloat16=4e11)
    assert resolve_auto(cfg(f"trainer.precision={precision}"), EPOCH).peak_flops == rate


# Compiling


def test_a_long_run_is_compiled_and_a_short_one_is_not(machine: Machine, cfg: MakeConfig) -> None:
    assert resolve_auto(cfg(LONG, "max_epochs=null"), EPOCH).cfg.trainer.compile is True
    assert resolve_auto(cfg(SHORT), EPOCH).cfg.trainer.compile is False
    # The first of two bounds ends a run, and an epoch has as many tokens as the corpus.
    assert resolve_auto(cfg(LONG, "max_epochs=1"), EPOCH).cfg.trainer.compile is False
    assert resolve_auto(cfg("max_epochs=1"), 10**12).cfg.trainer.compile is True
    # What is long on one machine is short on a faster one.
    machine(float32=1e18, bfloat16=2e18)
    resolved = resolve_auto(cfg(LONG, "max_epochs=null"), EPOCH)
    assert resolved.cfg.trainer.compile is False
    assert "compiling takes about half a minute" in reason(resolved, "compile")


def test_every_pass_of_a_step_is_work(machine: Machine, cfg: MakeConfig) -> None:
    """A step of 16 forward passes takes as long as 16 steps of one."""
    bounds = ("max_epochs=null", "data.batch_size=4", "data.batch_tokens=null")
    assert resolve_auto(cfg(*bounds, "max_steps=62_500"), EPOCH).cfg.trainer.compile is False
    by_steps = resolve_auto(cfg(*bounds, "max_steps=1_000_000"), EPOCH)
    by_passes = resolve_auto(cfg(*bounds, "max_steps=62_500", "trainer.accumulate_grad_batches=16"), EPOCH)
    assert by_passes.cfg.trainer.compile is True
    assert reason(by_passes, "compile") == reason(by_steps, "compile")


def test_in_float32_a_processor_gains_too_little_by_compiling(machine: Machine, cfg: MakeConfig) -> None:
    machine(float32=1e11, bfloat16=1e11)
    resolved = resolve_auto(cfg(LONG, "max_epochs=null"), EPOCH)
    assert resolved.cfg.trainer.compile is False
    assert "in float32 it gains too little" in reason(resolved, "compile")


def test_what_is_missing_for_compiling_is_named(machine: Machine, cfg: MakeConfig) -> None:
    machine(missing="a C++ compiler (g++)")
    resolved = resolve_auto(cfg(LONG, "max_epochs=null"), EPOCH)
    assert resolved.cfg.trainer.compile is False
    assert "a C++ compiler (g++) is not there" in reason(resolved, "compile")
    assert resolve_auto(cfg("trainer.compile=false"), EPOCH).cfg.trainer.compile is False
    with refused("machine.no_compiler", "trainer.compile=true ", "a C++ compiler (g++)"):
        resolve_auto(cfg("trainer.compile=true"), EPOCH)


@pytest.mark.parametrize("length", [LONG, SHORT])
@pytest.mark.parametrize("chosen", [True, False])
def test_compiling_that_is_chosen_stays(machine: Machine, cfg: MakeConfig, chosen: bool, length: str) -> None:
    resolved = resolve_auto(cfg(f"trainer.compile={chosen}", length, "max_epochs=null"), EPOCH)
    assert resolved.cfg.trainer.compile is chosen
    assert "auto" not in reason(resolved, "compile")


# Batches


def test_without_a_wish_a_batch_has_16_sequences(machine: Machine, cfg: MakeConfig) -> None:
    assert batch(resolve_auto(cfg(), EPOCH)) == (16, 1)
    assert batch(resolve_auto(cfg("data.batch_size=7", "trainer.accumulate_grad_batches=3"), EPOCH)) == (7, 3)


@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("sequences", [6, 48, 6 * 31])
def test_a_smaller_batch_size_means_more_passes_of_the_same_step(
    machine: Machine, cfg: MakeConfig, sequences: int, devices: int
) -> None:
    given = (f"data.batch_tokens={32 * sequences}", f"trainer.devices={devices}")
    found = []
    for most in ("null", 1000, 20, 7, 1):
        resolved = resolve_auto(cfg(*given, f"data.batch_size={most}"), EPOCH)
        size, accumulate = batch(resolved)
        assert size is not None
        assert size * accumulate == sequences
        assert size % devices == 0
        assert f"{size} sequences of 32 tokens" in reason(resolved, "batch")
        assert ("1 forward pass " in reason(resolved, "batch")) == (accumulate == 1)
        found.append(size)
    assert found == sorted(found, reverse=True)
    assert found[0] == sequences
    assert found[-1] == devices


def test_batch_size_bounds_a_pass(machine: Machine, cfg: MakeConfig) -> None:
    assert batch(resolve_auto(cfg("data.batch_tokens=1536", "data.batch_size=10"), EPOCH)) == (8, 6)
    assert batch(resolve_auto(cfg("data.batch_tokens=1536", "data.batch_size=48"), EPOCH)) == (48, 1)
    assert batch(resolve_auto(cfg("data.batch_tokens=1536", "data.batch_size=1000"), EPOCH)) == (48, 1)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("tokens", [1, 33, 99_999])
def test_no_whole_number_of_sequences_is_refused_with_one_that_is(
    machine: Machine, cfg: MakeConfig, tokens: int, devices: int
) -> None:
    with refused("data.indivisible_batch", f"data.batch_tokens={tokens} ") as refusal:
        resolve_auto(cfg(f"data.batch_tokens={tokens}", f"trainer.devices={devices}"), EPOCH)
    advised = int(re.findall(r"(\d+)$", str(refusal.value))[0])
    assert abs(advised - tokens) <= 32 * devices
    size, accumulate = batch(resolve_auto(cfg(f"data.batch_tokens={advised}", f"trainer.devices={devices}"), EPOCH))
    assert size is not None
    assert size * accumulate * 32 == advised


def test_devices_share_a_batch_equally(machine: Machine, cfg: MakeConfig) -> None:
    assert batch(resolve_auto(cfg("data.batch_size=6", "trainer.devices=2"), EPOCH)) == (6, 1)
    with refused("data.indivisible_batch", "data.batch_size=5 ", "trainer.devices=2:", "multiple of 2"):
        resolve_auto(cfg("data.batch_size=5", "trainer.devices=2"), EPOCH)
    with refused("data.indivisible_batch", "data.batch_size=16 ", "trainer.devices=3:"):
        resolve_auto(cfg("trainer.devices=3"), EPOCH)


def test_accumulation_is_worked_out_or_given(cfg: MakeConfig) -> None:
    with refused("config.conflict", "data.batch_tokens ", "trainer.accumulate_grad_batches "):
        cfg("data.batch_tokens=1536", "trainer.accumulate_grad_batches=2")


# What a resolved config is


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [LONG, "max_epochs=null"],
        ["data.batch_tokens=1536"],
        ["data.batch_tokens=1536", "data.batch_size=10"],
        ["data.batch_tokens=1536", "data.batch_size=10", "trainer.devices=2"],
        ["trainer.precision=bf16-true", "trainer.compile=true", "data.batch_size=3"],
    ],
)
def test_what_is_resolved_stays_on_any_machine(machine: Machine, cfg: MakeConfig, overrides: list[str]) -> None:
    """A run that goes on elsewhere computes as it did."""
    resolved = resolve_auto(cfg(*overrides), EPOCH).cfg
    assert "auto" not in (resolved.trainer.precision, resolved.trainer.compile)
    assert resolve_auto(resolved, EPOCH).cfg == resolved
    assert from_plain(to_plain(resolved)) == resolved
    for there in ({"bfloat16": 1e9}, {"bfloat16": 1e13}, {"float32": 1e18}):
        machine(**there)
        assert resolve_auto(from_plain(to_plain(resolved)), EPOCH).cfg == resolved


def test_nothing_else_of_a_config_is_touched(machine: Machine, cfg: MakeConfig) -> None:
    before = cfg("data.batch_tokens=1536")
    kept = to_plain(before)
    after = resolve_auto(before, EPOCH).cfg
    assert to_plain(before) == kept, "the config that was given is not written into"
    trainer = {"precision": "auto", "compile": "auto", "accumulate_grad_batches": 1}
    data: dict[str, Any] = {"batch_size": None}
    assert replace(after, trainer=replace(after.trainer, **trainer), data=replace(after.data, **data)) == before


def test_settling_draws_no_random_numbers(machine: Machine, cfg: MakeConfig) -> None:
    """Else the weights of a run would depend on how it was resolved."""
    torch.manual_seed(1)
    state = torch.get_rng_state()
    resolve_auto(cfg("data.batch_tokens=1536"), EPOCH)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_says_and_keeps_what_auto_came_to(run_script: Callable, first_book: Path, tmp_path: Path) -> None:
    settings = ["experiment=smoke", f"data.path={first_book}", "max_steps=3", "run_dir=run"]
    done = run_script("train.py", *settings, "data.batch_size=null", "data.batch_tokens=1024")
    assert done.returncode == 0, done.stderr
    kept = OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml")
    assert kept.trainer.precision in ("32-true", "bf16-mixed")
    assert kept.trainer.compile is False
    assert kept.data.batch_size * kept.trainer.accumulate_grad_batches == 16
    for told in (done.stdout, (tmp_path / "run" / "train.log").read_text()):
        assert re.search(r"machine +.*float32 .*FLOP/s, bfloat16 .*FLOP/s", told)
        assert re.search(rf"precision +{kept.trainer.precision} \(auto: bfloat16 is [\d.]+ times as fast", told)
        assert re.search(rf"batch +{kept.data.batch_size} sequences of 64 tokens, ", told)
        assert re.search(r"compile +off \(auto: ", told)
        assert re.search(r"length +3 steps of 1,024 tokens", told)
