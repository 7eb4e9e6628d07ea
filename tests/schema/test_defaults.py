"""Defaults and bounds stand in the dataclasses alone; what is composed, printed or built takes them from there."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from helpers.errors import refused
from helpers.in_process import run_in_process
from helpers.processes import PROJECT

from hp_lightning.models.gpt import GPT
from hp_lightning.schema.checks import settings
from hp_lightning.schema.compose import SCHEMAS
from hp_lightning.schema.model import ModelConfig
from hp_lightning.schema.regularization import RegularizationConfig
from hp_lightning.schema.train import TrainConfig, from_plain, to_plain

GROUPS = {field: factory for field, factory in TrainConfig.__annotations__.items() if hasattr(factory, "__mro__")}
PRESETS = sorted(
    path for path in (PROJECT / "conf").glob("*/*.yaml") if path.parent.name in GROUPS and path.parent.name != "data"
)


def test_a_run_that_is_told_nothing_has_the_defaults(make_config: Callable[..., TrainConfig]) -> None:
    expected = TrainConfig()
    expected.data.path, expected.data.seq_len = "mine.csv", expected.model.max_seq_len
    assert make_config("data.path=mine.csv") == expected


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_a_preset_says_only_what_differs(preset: Path) -> None:
    said = yaml.safe_load(preset.read_text(encoding="utf-8")) or {}
    defaults = to_plain(TrainConfig())[preset.parent.name]
    assert [key for key, value in said.items() if defaults.get(key) == value] == []


def test_a_network_needs_no_config_file() -> None:
    net = GPT(ModelConfig(vocab_size=100), RegularizationConfig(dropout=0.2, attention_dropout=0.0))
    assert net(torch.zeros(2, 5, dtype=torch.long)).shape == (2, 5, 100)
    assert (net.embedding_dropout.rate, net.blocks[0].attention.dropout_rate) == (0.2, 0.0)


@pytest.mark.parametrize("command", SCHEMAS)
def test_help_says_what_every_key_means(command: str, tmp_path: Path) -> None:
    done = run_in_process(tmp_path, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for key, field in settings(SCHEMAS[command]):
        [line] = [line for line in lines if line.startswith(f"{key}=")]
        assert field.metadata["meaning"].split()[0] in line.partition("  ")[2], line


def test_help_shows_the_values_that_were_asked_for(tmp_path: Path) -> None:
    lines = run_in_process(tmp_path, "train", "--help", "model=small", "seed=7").stdout.splitlines()
    [line] = [line for line in lines if line.startswith("model.d_model=256 ")]
    assert line.endswith("features per token; must be at least 1")
    assert any(line.startswith("seed=7 ") for line in lines)
    assert "model: base, gpt2, roadmap, small, tiny" in lines


def test_what_an_older_version_saved_is_not_filled_up(make_config: Callable[..., TrainConfig]) -> None:
    """A run without a key was not trained with what is its default today."""
    plain = to_plain(make_config())
    del plain["model"]["qk_norm"]
    with pytest.raises(Exception, match="qk_norm"):
        from_plain(plain)


def test_every_value_out_of_its_bounds_is_named_as_typed(make_config: Callable[..., TrainConfig]) -> None:
    with refused("config.out_of_range", "optim.betas=[0.9,1.5] ", "logger.sample_tokens=-1 "):
        make_config("optim.betas=[0.9,1.5]", "logger.sample_tokens=-1")
