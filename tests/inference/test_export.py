"""What is taken along to `transformers` computes, cuts and writes the same there."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.errors import refused
from helpers.networks import save_untrained
from torch.testing import assert_close

from hp_lightning.inference.export import export
from hp_lightning.inference.generate import Sampling, stream
from hp_lightning.schema.export import ExportConfig
from hp_lightning.schema.train import TrainConfig
from hp_lightning.tokenizers import Tokenizer, learn_tokenizer

transformers = pytest.importorskip("transformers")

MakeConfig = Callable[..., TrainConfig]
SIZES = ["d_model=32", "num_heads=4", "num_layers=2", "d_ff=48", "max_seq_len=24"]
SETTINGS = ["model=gpt2", *(f"model.{size}" for size in SIZES), "data.seq_len=24"]
TEXTS = ["The fog came in before breakfast — “Café”, said Wren,\nand sat down on Corrow Quay. 🙂", "The fox sat down."]


def learned(cfg: TrainConfig) -> Tokenizer:
    return learn_tokenizer(cfg.tokenizer, TEXTS * 3).tokenizer


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.bias=false", "model.activation=relu_squared"],
        ["model.tie_embeddings=false", "model.activation=relu"],
        ["model.vocab_size=300", "tokenizer=word"],  # rows that are no tokens
    ],
)
def test_logits_are_the_same(overrides: list[str], make_config: MakeConfig, tmp_path: Path) -> None:
    cfg = make_config(*SETTINGS, "tokenizer=char", *overrides)
    net = save_untrained(tmp_path / "a.ckpt", cfg, learned(cfg))
    export(ExportConfig(ckpt=str(tmp_path / "a.ckpt"), to=str(tmp_path / "to")))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "to").eval()
    token_ids = torch.randint(net.cfg.vocab_size, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = net(token_ids)
        assert logits.std() > 0.2
        assert_close(theirs(token_ids).logits, logits, rtol=0, atol=1e-5)
    assert (tmp_path / "to" / "tokenizer.json").exists() == (cfg.tokenizer.kind == "char")
    assert {path.name for path in tmp_path.iterdir()} == {"a.ckpt", "to"}


@pytest.mark.parametrize(
    "overrides", [["tokenizer=char"], ["tokenizer=bpe"], ["tokenizer=bpe", "tokenizer.lowercase=true"]]
)
def test_text_goes_in_and_comes_out_the_same(overrides: list[str], make_config: MakeConfig, tmp_path: Path) -> None:
    cfg = make_config(*SETTINGS, *overrides)
    tokenizer = learned(cfg)
    net = save_untrained(tmp_path / "a.ckpt", cfg, tokenizer)
    export(ExportConfig(ckpt=str(tmp_path / "a.ckpt"), to=str(tmp_path / "to")))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "to")
    eos_id = tokenizer.vocabulary.eos_id
    for text in [*TEXTS, "unseen: Ωß漢", "Cafe\u0301", "", "  two  spaces \n\n"]:
        ours = tokenizer.encode(text.replace("e\u0301", "é")).tolist()  # a corpus is in this normal form
        assert theirs(text).input_ids == [eos_id, *ours]
        assert theirs.decode(ours, skip_special_tokens=True) == tokenizer.decode(ours).replace("<UNK>", "")
    # Greedy decoding writes the same.
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "to")
    written = model.generate(**theirs("The fog", return_tensors="pt"), max_new_tokens=10, do_sample=False)
    *_, [sample] = stream(net, tokenizer, "The fog", 24, Sampling(temperature=0, max_new_tokens=10))
    assert written[0].tolist() == [eos_id, *tokenizer.encode("The fog").tolist(), *sample.token_ids]


@pytest.mark.parametrize(
    ("overrides", "reasons"),
    [
        (["model.position=rotary"], ["model.position is rotary, and GPT-2's learned"]),
        (["model.position=sinusoidal", "model.norm=rms"], ["model.position is sinusoidal", "model.norm is rms"]),
        (["model.norm_position=post"], ["model.norm_position is post"]),
        (["model.qk_norm=true"], ["model.qk_norm is True, and GPT-2's False"]),
    ],
)
def test_other_forms_are_refused(
    overrides: list[str], reasons: list[str], make_config: MakeConfig, tmp_path: Path
) -> None:
    cfg = make_config(*SETTINGS, "tokenizer=char", *overrides)
    save_untrained(tmp_path / "a.ckpt", cfg, learned(cfg))
    with refused("export.other_form", tmp_path / "a.ckpt", *reasons):
        export(ExportConfig(ckpt=str(tmp_path / "a.ckpt"), to=str(tmp_path / "to")))
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


def test_nothing_is_overwritten(make_config: MakeConfig, tmp_path: Path) -> None:
    cfg = make_config(*SETTINGS, "tokenizer=char")
    save_untrained(tmp_path / "a.ckpt", cfg, learned(cfg))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for to, code in (
        ("mine", "output.not_empty"),
        ("a.ckpt", "output.not_writable"),
        ("a.ckpt/to", "output.not_writable"),
    ):
        with refused(code, f"to={tmp_path / to} "):
            export(ExportConfig(ckpt=str(tmp_path / "a.ckpt"), to=str(tmp_path / to)))
    for to in (".", "/", str(Path.cwd())):
        with refused("output.not_a_new_folder", f"to={to} "):
            export(ExportConfig(ckpt=str(tmp_path / "a.ckpt"), to=to))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "empty", "mine"]
    export(ExportConfig(ckpt=str(tmp_path / "a.ckpt"), to=str(tmp_path / "empty")))
    assert (tmp_path / "empty" / "config.json").is_file()
