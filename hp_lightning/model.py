"""The GPT: token ids in, logits out. Pure PyTorch.

Shapes: B sequences in a batch, T tokens in a sequence, C = d_model features of a token, H heads, D = C / H features
of a head, V = vocab_size.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hp_lightning.config import ModelConfig, RegularizationConfig
from hp_lightning.kv_cache import KVCache, LayerCache


class GPT(nn.Module):
    """A causal transformer language model (Radford et al. 2018, 2019; Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        cfg: the form of the network; `cfg.vocab_size` must be set
        regularization: its dropout rates (Srivastava et al. 2014, JMLR 15); None for none
    """

    position_table: Tensor  # (max_seq_len, C), where positions are sinusoidal

    def __init__(self, cfg: ModelConfig, regularization: RegularizationConfig | None = None) -> None:
        super().__init__()
        assert cfg.vocab_size is not None
        self.cfg = cfg
        self.token_embedding = nn.Embedding(cfg.vocab_size, cfg.d_model)
        if cfg.position == "learned":  # Gehring et al. 2017, arXiv:1705.03122
            self.position_embedding = nn.Embedding(cfg.max_seq_len, cfg.d_model)
        elif cfg.position == "sinusoidal":
            self.register_buffer("position_table", sinusoidal_table(cfg.max_seq_len, cfg.d_model), persistent=False)
        self.embedding_dropout = Dropout(regularization.embedding_dropout if regularization else 0.0)
        self.blocks = nn.ModuleList(Block(cfg, regularization) for _ in range(cfg.num_layers))
        # Post-norm blocks end in a norm of their own.
        self.final_norm = make_norm(cfg) if cfg.norm_position == "pre" else nn.Identity()
        self.head = nn.Linear(cfg.d_model, cfg.vocab_size, bias=False)
        self._initialize()
        if cfg.tie_embeddings:  # Press & Wolf 2017, arXiv:1608.05859
            self.head.weight = self.token_embedding.weight

    def forward(self, token_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits of the next token at every position.

        Args:
            token_ids: (B, T) integers below V; T at most `max_seq_len`
            cache: the tokens before these, to which these are added; see `new_cache`

        Returns:
            logits: (B, T, V)

        Raises:
            ValueError: T, with the tokens before, is above `max_seq_len`
        """
        return self.logits(self.features(token_ids, cache))

    def features(self, token_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """What `logits` turns into logits: (B, T) to (B, T, C); see `forward`."""
        past = 0 if cache is None else cache.length
        length = past + token_ids.shape[1]
        if length > self.cfg.max_seq_len:
            raise ValueError(f"{length} tokens do not fit into max_seq_len={self.cfg.max_seq_len}")
        x = self.embedding_dropout(self._embed(token_ids, past))
        for layer, block in enumerate(self.blocks):
            x = block(x, None if cache is None else cache.layers[layer])
        normed: Tensor = self.final_norm(x)
        return normed

    def logits(self, features: Tensor) -> Tensor:
        """(..., C) to (..., V)."""
        return cap_logits(self.head(features), self.cfg.logit_cap)

    def attention_weights(self, token_ids: Tensor) -> Tensor:
        """How much each token looks at each, in every layer and head: (B, T) to (layers, B, H, T, T).

        Rows add up to 1; the one that looks comes before the one that is looked at.
        """
        x = self.embedding_dropout(self._embed(token_ids))
        weights: list[Tensor] = []
        for block in self.blocks:
            assert isinstance(block, Block)
            weights.append(block.attention_weights(x))
            x = block(x)
        return torch.stack(weights)

    def new_cache(self, batch_size: int, capacity: int) -> KVCache:
        """Memory for the keys and values of B sequences of so many tokens, none of which has been read yet."""
        cfg = self.cfg
        shape = (cfg.num_layers, 2, batch_size, cfg.num_heads, capacity, cfg.d_model // cfg.num_heads)
        return KVCache(self.token_embedding.weight.new_empty(shape))

    def num_parameters(self) -> int:
        """Trainable parameters; tied weights count once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self, seq_len: int) -> int:
        """Floating-point operations that training needs for a token in a window of `seq_len`.

        6 for each weight that is multiplied with, and 12 C T a layer for attention (Chowdhery et al. 2022, PaLM,
        arXiv:2204.02311, appendix B).
        """
        cfg = self.cfg
        assert cfg.vocab_size is not None
        weights = self.num_parameters() if cfg.tie_embeddings else self.num_parameters() - cfg.vocab_size * cfg.d_model
        if cfg.position == "learned":
            weights -= cfg.max_seq_len * cfg.d_model
        return 6 * weights + 12 * cfg.num_layers * cfg.d_model * seq_len

    def _embed(self, token_ids: Tensor, past: int = 0) -> Tensor:
        """(B, T), with so many tokens before, to (B, T, C)."""
        x: Tensor = self.token_embedding(token_ids)
        if self.cfg.embedding_norm:
            x = F.rms_norm(x, (self.cfg.d_model,))
        places = slice(past, past + token_ids.shape[1])
        if self.cfg.position == "learned":
            x = x + self.position_embedding.weight[places]
        elif self.cfg.position == "sinusoidal":
            # Scaled as in Vaswani et al. 2017, section 3.4: the table's entries are near 1, an embedding's are small.
            x = x * math.sqrt(self.cfg.d_model) + self.position_table[places]
        return x

    def _initialize(self) -> None:
        """Normal(0, 0.02); what ends a residual branch is divided by the root of their number (GPT-2, section 2.3).

        With `zero_init` the latter starts at zero, so that a block does nothing at first (as in Goyal et al. 2017,
        arXiv:1706.02677, section 5.1).
        """
        of_branch_ends = 0.0 if self.cfg.zero_init else 0.02 / math.sqrt(2 * self.cfg.num_layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                std = of_branch_ends if name.endswith((".output", ".down")) else 0.02
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)


class Block(nn.Module):
    """Attention, then feed-forward, each on a residual branch.

    Post-norm, norm(x + f(x)), is the first transformer's (Vaswani et al. 2017); pre-norm, x + f(norm(x)), trains more
    easily (Xiong et al. 2020, arXiv:2002.04745).
    """

    def __init__(self, cfg: ModelConfig, regularization: RegularizationConfig | None = None) -> None:
        super().__init__()
        self.pre_norm = cfg.norm_position == "pre"
        self.attention_norm = make_norm(cfg)
        self.attention = CausalSelfAttention(cfg, regularization.attention_dropout if regularization else 0.0)
        self.feed_forward_norm = make_norm(cfg)
        self.feed_forward = FeedForward(cfg)
        self.dropout = Dropout(regularization.residual_dropout if regularization else 0.0)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.attention_norm(x), cache))
            x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        else:
            x = self.attention_norm(x + self.dropout(self.attention(x, cache)))
            x = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return x

    def attention_weights(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, H, T, T)."""
        weights: Tensor = self.attention.weights(self.attention_norm(x) if self.pre_norm else x)
        return weights


class CausalSelfAttention(nn.Module):
    """softmax(Q Kᵀ / √D) V in H heads, each token seeing itself and those before it (Vaswani et al. 2017, eq. 1)."""

    rotation: Tensor  # (max_seq_len, D / 2, 2), where positions are rotary

    def __init__(self, cfg: ModelConfig, dropout_rate: float = 0.0) -> None:
        super().__init__()
        self.cfg = cfg
        self.dropout_rate = dropout_rate
        self.head_dim = cfg.d_model // cfg.num_heads
        self.query_key_value = nn.Linear(cfg.d_model, 3 * cfg.d_model, bias=cfg.bias)
        self.output = nn.Linear(cfg.d_model, cfg.d_model, bias=cfg.bias)
        if cfg.position == "rotary":
            self.register_buffer("rotation", rotary_table(cfg.max_seq_len, self.head_dim), persistent=False)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """(B, T, C) to (B, T, C); the tokens also see those in the cache, and are added to it."""
        batch, length, d_model = x.shape
        mixed = attend(*self._heads(x, cache), self.dropout_rate, self.training)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, d_model))
        return out

    def weights(self, x: Tensor) -> Tensor:
        """The softmax(Q Kᵀ / √D) of the forward pass, without dropout: (B, T, C) to (B, H, T, T)."""
        query, key, _ = self._heads(x)
        return attention_weights(query, key)

    def _heads(self, x: Tensor, cache: LayerCache | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, (B, H, T, D), and keys and values, (B, H, S, D), with those from the cache."""
        batch, length, _ = x.shape
        heads = self.query_key_value(x).view(batch, length, 3, self.cfg.num_heads, self.head_dim)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind()
        if self.cfg.qk_norm:  # Henry et al. 2020, arXiv:2010.04245; here without a learned scale
            query, key = F.rms_norm(query, (self.head_dim,)), F.rms_norm(key, (self.head_dim,))
        if self.cfg.position == "rotary":
            past = 0 if cache is None else cache.length
            rotation = self.rotation[past : past + length]
            query, key = rotate(query, rotation), rotate(key, rotation)
        return (query, key, value) if cache is None else (query, *cache.extend(key, value))


def attend(query: Tensor, key: Tensor, value: Tensor, dropout_rate: float, training: bool) -> Tensor:
    """softmax(Q Kᵀ / √D) V with a causal mask: (B, H, T, D), (B, H, S, D) and (B, H, S, D) to (B, H, T, D).

    The queries are those of the last T of S tokens.

    PyTorch's kernel for processors knows no dropout, and its way back is slow in bfloat16 (benchmarks/LOG.md); there
    the (B, H, T, T) weights are written out.
    """
    length, seen = query.shape[-2], key.shape[-2]
    if training and query.is_cpu and (dropout_rate > 0 or _short_in_bf16(query, length)):
        return dropout(attention_weights(query, key), dropout_rate, training).to(value.dtype) @ value
    rate = dropout_rate if training else 0.0
    whole = length == seen
    mask = None if whole or length == 1 else _visible(length, seen, query.device)  # the last token sees all
    return F.scaled_dot_product_attention(query, key, value, mask, rate, whole)


def _visible(length: int, seen: int, device: torch.device) -> Tensor:
    """Which of S tokens each of the last T sees: (T, S)."""
    return torch.ones(length, seen, dtype=torch.bool, device=device).tril(seen - length)


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √D) with a causal mask: (B, H, T, D) and (B, H, S, D) to (B, H, T, S)."""
    scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)
    hidden = ~_visible(query.shape[-2], key.shape[-2], query.device)
    return scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)


def _short_in_bf16(query: Tensor, length: int) -> bool:
    in_bf16 = query.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return in_bf16 and length <= 256


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Sets features to zero at random, while training, and scales the others (Srivastava et al. 2014, JMLR 15).

    PyTorch's own draws a number of 64 bits for each feature one after the other on a processor; here a number serves
    four of them, 16 bits each, which is eight times as fast. The rate is kept to within 1/131072.
    """
    if rate == 0 or not training:
        return x
    if not x.is_cpu:
        return F.dropout(x, rate)
    dropped = min(round(rate * 2**16), 2**16 - 1)
    count = x.numel()
    numbers = torch.randint(-(2**63), 2**63 - 1, (-(-count // 4),), device=x.device)
    keep = numbers.view(torch.int16)[:count].view(x.shape) >= dropped - 2**15
    return x * keep * (1 / (1 - dropped / 2**16))


class Dropout(nn.Module):
    """`dropout` with a rate, of any shape."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return dropout(x, self.rate, self.training)


class FeedForward(nn.Module):
    """Two linear layers with an activation between them, the same for every token (Vaswani et al. 2017, eq. 2)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(cfg.d_model, cfg.d_ff, bias=cfg.bias)
        self.activation = make_activation(cfg.activation)
        self.down = nn.Linear(cfg.d_ff, cfg.d_model, bias=cfg.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        out: Tensor = self.down(self.activation(self.up(x)))
        return out


class ReLUSquared(nn.Module):
    """max(0, x)² (So et al. 2021, arXiv:2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        squared: Tensor = _ReLUSquared.apply(x)  # type: ignore[no-untyped-call]
        return squared


class _ReLUSquared(torch.autograd.Function):
    """With half of the passes over memory that the derivatives of a square and of a ReLU take one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        twice: Tensor = gradient * positive * 2
        return twice


def make_activation(name: str) -> nn.Module:
    """relu (Nair & Hinton 2010), relu_squared, or gelu in its tanh form (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""
    return {"relu": nn.ReLU(), "gelu": nn.GELU(approximate="tanh"), "relu_squared": ReLUSquared()}[name]


def make_norm(cfg: ModelConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016, arXiv:1607.06450) or RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467), over C."""
    if cfg.norm.startswith("rms"):
        return nn.RMSNorm(cfg.d_model, eps=1e-5, elementwise_affine=cfg.norm == "rms")
    return nn.LayerNorm(cfg.d_model, bias=cfg.bias)


def cap_logits(logits: Tensor, cap: float | None) -> Tensor:
    """cap · tanh(z / cap) (Gemma Team 2024, arXiv:2408.00118, section 2), of any shape; without a cap as they are."""
    return logits if cap is None else cap * torch.tanh(logits / cap)


def sinusoidal_table(length: int, d_model: int) -> Tensor:
    """sin(t / 10000^(2i/C)) at feature 2i and its cosine at 2i + 1 (Vaswani et al. 2017, section 3.5): (length, C)."""
    angle = _angles(length, d_model)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def rotary_table(length: int, head_dim: int) -> Tensor:
    """Cosine and sine of each position's angles (Su et al. 2021, arXiv:2104.09864, eq. 15): (length, D / 2, 2)."""
    angle = _angles(length, head_dim)
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns pairs of features of each token by the angles of its position (Su et al. 2021, section 3.2).

    The paper pairs neighbours; here feature i goes with feature i + D/2, which is the same up to their order.

    Args:
        x: (B, H, T, D)
        rotation: (T, D / 2, 2), from `rotary_table`

    Returns:
        (B, H, T, D); the product of two tokens so turned depends on the distance between them alone
    """
    cos, sin = rotation.to(x.dtype).unbind(-1)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def _angles(length: int, features: int) -> Tensor:
    """Position times frequency, the frequencies falling from 1 towards 1/10000: (length, features / 2)."""
    frequencies = 10000 ** (-torch.arange(0, features, 2, dtype=torch.float32) / features)
    return torch.arange(length, dtype=torch.float32)[:, None] * frequencies
