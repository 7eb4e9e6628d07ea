"""A run made ready to begin or to go on: checked against the corpus, the machine and what was saved."""

import json
import math
import os
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hp_lightning import checkpoint
from hp_lightning.checkpoint import LoadedCheckpoint
from hp_lightning.common import slurm
from hp_lightning.common.console import log
from hp_lightning.common.errors import InputError
from hp_lightning.common.files import atomic_write_text
from hp_lightning.common.hardware import check_devices
from hp_lightning.common.hydra_grammar import parted
from hp_lightning.common.run_dir import RUNS, RunDir, find_checkpoint, find_resumable
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.data.dataset import TokenizedCorpus, tokenize_corpus
from hp_lightning.data.ngram_baseline import counted_loss
from hp_lightning.data.sources import absolute_path
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.schema.train import TrainConfig, from_plain, from_yaml, to_plain, to_yaml
from hp_lightning.tokenizers import Tokenizer
from hp_lightning.training.auto import ResolvedConfig, resolve_auto
from hp_lightning.training.optim import state_bytes

# What a resumed run may be told again; everything else belongs to the weights it goes on with.
RESUMABLE = {
    "data.path", "data.cache_dir", "max_steps", "max_epochs", "logger", "checkpoint", "trainer.accelerator",
    "trainer.devices", "trainer.precision", "trainer.compile", "trainer.profile", "trainer.val_every_steps",
    "optim.lr", "optim.muon_lr", "optim.plateau", "regularization.early_stopping_patience",
}  # fmt: skip


@dataclass
class Run:
    """A run that can begin: its settings, its folder, its corpus."""

    cfg: TrainConfig  # `cfg.model.vocab_size` is set, nothing is `auto`
    dir: RunDir
    data: CorpusDataModule
    machine: ResolvedConfig
    lock: FileLock | None  # of the process that writes
    resumed: LoadedCheckpoint | None = None
    speaks: bool = True  # false in the processes that a run starts for its other devices

    @property
    def total_steps(self) -> int:
        """Optimizer steps after which the run ends."""
        by_epochs = math.inf if self.cfg.max_epochs is None else self.cfg.max_epochs * self.data.steps_per_epoch
        return int(min(math.inf if self.cfg.max_steps is None else self.cfg.max_steps, by_epochs))

    @property
    def val_every(self) -> int:
        """Optimizer steps between two validations."""
        return self.cfg.trainer.val_every_steps or self.data.steps_per_epoch

    @property
    def kept_until(self) -> int:
        """The last step whose metrics a resumed run keeps; -1 for a new run."""
        return -1 if self.resumed is None else self.resumed.keeps_figures_until

    @cached_property
    def kneser_ney_loss(self) -> float | None:
        """Cross-entropy, in nats per token, that counting n-grams comes to on the validation split."""
        return counted_loss(self.data.cfg, self.data.corpus)


def start(cfg: TrainConfig, overrides: list[str], hydra: DictConfig) -> Run:
    """A new run; makes its folder, with the config in it.

    Raises:
        InputError: corpus, machine and config do not fit together, or the disk is too full; nothing was written
    """
    check_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    cfg, tokenizer = chosen_tokenizer(cfg, overrides)
    corpus = tokenize_corpus(cfg.data, tokenizer)
    cfg = replace(
        cfg,
        model=replace(cfg.model, vocab_size=_vocab_size(cfg, corpus.tokenizer)),
        data=replace(cfg.data, path=absolute_path(cfg.data.path)),  # resumed from anywhere
    )
    settled = resolve_auto(cfg, len(corpus.streams["train"]))
    cfg, data = settled.cfg, _data(settled.cfg, corpus)
    settled.reasons.append(_room_line(cfg, RUNS if cfg.run_dir is None else Path(cfg.run_dir), resumed=False))
    run_dir = RunDir.create(cfg.run_dir, overrides)
    held = run_dir.lock()
    atomic_write_text(run_dir.overrides, OmegaConf.to_yaml(OmegaConf.create(overrides)))
    atomic_write_text(run_dir.hydra, OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
    atomic_write_text(run_dir.config, to_yaml(cfg))  # it is what a run can be begun again from
    slurm.mark(run_dir)
    return Run(cfg, run_dir, data, settled, held)


def _room_line(cfg: TrainConfig, folder: Path, resumed: bool) -> str:
    """Of the head of a run: how large a checkpoint is.

    There must be room for two, `last.ckpt` and the one before it, and for `best.ckpt`; a run that is resumed has them,
    and each save writes two of them anew before they take their places.

    Raises:
        InputError: the disk has no room for them
    """
    with torch.device("meta"):
        size = state_bytes(GPT(cfg.model), cfg.optim)
    while not os.path.exists(folder):
        folder = folder.parent
    needed, free = (2 if resumed else 3) * size, shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            "output.no_room",
            f"the checkpoints of the run need {needed / 1e6:,.1f} MB, and {folder} has {free / 1e6:,.1f} MB free: make "
            "room" + ("" if resumed else ", or name a folder on another disk by run_dir="),
        )
    return f"checkpoint {size / 1e6:,.1f} MB each, {free / 1e6:,.0f} MB free"


def _data(cfg: TrainConfig, corpus: TokenizedCorpus) -> CorpusDataModule:
    return CorpusDataModule(cfg.data, corpus, cfg.seed, cfg.trainer.accumulate_grad_batches, cfg.trainer.devices)


def chosen_tokenizer(cfg: TrainConfig, overrides: list[str]) -> tuple[TrainConfig, Tokenizer | TokenizerConfig]:
    """The tokenizer of the run `tokenizer.from_run`, its settings in the config; else the settings to learn one by.

    Raises:
        InputError: there is no such run, or other settings of the tokenizer were given beside it
    """
    if cfg.tokenizer.from_run is None:
        return cfg, cfg.tokenizer
    given = {key for key, _ in map(parted, overrides) if key == "tokenizer" or key.startswith("tokenizer.")}
    others = sorted(given - {"tokenizer.from_run"})
    if others:
        raise InputError(
            "config.conflict",
            f"tokenizer.from_run takes the whole tokenizer as it is: leave out {', '.join(others)}",
        )
    trained = checkpoint.load(find_checkpoint(cfg.tokenizer.from_run, "tokenizer.from_run"))
    settings = replace(trained.cfg.tokenizer, from_run=os.path.abspath(trained.path))
    return replace(cfg, tokenizer=settings), trained.tokenizer


def resume(wanted: str, given: TrainConfig, overrides: list[str]) -> Run:
    """A run that goes on in its folder, from its last whole checkpoint; from its beginning where it has none.

    Args:
        wanted: a run folder, a checkpoint in one, or `latest`
        given: the command line's config
        overrides: which of it the command line says

    Raises:
        InputError: there is no such run, it is being trained already, its corpus has changed, it was told what cannot
            change, none of its checkpoints is whole, or the disk is too full
    """
    found = find_resumable(wanted)
    held = found.run_dir.lock()
    trained = checkpoint.load_first_whole(found.checkpoints) if found.checkpoints else None
    cfg = _resumed_config(_begun_config(found.run_dir) if trained is None else trained.cfg, given, overrides)
    check_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    corpus = tokenize_corpus(cfg.data, chosen_tokenizer(cfg, [])[1] if trained is None else trained.tokenizer)
    settled = resolve_auto(cfg, len(corpus.streams["train"]))
    settled.reasons.append(_room_line(settled.cfg, found.run_dir.path, resumed=trained is not None))
    run = Run(settled.cfg, found.run_dir, _data(settled.cfg, corpus), settled, held, trained)
    if trained is not None:
        _check_goes_on(run, trained)
    return run


def apply_overrides_to_checkpoint(run: Run, trained: LoadedCheckpoint) -> None:
    """Makes the checkpoint the run's last, with the new settings: all holds even if the run is killed at once."""
    path = run.dir.last_checkpoint
    if run.cfg == trained.cfg and trained.path == path:
        return
    contents = trained.contents
    _set_rates(run, trained, contents["schedule"])
    contents[checkpoint.CHECKPOINT_KEY]["config"] = to_plain(run.cfg)
    best, names = run.dir.best_checkpoint, []
    if trained.step == trained.record.best_step:
        names = [best]
    elif trained.path != path and not _is_of_step(best, trained.record.best_step):
        contents[checkpoint.CHECKPOINT_KEY]["record"][
            "best"
        ] = []  # it was surpassed by what the run does not go on from
    checkpoint.write_checkpoint(contents, path, names)
    run.resumed = replace(trained, path=path, cfg=run.cfg)


def _set_rates(run: Run, trained: LoadedCheckpoint, schedule: dict[str, Any]) -> None:
    """A new rate holds as it was told, not as the plateau had lowered the old one; the other rate stays lowered."""
    optim, before = run.cfg.optim, trained.cfg.optim
    same = {key: getattr(optim, key) for key in ("lr", "muon_lr") if getattr(optim, key) == getattr(before, key)}
    if len(same) < 2:
        lowered = {key: rate * schedule["factor"] for key, rate in same.items()}
        run.cfg = replace(run.cfg, optim=replace(optim, **lowered))
        schedule["factor"] = 1.0


def _is_of_step(path: Path, step: int) -> bool:
    try:
        return checkpoint.load(path).step == step
    except InputError:
        return False


def _begun_config(run_dir: RunDir) -> TrainConfig:
    """The config that a run began with."""
    log.info("%s was stopped before its first checkpoint; starting over", run_dir)
    try:
        return from_yaml(run_dir.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, InputError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            "run.damaged_config", f"{run_dir.config} is not the config of a run ({reason}): begin a new run"
        ) from error


def _check_goes_on(run: Run, trained: LoadedCheckpoint) -> None:
    if run.data.digest != trained.corpus:
        raise InputError(
            "data.changed",
            f"data.path={run.cfg.data.path} has changed since the run {run.dir} began: resumed, the run might be "
            "validated on what it was trained on; bring the old file back, or begin a new run",
        )
    unvalidated = trained.record.validation_due or not os.path.isfile(run.dir.best_checkpoint)
    if trained.step >= run.total_steps and unvalidated:
        raise InputError(
            "run.no_steps_left", f"resume={run.dir} already trained for {trained.step} steps; increase max_steps"
        )


def _resumed_config(saved: TrainConfig, given: TrainConfig, overrides: list[str]) -> TrainConfig:
    """The saved config with what the command line says anew; a new bound on the length replaces both old ones."""
    keys = [key for key, _ in map(parted, overrides) if key != "resume"]
    refused = [key for key in keys if not any(f"{key}.".startswith(f"{known}.") for known in RESUMABLE)]
    if refused:
        raise InputError(
            "config.cannot_change",
            f"{', '.join(refused)} cannot be changed when resuming; remove it or start a new run; "
            f"{', '.join(sorted(RESUMABLE))} can",
        )
    merged = to_plain(saved)
    # What is compiled is kept there, and run: never a place that a checkpoint names.
    merged["data"]["cache_dir"] = given.data.cache_dir
    if "max_steps" in keys or "max_epochs" in keys:
        merged["max_steps"] = merged["max_epochs"] = None
    for key in keys:
        node, new = merged, to_plain(given)
        *groups, name = key.split(".")
        for group in groups:
            node, new = node[group], new[group]
        node[name] = new[name]
    return from_plain(merged)


def _vocab_size(cfg: TrainConfig, tokenizer: Tokenizer) -> int:
    needed = len(tokenizer.vocabulary)
    if cfg.model.vocab_size is not None and cfg.model.vocab_size < needed:
        raise InputError(
            "model.vocab_too_small",
            f"model.vocab_size={cfg.model.vocab_size} is below the tokenizer's {needed} tokens: "
            "raise it, set it to null, or lower tokenizer.vocab_size",
        )
    return cfg.model.vocab_size or needed


def hand_over(run: Run) -> str:
    """What the processes of the other devices need to know of the run."""
    resumed = None if run.resumed is None else os.path.abspath(run.resumed.path)
    return json.dumps({"config": to_plain(run.cfg), "dir": os.path.abspath(run.dir.path), "resumed": resumed})


def take_over(known: str) -> Run:
    """The run of the first process, for another device."""
    parts = json.loads(known)
    cfg = from_plain(parts["config"])
    trained = None if parts["resumed"] is None else checkpoint.load(Path(parts["resumed"]))
    corpus = tokenize_corpus(cfg.data, chosen_tokenizer(cfg, [])[1] if trained is None else trained.tokenizer)
    settled = ResolvedConfig(
        cfg, torch.device("cpu"), peak_flops=1.0, reasons=[]
    )  # the first process measures and tells
    return Run(cfg, RunDir(Path(parts["dir"])), _data(cfg, corpus), settled, None, trained, speaks=False)
