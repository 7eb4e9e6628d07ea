"""Small networks, and numbers to put into them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hp_lightning import checkpoint
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.train import TrainConfig
from hp_lightning.tokenizers import Tokenizer


def save_untrained(path: Path, cfg: TrainConfig, tokenizer: Tokenizer, corpus: str = "") -> GPT:
    """Write the checkpoint of a network with random weights, larger than initially; return the network.

    Args:
        corpus: digest of the corpus that it was trained on
    """
    cfg = replace(cfg, model=replace(cfg.model, vocab_size=cfg.model.vocab_size or len(tokenizer.vocabulary)))
    torch.manual_seed(1)
    net = GPT(cfg.model).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    contents: dict[str, Any] = {"optimizer_states": [], "schedule": {}, "loops": {}, "callbacks": {}, "global_step": 0}
    weights = {f"net.{name}": weight for name, weight in net.state_dict().items()}
    ours = checkpoint.our_part(cfg, tokenizer, corpus, checkpoint.ValidationHistory())
    torch.save({**contents, "state_dict": weights, checkpoint.CHECKPOINT_KEY: ours}, path)
    return net


def inputs(*shape: int) -> Tensor:
    """Numbers near 1, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def turned(x: Tensor) -> Tensor:
    """Rotary positions in complex numbers: neighbouring features as one number, times e^(i t θ). (..., T, D)."""
    count = x.shape[-1] // 2
    theta = torch.tensor([10000 ** (-i / count) for i in range(count)], dtype=torch.float64)
    angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * theta
    z = torch.complex(x[..., 0::2].double(), x[..., 1::2].double()) * torch.exp(1j * angle)
    return torch.stack([z.real, z.imag], -1).flatten(-2).to(x.dtype)
