"""Decoding: from a prompt, token after token, to text.

The network sees a window of at most `context` tokens, at first the last `context` of the prompt. When it is full, its
last half, `context // 2` tokens with the newest, starts the next one: positions are counted from a window's start, so
moving by a single token would recompute every key and value. What the network has computed for a window is kept in a
cache, which changes its speed alone.
"""

import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from hp_lightning.common.errors import InputError
from hp_lightning.inference.sampling import draw, keep_min_p, keep_top_k, keep_top_p, penalize_repetition
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.generate import GenerateConfig
from hp_lightning.tokenizers import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; two runs with equal settings write the same."""

    temperature: float = 0.8  # 0: always the likeliest token
    top_k: int | None = None
    top_p: float | None = 0.95
    min_p: float | None = None
    repetition_penalty: float = 1.0  # of tokens that the prompt or the sample has already; 1: none
    max_new_tokens: int = 200
    num_samples: int = 1
    seed: int = 1


def sampling(cfg: GenerateConfig) -> Sampling:
    """How `generate` is told to sample; the seed is drawn where it is null."""
    names = [field.name for field in fields(Sampling) if field.name != "seed"]
    seed = secrets.randbelow(2**32) if cfg.seed is None else cfg.seed
    return Sampling(**{name: getattr(cfg, name) for name in names}, seed=seed)


class Step(NamedTuple):
    """A token of each sample."""

    token_ids: list[int]  # from its end on a sample has `eos_id`
    log_probs: list[float]  # under the network itself: temperature 1, nothing left out


class Sample:
    """A continuation of a prompt, while it grows."""

    def __init__(self, tokenizer: Tokenizer, prompt: str, prompt_ids: list[int]) -> None:
        self.text = ""
        self.token_ids: list[int] = []  # with `<EOS>`, where it has ended
        self.log_probs: list[float] = []
        self.ended = False
        self._eos_id = tokenizer.vocabulary.eos_id
        self._all_ids = list(prompt_ids)
        self._pieces = tokenizer.pieces(self._all_ids)  # reads the list as it grows
        spoken = "".join(next(self._pieces) for _ in prompt_ids)
        # Words bring their own space.
        self._drops_space = prompt.endswith(" ") and not spoken.endswith(" ")

    def add(self, token_id: int, log_prob: float) -> None:
        """Add the next token; after the end there is none any more."""
        if self.ended:
            return
        self.ended = token_id == self._eos_id
        self.token_ids.append(token_id)
        self.log_probs.append(log_prob)
        self._all_ids.append(token_id)
        piece = next(self._pieces)
        if self._drops_space and piece:
            piece, self._drops_space = piece.removeprefix(" "), False
        self.text += piece


def continue_text(net: GPT, tokenizer: Tokenizer, prompt: str, context: int, sampling: Sampling) -> list[str]:
    """What the model writes: `num_samples` texts, each the prompt as it was given and its continuation."""
    [samples] = deque(stream(net, tokenizer, prompt, context, sampling), maxlen=1)
    return [prompt + sample.text for sample in samples]


def stream(net: GPT, tokenizer: Tokenizer, prompt: str, context: int, sampling: Sampling) -> Iterator[list[Sample]]:
    """The `num_samples` continuations of a prompt: the same list after every token by which they have grown.

    The prompt is taken as the start of a document; an empty one asks for a new document.

    Args:
        context: how many tokens the network looks back, at most its `max_seq_len`
    """
    vocabulary = tokenizer.vocabulary
    prompt_ids = tokenizer.encode(prompt).tolist()
    unwritable = vocabulary.unwritable(net.cfg.vocab_size or 0)
    samples = [Sample(tokenizer, prompt, prompt_ids) for _ in range(sampling.num_samples)]
    for step in generate(net, [vocabulary.eos_id, *prompt_ids], vocabulary.eos_id, unwritable, context, sampling):
        for sample, token_id, log_prob in zip(samples, step.token_ids, step.log_probs, strict=True):
            sample.add(token_id, log_prob)
        yield samples


@torch.inference_mode()
def generate(
    net: GPT, prompt_ids: list[int], eos_id: int, unwritable: Iterable[int], context: int, sampling: Sampling
) -> Iterator[Step]:
    """Sample continuations of a prompt, all in one batch, until each has ended.

    Args:
        prompt_ids: at least one token
        eos_id: ends a sample
        unwritable: ids that are never chosen
        context: the network sees a window of at most so many tokens
    """
    device = net.token_embedding.weight.device
    generator = torch.Generator(device).manual_seed(sampling.seed)
    banned = torch.tensor(list(unwritable), device=device, dtype=torch.long)
    window = _Window(net, torch.tensor([prompt_ids], device=device).repeat(sampling.num_samples, 1), context)
    repeated = torch.zeros(sampling.num_samples, net.token_embedding.num_embeddings, dtype=torch.bool, device=device)
    repeated[:, [token_id for token_id in prompt_ids if token_id != eos_id]] = True
    ended = [False] * sampling.num_samples
    was_training = net.training
    net.eval()
    try:
        for _ in range(sampling.max_new_tokens):
            logits = window.next_logits()
            chosen = choose(logits.index_fill(1, banned, -torch.inf), repeated, sampling, generator)[:, None]
            log_probs = logits.log_softmax(dim=1).gather(1, chosen)
            token_ids = [eos_id if over else i for over, i in zip(ended, chosen[:, 0].tolist(), strict=True)]
            yield Step(token_ids, log_probs[:, 0].tolist())
            ended = [token_id == eos_id for token_id in token_ids]
            if all(ended):
                break
            repeated.scatter_(1, chosen, True)
            window.add(chosen)
    finally:
        net.train(was_training)


def check_memory(net: GPT, num_samples: int, context: int) -> None:
    """Keys and values of all samples must fit into the memory that is free, and their logits twice.

    Raises:
        InputError: they do not
    """
    cfg, device = net.cfg, net.token_embedding.weight.device
    of_sample = 4 * (2 * cfg.num_layers * context * cfg.d_model + 3 * net.token_embedding.num_embeddings)
    free_bytes = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    needed, free = num_samples * of_sample / 2**30, free_bytes / 2**30
    if needed > free:
        raise InputError(
            "machine.out_of_memory",
            f"num_samples={num_samples} needs {needed:,.1f} GiB of memory, {free:,.1f} are free: lower it",
        )


class _Window:
    """What the network sees of the sequences, and what it has computed of it.

    Args:
        token_ids: (B, T), their start
    """

    def __init__(self, net: GPT, token_ids: Tensor, context: int) -> None:
        self._net = net
        self._context = context
        self._token_ids = self._unread = token_ids[:, -context:]
        self._cache = net.new_cache(len(token_ids), context)

    def next_logits(self) -> Tensor:
        """Read what has not been read yet; return the logits of what comes next: (B, V), in float32."""
        features = self._net.features(self._unread, self._cache)
        logits: Tensor = self._net.logits(features[:, -1]).float()
        return logits

    def add(self, token_ids: Tensor) -> None:
        """Add a token to each sequence: (B, 1)."""
        self._token_ids = torch.cat([self._token_ids, token_ids], dim=1)
        self._unread = token_ids
        if self._token_ids.shape[1] > self._context:
            self._token_ids = self._unread = self._token_ids[:, -max(self._context // 2, 1) :]
            self._cache.clear()


def choose(logits: Tensor, repeated: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """The next token of each sequence.

    Args:
        logits: (B, V)
        repeated: (B, V), whether the sequence has the token already

    Returns:
        (B,) ids
    """
    if sampling.repetition_penalty != 1:
        logits = penalize_repetition(logits, repeated, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = keep_min_p(logits, sampling.min_p)
    return draw(logits, generator)
