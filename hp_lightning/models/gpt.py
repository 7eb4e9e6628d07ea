"""The GPT: token ids in, logits out. Pure PyTorch.

Shapes: B sequences in a batch, T tokens in a sequence, C = d_model features of a token, H heads, D = C / H features
of a head, V = vocab_size.
"""

import math

import torch
from torch import Tensor, nn

from hp_lightning.models.functional import (
    attend,
    attention_weights,
    dropout,
    relu_squared,
    rms_norm,
    rotary_table,
    rotate,
    sinusoidal_table,
)
from hp_lightning.models.kv_cache import KVCache, LayerCache
from hp_lightning.schema.model import ModelConfig
from hp_lightning.schema.regularization import RegularizationConfig

NO_DROPOUT = RegularizationConfig(dropout=0.0)


class GPT(nn.Module):
    """A causal transformer language model (Radford et al. 2018, 2019; Vaswani et al. 2017, arXiv:1706.03762).

    Args:
        cfg: the form of the network; `cfg.vocab_size` must be set
        regularization: its dropout rates (Srivastava et al. 2014, JMLR 15)
    """

    position_table: Tensor  # (max_seq_len, C), where positions are sinusoidal

    def __init__(self, cfg: ModelConfig, regularization: RegularizationConfig = NO_DROPOUT) -> None:
        super().__init__()
        assert cfg.vocab_size is not None
        self.cfg = cfg
        self.token_embedding = nn.Embedding(cfg.vocab_size, cfg.d_model)
        if cfg.position == "learned":  # Gehring et al. 2017, arXiv:1705.03122
            self.position_embedding = nn.Embedding(cfg.max_seq_len, cfg.d_model)
        elif cfg.position == "sinusoidal":
            self.register_buffer("position_table", sinusoidal_table(cfg.max_seq_len, cfg.d_model), persistent=False)
        self.embedding_dropout = Dropout(regularization.rate("embedding"))
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
        logits: Tensor = self.head(features)
        return logits

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
        """Floating-point operations that training needs for a token in a sequence of `seq_len`.

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
        places = slice(past, past + token_ids.shape[1])
        if self.cfg.position == "learned":
            x = x + self.position_embedding.weight[places]
        elif self.cfg.position == "sinusoidal":
            # Scaled as in Vaswani et al. 2017, section 3.4: the table's entries are near 1, an embedding's are small.
            x = x * math.sqrt(self.cfg.d_model) + self.position_table[places]
        return x

    def _initialize(self) -> None:
        """Normal(0, 0.02); what ends a residual branch is divided by the root of their number (GPT-2, section 2.3)."""
        of_branch_ends = 0.02 / math.sqrt(2 * self.cfg.num_layers)
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

    def __init__(self, cfg: ModelConfig, regularization: RegularizationConfig = NO_DROPOUT) -> None:
        super().__init__()
        self.pre_norm = cfg.norm_position == "pre"
        self.attention_norm = make_norm(cfg)
        self.attention = CausalSelfAttention(cfg, regularization.rate("attention"))
        self.feed_forward_norm = make_norm(cfg)
        self.feed_forward = FeedForward(cfg)
        self.dropout = Dropout(regularization.rate("residual"))

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
        query_key, value = heads.split([2, 1], dim=2)
        if self.cfg.qk_norm:  # Henry et al. 2020, arXiv:2010.04245; here without a learned scale
            query_key = rms_norm(query_key)
        if self.cfg.position == "rotary":
            past = 0 if cache is None else cache.length
            query_key = rotate(query_key, self.rotation[past : past + length, None, None])
        query, key = query_key.permute(2, 0, 3, 1, 4).unbind()
        value = value.squeeze(2).transpose(1, 2)
        return (query, key, value) if cache is None else (query, *cache.extend(key, value))


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
    """`relu_squared`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return relu_squared(x)


class RMSNorm(nn.Module):
    """`rms_norm` with learned weights."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        return rms_norm(x, self.weight, eps=1e-5)


def make_activation(name: str) -> nn.Module:
    """relu (Nair & Hinton 2010), relu_squared, or gelu in its tanh form (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""
    return {"relu": nn.ReLU(), "gelu": nn.GELU(approximate="tanh"), "relu_squared": ReLUSquared()}[name]


def make_norm(cfg: ModelConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016, arXiv:1607.06450) or RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467), over C."""
    if cfg.norm == "rms":
        return RMSNorm(cfg.d_model)
    return nn.LayerNorm(cfg.d_model, bias=cfg.bias)
