"""Every config composes, says what it should, and builds the network that it describes."""

from collections.abc import Callable

import pytest
import torch
from helpers.errors import refused
from helpers.processes import PROJECT

from hp_lightning.models.gpt import GPT
from hp_lightning.schema.train import TrainConfig, from_plain, to_plain

MakeConfig = Callable[..., TrainConfig]

CHOICES = [
    f"{folder.name}={file.stem}"
    for folder in sorted((PROJECT / "conf").iterdir())
    if folder.is_dir()
    for file in sorted(folder.glob("*.yaml"))
]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_builds(choice: str, make_config: MakeConfig) -> None:
    allowed = ["regularization=light"] if choice == "optim=adam" else []  # the default's decay is refused, see below
    cfg = make_config(choice, "data.path=books.csv", "model.vocab_size=10000", *allowed)
    with torch.device("meta"):
        net = GPT(cfg.model, cfg.regularization)
    assert net.token_embedding.weight.shape == (10000, cfg.model.d_model)
    assert from_plain(to_plain(cfg)) == cfg


def test_roadmap_is_trained_as_in_step_13(make_config: MakeConfig) -> None:
    cfg = make_config("experiment=roadmap")
    assert (cfg.tokenizer.kind, cfg.tokenizer.vocab_size) == ("word", 10_000)
    assert (cfg.optim.name, cfg.regularization.weight_decay) == ("adamw", 0.01)
    assert (cfg.optim.plateau.factor, cfg.optim.plateau.patience) == (0.5, 3)
    assert cfg.regularization.gradient_clip_norm == 1.0


def test_one_dropout_sets_all_and_each_can_be_set(make_config: MakeConfig) -> None:
    regularization = make_config("regularization.dropout=0.4", "regularization.attention_dropout=0.1").regularization
    assert [regularization.rate(place) for place in ("embedding", "residual", "attention")] == [0.4, 0.4, 0.1]


@pytest.mark.parametrize(
    ("override", "code", "named"),
    [
        ("model.num_heads=3", "model.indivisible_heads", ("model.num_heads=3 ", "model.d_model=128")),
        ("model.position=spiral", "config.unknown_choice", ("model.position=spiral",)),
        ("model.num_layers=0", "config.out_of_range", ("model.num_layers=0",)),
        ("data.seq_len=65", "config.conflict", ("data.seq_len=65 ", "model.max_seq_len=64")),
        ("data.val_fraction=0", "config.out_of_range", ("data.val_fraction=0",)),
        ("data.test_fraction=0.95", "config.conflict", ("data.val_fraction", "data.test_fraction")),
        ("data.batch_size=0", "config.out_of_range", ("data.batch_size=0",)),
        ("regularization.dropout=1.5", "config.out_of_range", ("regularization.dropout=1.5",)),
        ("regularization.gradient_clip_norm=0", "config.out_of_range", ("regularization.gradient_clip_norm=0",)),
        ("optim.lr=-1", "config.out_of_range", ("optim.lr=-1",)),
        ("optim.lr=nan", "config.out_of_range", ("optim.lr=nan",)),
        ("optim=adam", "optim.too_much_decay", ("optim=adam ", "regularization.weight_decay=1.0")),
        ("optim.muon_momentum=1", "config.out_of_range", ("optim.muon_momentum=1",)),
        ("optim.schedule=linear", "config.unknown_choice", ("optim.schedule=linear",)),
        ("optim.decay_fraction=1.5", "config.out_of_range", ("optim.decay_fraction=1.5",)),
        ("regularization.weight_decay=inf", "config.out_of_range", ("regularization.weight_decay=inf",)),
        (
            "regularization.weight_decay=67",
            "optim.too_much_decay",
            ("optim.muon_lr=0.015 ", "regularization.weight_decay=67.0"),
        ),
        ("optim.lr=1", "optim.too_much_decay", ("optim.lr=1.0 ", "regularization.weight_decay=1.0")),
        ("optim.betas=[0.9]", "config.out_of_range", ("optim.betas",)),
        ("tokenizer.vocab_size=2", "config.out_of_range", ("tokenizer.vocab_size=2",)),
        ("max_epochs=null", "config.missing", ("max_steps", "max_epochs")),
        ("seed=-1", "config.out_of_range", ("seed=-1",)),
    ],
)
def test_values_out_of_range_are_named(
    override: str, code: str, named: tuple[str, ...], make_config: MakeConfig
) -> None:
    with refused(code, *named):
        make_config(override)


def test_all_that_is_wrong_is_said_at_once(make_config: MakeConfig) -> None:
    with refused("config.out_of_range", "optim.lr=0", "max_steps=0"):
        make_config("optim.lr=0", "max_steps=0")


@pytest.mark.parametrize("text", ["${oc.env:HOME}", r"\${x}", r"a \\${b} ${c", "$5 {}"])
def test_a_saved_config_is_text_that_nothing_evaluates(text: str, make_config: MakeConfig) -> None:
    plain = to_plain(make_config())
    plain["logger"]["sample_prompts"] = [text]
    assert from_plain(plain).logger.sample_prompts == [text]
    assert to_plain(from_plain(plain)) == plain
