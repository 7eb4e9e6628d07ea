"""What the page is about: a trained model, a passage of text, and what the model's parts make of that passage."""

from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hp_lightning import checkpoint
from hp_lightning.checkpoint import LoadedCheckpoint
from hp_lightning.common.errors import InputError
from hp_lightning.common.run_dir import RunDir
from hp_lightning.data.dataset import TokenizedCorpus, tokenize_corpus
from hp_lightning.inference.evaluate import data_config
from hp_lightning.inference.generate import Sampling, stream
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.course import CourseConfig
from hp_lightning.tasks.sentiment.rows import as_in_corpus
from hp_lightning.tokenizers import Tokenizer, unknown_tokens
from hp_lightning.tokenizers.base import labels

PASSAGE = 48  # tokens


@dataclass(frozen=True)
class Passage:
    """Some text in tokens."""

    token_ids: list[int]  # at least one
    origin: str  # typed, corpus or model: where it is from
    document: str  # of the corpus, whose start it is
    unknown: list[str]  # its tokens that the vocabulary has not; of the corpus they are not known any more


@dataclass(frozen=True)
class Inside:
    """What the parts of a network make of T tokens: `<EOS>`, which precedes a document, and the passage."""

    token_ids: Tensor  # (T,)
    targets: Tensor  # (T,), what comes next; shorter by one where nothing does
    labels: list[str]  # of the T tokens
    embedded: Tensor  # (T, C), with what tells positions apart, where that is added
    blocks: list[Tensor]  # (T, C) behind each block
    before_norm: Tensor  # (T, C), what the last block normalizes before its feed-forward part, or behind it
    hidden: list[Tensor]  # (T, d_ff) of each block, before the activation
    attention: Tensor  # (layers, H, T, T)
    logits: Tensor  # (T, V), of the tokens of the vocabulary


@dataclass(frozen=True)
class Subject:
    """A trained model, and what it is looked at with."""

    trained: LoadedCheckpoint
    net: GPT
    corpus: TokenizedCorpus | None
    no_corpus: str  # why there is none
    passage: Passage
    inside: Inside

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self.trained.tokenizer

    @property
    def run_dir(self) -> RunDir | None:
        """The run folder in which the checkpoint lies, if it lies in one."""
        return RunDir.of_checkpoint(self.trained.path)


def find_subject(path: Path, cfg: CourseConfig) -> Subject:
    """Read a checkpoint, and the corpus that it was trained on where that is still there.

    Raises:
        InputError: the checkpoint cannot be used; `data.path` was given and cannot be read; `text` holds no token
    """
    trained = checkpoint.load(path)
    net = trained.net()
    corpus, why = None, ""
    try:
        corpus = tokenize_corpus(data_config(cfg.data, trained.cfg.data), trained.tokenizer)
    except InputError as error:
        if cfg.data.path is not None:
            raise
        why = str(error)
    passage = _passage(cfg, trained, net, corpus)
    return Subject(trained, net, corpus, why, passage, look_inside(net, trained, passage))


def _passage(cfg: CourseConfig, trained: LoadedCheckpoint, net: GPT, corpus: TokenizedCorpus | None) -> Passage:
    tokenizer = trained.tokenizer
    eos_id = tokenizer.vocabulary.eos_id
    if cfg.text is not None:
        text = as_in_corpus(cfg.text, trained.cfg.data)
        token_ids = tokenizer.encode(text).tolist()[:PASSAGE]
        if not token_ids:
            raise InputError("course.no_token", "text holds no token: give a sentence or two, or leave it out")
        return Passage(token_ids, "typed", "", unknown_tokens(tokenizer, text))
    if corpus is not None:
        token_ids = corpus.streams["val"][1:].tolist()
        length = min(token_ids.index(eos_id), PASSAGE)
        if length:
            return Passage(token_ids[:length], "corpus", corpus.documents["val"][0].name, [])
    sampling = Sampling(max_new_tokens=PASSAGE, seed=cfg.seed)
    [[sample]] = deque(stream(net, tokenizer, "", trained.cfg.data.seq_len, sampling), maxlen=1)
    return Passage(sample.token_ids, "model", "", [])


@torch.no_grad()
def look_inside(net: GPT, trained: LoadedCheckpoint, passage: Passage) -> Inside:
    """One forward pass over the passage, every part of which leaves what it has computed."""
    vocabulary = trained.tokenizer.vocabulary
    whole = torch.tensor([vocabulary.eos_id, *passage.token_ids])
    token_ids = whole[: trained.cfg.data.seq_len]
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    last = f"blocks.{net.cfg.num_layers - 1}.feed_forward_norm"
    blocks = [f"blocks.{number}" for number in range(net.cfg.num_layers)]
    ups = [f"{block}.feed_forward.up" for block in blocks]
    modules = dict(net.named_modules())
    hooks = [
        modules[name].register_forward_hook(partial(_keep, seen, name))
        for name in ("embedding_dropout", last, *blocks, *ups)
    ]
    logits = net(token_ids[None])[0]
    for hook in hooks:
        hook.remove()
    return Inside(
        token_ids=token_ids,
        targets=whole[1 : len(token_ids) + 1],
        labels=labels(trained.tokenizer, token_ids.tolist()),
        embedded=seen["embedding_dropout"][1],
        blocks=[seen[name][1] for name in blocks],
        before_norm=seen[last][0],
        hidden=[seen[name][1] for name in ups],
        attention=net.attention_weights(token_ids[None])[:, 0],
        logits=logits[:, : len(vocabulary)],
    )


def _keep(seen: dict[str, tuple[Tensor, Tensor]], name: str, _: nn.Module, inputs: Any, output: Tensor) -> None:
    seen[name] = (inputs[0][0], output[0])
