"""Decoding: from a prompt, token after token, to text."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hp_lightning.model import GPT
from hp_lightning.tokenization import Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; two runs with equal settings write the same."""

    temperature: float = 0.8  # 0: always the likeliest token
    top_k: int | None = None
    top_p: float | None = 0.95
    max_new_tokens: int = 200
    num_samples: int = 1
    seed: int = 1


def continue_text(net: GPT, tokenizer: Tokenizer, prompt: str, context: int, sampling: Sampling) -> list[str]:
    """What the model writes: `num_samples` texts, each the prompt as it was given and its continuation.

    The prompt is taken as the beginning of a document; an empty one asks for a new document.

    Args:
        context: how many tokens the network looks back, at most its `max_seq_len`
    """
    vocabulary = tokenizer.vocabulary
    prompt_ids = tokenizer.encode(prompt).tolist()
    # The embedding table may have more rows than the tokenizer has tokens.
    unwritable = list(range(len(vocabulary), net.cfg.vocab_size or 0))
    if vocabulary.unk_id is not None:
        unwritable.append(vocabulary.unk_id)
    samples = generate(net, [vocabulary.eos_id, *prompt_ids], vocabulary.eos_id, unwritable, context, sampling)
    spoken = len(tokenizer.decode(prompt_ids))
    continuations = [tokenizer.decode([*prompt_ids, *sample])[spoken:] for sample in samples]
    if prompt.endswith(" ") and not tokenizer.decode(prompt_ids).endswith(" "):  # the words bring their own space
        continuations = [continuation.removeprefix(" ") for continuation in continuations]
    return [prompt + continuation for continuation in continuations]


@torch.no_grad()
def generate(
    net: GPT, prompt_ids: list[int], eos_id: int, unwritable: Iterable[int], context: int, sampling: Sampling
) -> list[list[int]]:
    """Samples continuations of a prompt, all in one batch.

    Args:
        prompt_ids: at least one token
        eos_id: ends a sample
        unwritable: ids that are never chosen
        context: the network sees the last `context` tokens

    Returns:
        for each sample its new tokens, without `eos_id`
    """
    device = next(net.parameters()).device
    generator = torch.Generator(device).manual_seed(sampling.seed)
    token_ids = torch.tensor([prompt_ids], device=device).repeat(sampling.num_samples, 1)
    banned = torch.tensor(list(unwritable), device=device, dtype=torch.long)
    ended = torch.zeros(sampling.num_samples, dtype=torch.bool, device=device)
    was_training = net.training
    net.eval()
    for _ in range(sampling.max_new_tokens):
        logits = net(token_ids[:, -context:])[:, -1].float()
        logits[:, banned] = -torch.inf
        chosen = choose(logits, sampling, generator)
        ended |= chosen == eos_id
        token_ids = torch.cat([token_ids, chosen[:, None]], dim=1)
        if ended.all():
            break
    net.train(was_training)
    written = token_ids[:, len(prompt_ids) :].tolist()
    return [sample[: sample.index(eos_id)] if eos_id in sample else sample for sample in written]


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """The next token of each sequence: (B, V) logits to (B,) ids."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Only the k likeliest tokens stay possible (Fan et al. 2018, arXiv:1805.04833): (B, V) to (B, V)."""
    bound = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < bound, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Only the likeliest tokens that together have probability p stay possible: (B, V) to (B, V).

    Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751); the likeliest token always stays.
    """
    if p >= 1:  # a sum of probabilities may round to 1 before the last token
        return logits
    ordered, order = logits.sort(descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    outside = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= p)
    return logits.masked_fill(outside, -torch.inf)
