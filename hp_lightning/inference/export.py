"""What `hp-lightning export` does: a trained network of GPT-2's form as a folder that `transformers` opens."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, normalizers, processors
from torch import Tensor

from hp_lightning import checkpoint
from hp_lightning.checkpoint import LoadedCheckpoint
from hp_lightning.common.errors import InputError, extra
from hp_lightning.common.files import atomic_folder
from hp_lightning.common.run_dir import find_checkpoint
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.export import ExportConfig
from hp_lightning.schema.model import ModelConfig
from hp_lightning.tokenizers import EOS, UNK, Tokenizer

GPT2_FORM = {
    "position": "learned", "norm": "layer", "norm_position": "pre", "qk_norm": False,
}  # fmt: skip
ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu", "relu_squared": "relu2"}
NAMES = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "blocks": "transformer.h",
    "attention_norm": "ln_1",
    "attention.query_key_value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
    "final_norm": "transformer.ln_f",
    "head": "lm_head",
}
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # its `Conv1D` has a weight's inputs first


def export(cfg: ExportConfig) -> None:
    """Write the folder, whole or not at all.

    Raises:
        InputError: there is no such checkpoint, its network is of another form, or the folder cannot be made
    """
    with extra("export", "export"):
        import safetensors.torch  # noqa: F401  found missing before a model is loaded
    path = find_checkpoint(cfg.ckpt)
    trained = checkpoint.load(path)
    problems = "; ".join(_problems(trained.cfg.model))
    if problems:
        raise InputError(
            "export.other_form", f"only GPT-2-style models can be exported, and {path} is none: {problems}"
        )
    folder = Path(cfg.to)
    if not folder.name or folder.resolve() == Path.cwd():
        raise InputError("output.not_a_new_folder", f"to={cfg.to} is no new folder: name one")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError("output.not_empty", f"to={cfg.to} is not empty: name a new folder")
        with atomic_folder(folder) as unfinished:
            _write(trained, unfinished)
    except OSError as error:
        raise InputError(
            "output.not_writable", f"to={cfg.to} cannot be written ({error.strerror}): name another folder"
        ) from error
    print(f"{folder}: transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})")
    if not (folder / "tokenizer.json").exists():
        print("no tokenizer exported: tokenizer=word has no equivalent in Hugging Face tokenizers")


def _problems(model: ModelConfig) -> Iterator[str]:
    for key, wanted in GPT2_FORM.items():
        value = getattr(model, key)
        if value != wanted:
            yield f"model.{key} is {value}, and GPT-2's {wanted}"


def _write(trained: LoadedCheckpoint, folder: Path) -> None:
    from safetensors.torch import save

    weights = save(gpt2_weights(trained.net()), metadata={"format": "pt"})
    (folder / "model.safetensors").write_bytes(weights)  # an error is then an `OSError`
    _write_json(folder / "config.json", gpt2_config(trained))
    _write_json(folder / "generation_config.json", _generation_config(trained))
    library_form = trained.tokenizer.library_form()
    if library_form is not None:
        _complete(library_form, trained.tokenizer).save(str(folder / "tokenizer.json"))
        _write_json(folder / "tokenizer_config.json", _tokenizer_config(trained))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def gpt2_weights(net: GPT) -> dict[str, Tensor]:
    """The weights by their names in `transformers.GPT2LMHeadModel`; biases that the network has not are zero."""
    biased = GPT(replace(net.cfg, bias=True))
    biased.load_state_dict(net.state_dict(), strict=False)
    weights = {}
    for name, weight in biased.state_dict().items():
        if name == "head.weight" and net.cfg.tie_embeddings:
            continue
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        weights[name] = (weight.t() if name.endswith(TRANSPOSED) else weight).contiguous()
    return weights


def gpt2_config(trained: LoadedCheckpoint) -> dict[str, Any]:
    """What `transformers.GPT2Config` is made of."""
    model, dropout = trained.cfg.model, trained.cfg.regularization
    eos_id = trained.tokenizer.vocabulary.eos_id
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model.vocab_size,
        "n_positions": model.max_seq_len,
        "n_embd": model.d_model,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        "n_inner": model.d_ff,
        "activation_function": ACTIVATIONS[model.activation],
        "layer_norm_epsilon": 1e-5,
        "embd_pdrop": dropout.rate("embedding"),
        "attn_pdrop": dropout.rate("attention"),
        "resid_pdrop": dropout.rate("residual"),
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": eos_id,
        "eos_token_id": eos_id,
    }


def _generation_config(trained: LoadedCheckpoint) -> dict[str, Any]:
    """As `hp-lightning generate` has it: from `<EOS>` to `<EOS>`, and what is no token is never written."""
    vocabulary = trained.tokenizer.vocabulary
    eos_id = vocabulary.eos_id
    suppressed = vocabulary.unwritable(trained.cfg.model.vocab_size or 0)
    ids = {"bos_token_id": eos_id, "eos_token_id": eos_id, "pad_token_id": eos_id}
    return {**ids, "suppress_tokens": suppressed} if suppressed else ids


def _complete(library_form: tokenizers.Tokenizer, tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """Add what every tokenizer has: the corpus's normal form, and `<EOS>` before a document."""
    lowercase = [normalizers.Lowercase()] if tokenizer.state()["lowercase"] else []
    library_form.normalizer = normalizers.Sequence([normalizers.NFC(), *lowercase])
    library_form.post_processor = processors.TemplateProcessing(
        single=f"{EOS} $A", special_tokens=[(EOS, tokenizer.vocabulary.eos_id)]
    )
    specials = [EOS] if tokenizer.vocabulary.unk_id is None else [UNK, EOS]
    library_form.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    return library_form


def _tokenizer_config(trained: LoadedCheckpoint) -> dict[str, Any]:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": trained.cfg.model.max_seq_len,
        "clean_up_tokenization_spaces": False,
        "bos_token": EOS,
        "eos_token": EOS,
        "pad_token": EOS,
    }
    return config if trained.tokenizer.vocabulary.unk_id is None else {**config, "unk_token": UNK}
