"""What `hp-lightning evaluate` does: a trained model is measured by a corpus, and by what it copies."""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hp_lightning import checkpoint
from hp_lightning.checkpoint import LoadedCheckpoint
from hp_lightning.common.console import log, log_table, messages
from hp_lightning.common.errors import InputError, RunError
from hp_lightning.common.files import atomic_write_text, check_target
from hp_lightning.common.hardware import device_of
from hp_lightning.common.run_dir import find_checkpoint
from hp_lightning.data.dataset import TokenizedCorpus, tokenize_corpus
from hp_lightning.data.sources import absolute_path, find_sources
from hp_lightning.inference.generate import Sampling, check_memory, continue_text
from hp_lightning.inference.metrics import Metrics, copied_share, metrics, metrics_by_document, score_tokens
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.data import DataConfig, OtherCorpusConfig
from hp_lightning.schema.evaluate import EvaluateConfig

BATCH_SIZE = 32  # sequences
N_GRAMS = (5, 8, 12)
LISTED = 20  # of a split's documents so many are shown, the hardest
SPLITS = {"train": "training", "val": "validation", "test": "test"}
COLUMNS = ("tokens", "loss", "perplexity", "bits/char", "<UNK>", "accuracy", "top 5")


@dataclass(frozen=True)
class SplitMetrics:
    """The metrics of a model on a split of a corpus."""

    overall: Metrics  # sequences side by side
    sliding: Metrics | None  # sequences that overlap, where a stride was given
    documents: list[tuple[str, Metrics]]  # with the same sequences as the metrics before


def evaluate(cfg: EvaluateConfig) -> None:
    """Print the metrics, and write them into a JSON file next to the checkpoint.

    Raises:
        InputError: there is no such checkpoint, or the corpus cannot be read or has nothing to evaluate
        RunError: the file cannot be written
    """
    with messages():
        trained = checkpoint.load(find_checkpoint(cfg.ckpt))
        seq_len = trained.cfg.data.seq_len
        if cfg.stride is not None and cfg.stride > seq_len:
            raise InputError(
                "evaluate.stride_too_long",
                f"stride={cfg.stride} is longer than the run's sequences of {seq_len} tokens: lower it",
            )
        data = data_config(cfg.data, trained.cfg.data)
        corpus = tokenize_corpus(data, trained.tokenizer)
        same_corpus = corpus.digest == trained.corpus
        path = _report_path(trained.path, data, same_corpus) if cfg.out is None else Path(cfg.out)
        named = f"{path}, for the metrics," if cfg.out is None else f"out={cfg.out}"
        check_target(named, path, trained.path, *(source.path for source in find_sources(data)))
        log.info("%s, step %s, evaluated on %s", trained.path, f"{trained.step:,}", data.path)
        if not same_corpus:
            log.warning(
                "not the corpus that this model was trained on: these splits may overlap its training data, and "
                "memorization is not reported"
            )
        device = device_of("auto")
        net = trained.net().to(device)
        if same_corpus:
            check_memory(net, cfg.num_samples, seq_len)
        # Computed as in the run.
        with torch.autocast(device.type, torch.bfloat16, enabled=trained.cfg.trainer.precision != "32-true"):
            splits = {split: _split(net, corpus, split, seq_len, cfg.stride) for split in _splits(cfg.splits, corpus)}
        _show_splits(splits, cfg.stride)
        copied = _copied(net, corpus, seq_len, cfg) if cfg.num_samples and same_corpus else {}
        _show_copied(copied)
        _write(path, _report(trained, data, same_corpus, cfg, splits, copied))
        log.info("\n%s", path)


def data_config(given: OtherCorpusConfig, of_run: DataConfig) -> DataConfig:
    """How a corpus is read: as the person says, and else as the run did."""
    overrides = {key: value for key, value in dataclasses.asdict(given).items() if value is not None}
    if "path" in overrides:
        overrides["sha256"] = None
    # Never a place that a checkpoint names.
    return dataclasses.replace(of_run, **{"cache_dir": None, **overrides})


def _splits(wanted: list[str], corpus: TokenizedCorpus) -> list[str]:
    splits = [split for split in dict.fromkeys(wanted) if len(corpus.streams[split]) > 1]
    if not splits:
        raise InputError(
            "data.empty_split",
            f"splits=[{','.join(wanted)}]: the corpus has no text in these: name train, val or test",
        )
    return splits


def _split(net: GPT, corpus: TokenizedCorpus, split: str, seq_len: int, stride: int | None) -> SplitMetrics:
    stream, vocabulary = corpus.streams[split], corpus.tokenizer.vocabulary
    characters = corpus.facts.splits[split].characters
    scores = score_tokens(net, stream, seq_len, seq_len, BATCH_SIZE)
    overall = metrics(scores, stream[1:], characters, vocabulary.unk_id)
    sliding = None
    if stride is not None:
        scores = score_tokens(net, stream, seq_len, stride, BATCH_SIZE)
        sliding = metrics(scores, stream[1:], characters, vocabulary.unk_id)
    by_document = metrics_by_document(scores, stream, corpus.documents[split], vocabulary.eos_id, vocabulary.unk_id)
    return SplitMetrics(overall, sliding, by_document)


def _copied(net: GPT, corpus: TokenizedCorpus, context: int, cfg: EvaluateConfig) -> dict[int, dict[str, float | None]]:
    """By n the share of n-grams in the training split: of what the model writes, and of the validation split.

    People repeat each other, too: the second is what the first is to be compared with.
    """
    sampling = Sampling(
        temperature=cfg.temperature,
        top_k=cfg.top_k,
        top_p=cfg.top_p,
        max_new_tokens=cfg.max_new_tokens,
        num_samples=cfg.num_samples,
        seed=cfg.seed,
    )
    written = continue_text(net, corpus.tokenizer, "", context, sampling)
    training, validation = _texts(corpus, "train"), _texts(corpus, "val")
    return {
        n: {"written": copied_share(written, training, n), "validation": copied_share(validation, training, n)}
        for n in N_GRAMS
    }


def _texts(corpus: TokenizedCorpus, split: str) -> list[str]:
    """The documents as the tokenizer gives them back."""
    stream = corpus.streams[split]
    ends = np.flatnonzero(stream == corpus.tokenizer.vocabulary.eos_id)
    return [corpus.tokenizer.decode(token_ids.tolist()) for token_ids in np.split(stream, ends)]


def _show_splits(splits: dict[str, SplitMetrics], stride: int | None) -> None:
    rows = []
    for split, measured in splits.items():
        rows.append([SPLITS[split], *_cells(measured.overall)])
        if measured.sliding is not None:
            change = measured.sliding.loss / measured.overall.loss - 1
            rows.append([f"  stride {stride} (loss {change:+.1%})", *_cells(measured.sliding)])
    log_table(["", *COLUMNS], rows)
    for split, measured in splits.items():
        hardest = sorted(measured.documents, key=lambda item: -item[1].loss)[:LISTED]
        more = f", the {LISTED} hardest of {len(measured.documents):,}" if len(measured.documents) > LISTED else ""
        shown = hardest if more else measured.documents
        log_table([f"{SPLITS[split]}, by document{more}", *COLUMNS], [[name, *_cells(its)] for name, its in shown])


def _cells(its: Metrics) -> list[str]:
    return [
        f"{its.tokens:,}",
        f"{its.loss:.4f}",
        f"{its.perplexity:,.2f}",
        f"{its.bits_per_char:.4f}",
        f"{its.unk_rate:.2%}",
        f"{its.accuracy_1:.1%}",
        f"{its.accuracy_5:.1%}",
    ]


def _show_copied(copied: dict[int, dict[str, float | None]]) -> None:
    if not copied:
        return
    rows = []
    for whose in ("written", "validation"):
        shares = [copied[n][whose] for n in copied]
        name = "generated text" if whose == "written" else "validation split"
        rows.append([name, *("" if share is None else f"{share:.2%}" for share in shares)])
    log_table(["n-grams found in the training split", *(f"{n}-grams" for n in copied)], rows)


def _report(
    trained: LoadedCheckpoint,
    data: DataConfig,
    same_corpus: bool,
    cfg: EvaluateConfig,
    splits: dict[str, SplitMetrics],
    copied: dict[int, dict[str, float | None]],
) -> dict[str, Any]:
    sampling = ("num_samples", "max_new_tokens", "temperature", "top_k", "top_p", "seed")
    return {
        "checkpoint": str(trained.path),
        "step": trained.step,
        "tokenizer": trained.cfg.tokenizer.kind,
        "data.path": absolute_path(data.path),
        "trained_on_this_corpus": same_corpus,
        "seq_len": data.seq_len,
        "stride": cfg.stride,
        "splits": {
            split: {
                **dataclasses.asdict(found.overall),
                "sliding": None if found.sliding is None else dataclasses.asdict(found.sliding),
                "documents": [{"name": name, **dataclasses.asdict(its)} for name, its in found.documents],
            }
            for split, found in splits.items()
        },
        "copied_n_grams": {str(n): shares for n, shares in copied.items()},
        "sampling": {key: getattr(cfg, key) for key in sampling},
    }


def _report_path(ckpt: Path, data: DataConfig, same_corpus: bool) -> Path:
    """Beside the checkpoint; that of another corpus has its name in it."""
    first = data.path[0] if isinstance(data.path, list) else data.path
    return ckpt.with_name(f"{ckpt.stem}.evaluation{'' if same_corpus else f'.{_file_name(first)}'}.json")


def _file_name(path: str) -> str:
    """What a corpus is called, of characters that a file's name may have: a pattern has stars."""
    return re.sub(r"[^\w.-]+", "_", Path(path).stem)


def _write(path: Path, report: dict[str, Any]) -> None:
    try:
        atomic_write_text(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise RunError(
            "output.not_writable",
            f"{path} cannot be written ({error.strerror}): make room, or name another place by out=",
        ) from error
