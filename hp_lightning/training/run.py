"""A run made ready to start or to resume: checked against the corpus, the machine and what was saved."""

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from filelock import AcquireReturnProxy, FileLock
from omegaconf import DictConfig, OmegaConf

from hp_lightning import checkpoint
from hp_lightning.checkpoint import LoadedCheckpoint
from hp_lightning.common import slurm
from hp_lightning.common.console import log
from hp_lightning.common.errors import InputError
from hp_lightning.common.files import atomic_write_text
from hp_lightning.common.hydra_grammar import key_and_value
from hp_lightning.common.run_dir import RUNS, RunDir, find_checkpoint, find_resumable
from hp_lightning.common.versions import versions
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.data.dataset import TokenizedCorpus, tokenize_corpus
from hp_lightning.data.ngram_baseline import counted_loss
from hp_lightning.data.sources import absolute_path
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.migrations import FORMAT
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.schema.train import TrainConfig, from_plain, saved_config, to_plain, to_yaml, with_overrides
from hp_lightning.tokenizers import Tokenizer
from hp_lightning.training.auto import ResolvedConfig
from hp_lightning.training.optim import state_bytes

# Keys that may change when a run is resumed; everything else belongs to its weights.
RESUMABLE = {
    "data.path", "data.cache_dir", "max_steps", "max_epochs", "logger", "checkpoint", "trainer.accelerator",
    "trainer.devices", "trainer.precision", "trainer.compile", "trainer.profile", "trainer.val_every_steps",
    "optim.lr", "optim.muon_lr", "optim.plateau", "regularization.early_stopping_patience",
}  # fmt: skip

Lock = AcquireReturnProxy[FileLock]


@dataclass
class Run:
    """A run that is ready: its config, its folder, its corpus."""

    cfg: TrainConfig  # `cfg.model.vocab_size` is set, nothing is `auto`
    dir: RunDir
    data: CorpusDataModule
    lock: Lock | None = None  # of the process that writes; None in those of the run's other devices
    resumed: LoadedCheckpoint | None = None
    peak_flops: float = 1.0  # as `ResolvedConfig` has it; measured by the process that writes
    reasons: Sequence[str] = ()  # a line for each choice that was made for the run
    damaged: Sequence[Path] = ()  # checkpoints that are newer than `resumed`

    @property
    def speaks(self) -> bool:
        """Whether this process prints and writes."""
        return self.lock is not None

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
        return -1 if self.resumed is None else self.resumed.keeps_metrics_until

    @cached_property
    def kneser_ney_loss(self) -> float | None:
        """Cross-entropy of the n-gram baseline on the validation split, in nats per token."""
        return counted_loss(self.data.cfg, self.data.corpus)


@dataclass(frozen=True)
class Origin:
    """What a run starts or resumes from."""

    cfg: TrainConfig
    tokenizer: Tokenizer | TokenizerConfig  # or the settings to learn one by
    dir: RunDir | None = None  # of a run that is there already
    lock: Lock | None = None
    trained: LoadedCheckpoint | None = None  # None where the run starts over
    damaged: Sequence[Path] = ()  # newer checkpoints


def new_origin(cfg: TrainConfig, overrides: list[str]) -> Origin:
    """The origin of a new run.

    Raises:
        InputError: `tokenizer.from_run` names no run
    """
    return Origin(*chosen_tokenizer(cfg, overrides))


def saved_origin(given: TrainConfig, overrides: list[str]) -> Origin:
    """The origin of the run `given.resume`: its last whole checkpoint; where it has none, its start.

    Args:
        given: the command line's config
        overrides: which of it the command line says

    Raises:
        InputError: there is no such run, it is being trained already, it was given what cannot change, or none of its
            checkpoints is whole
    """
    assert given.resume is not None
    resumable = find_resumable(given.resume)
    lock = resumable.run_dir.lock()
    trained, damaged = checkpoint.load_first_whole(resumable.checkpoints) if resumable.checkpoints else (None, [])
    cfg = _resumed_config(_first_config(resumable.run_dir) if trained is None else trained.cfg, given, overrides)
    return Origin(cfg, _tokenizer(cfg, trained), resumable.run_dir, lock, trained, damaged)


def _tokenizer(cfg: TrainConfig, trained: LoadedCheckpoint | None) -> Tokenizer | TokenizerConfig:
    """The checkpoint's tokenizer; without one that by which the run started."""
    return chosen_tokenizer(cfg, [])[1] if trained is None else trained.tokenizer


def fitted_config(cfg: TrainConfig, corpus: TokenizedCorpus) -> TrainConfig:
    """The config with the size of the vocabulary, and with a path that holds wherever the run is resumed.

    Raises:
        InputError: `model.vocab_size` is below the tokenizer's
    """
    needed = len(corpus.tokenizer.vocabulary)
    if cfg.model.vocab_size is not None and cfg.model.vocab_size < needed:
        raise InputError(
            "model.vocab_too_small",
            f"model.vocab_size={cfg.model.vocab_size} is below the tokenizer's {needed} tokens: "
            "raise it, set it to null, or lower tokenizer.vocab_size",
        )
    model = replace(cfg.model, vocab_size=cfg.model.vocab_size or needed)
    return replace(cfg, model=model, data=replace(cfg.data, path=absolute_path(cfg.data.path)))


def make_run(
    origin: Origin, resolved: ResolvedConfig, corpus: TokenizedCorpus, overrides: list[str], hydra: DictConfig
) -> Run:
    """Put a run together, a new one in a new folder.

    Raises:
        InputError: the corpus is too short or has changed, the disk is too full, or the folder cannot be made; nothing
            was written
    """
    cfg, trained = resolved.cfg, origin.trained
    data = CorpusDataModule(cfg, corpus)  # refuses a corpus that is too short
    folder = (RUNS if cfg.run_dir is None else Path(cfg.run_dir)) if origin.dir is None else origin.dir.path
    reasons = [*resolved.reasons, _check_room(cfg, folder, resumed=trained is not None)]
    run_dir, lock = origin.dir, origin.lock
    if run_dir is None:
        run_dir = RunDir.create(cfg.run_dir, overrides)
        lock = run_dir.lock()
        atomic_write_text(run_dir.versions, json.dumps({"format": FORMAT, **versions()}, indent=2) + "\n")
        atomic_write_text(run_dir.config, to_yaml(cfg))  # a run that has no checkpoint starts over from it
        slurm.mark(run_dir)
        atomic_write_text(run_dir.overrides, OmegaConf.to_yaml(OmegaConf.create(overrides)))
        atomic_write_text(run_dir.hydra, OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})))
    run = Run(cfg, run_dir, data, lock, trained, resolved.peak_flops, reasons, origin.damaged)
    if trained is not None:
        _check_fits(run, trained)
    return run


def _check_room(cfg: TrainConfig, folder: Path, resumed: bool) -> str:
    """Say how large a checkpoint is, where there is room for those of the run.

    These are `last.ckpt`, the one before it, and `best.ckpt`; a run that is resumed has them, and each save writes two
    of them before they replace those.

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


def chosen_tokenizer(cfg: TrainConfig, overrides: list[str]) -> tuple[TrainConfig, Tokenizer | TokenizerConfig]:
    """The config, and the tokenizer of the run `tokenizer.from_run`; where that is null, the settings to learn one by.

    Raises:
        InputError: there is no such run, or other settings of the tokenizer were given, too
    """
    if cfg.tokenizer.from_run is None:
        return cfg, cfg.tokenizer
    given = {key for key, _ in map(key_and_value, overrides) if key == "tokenizer" or key.startswith("tokenizer.")}
    others = sorted(given - {"tokenizer.from_run"})
    if others:
        raise InputError(
            "config.conflict",
            f"tokenizer.from_run takes the whole tokenizer as it is: leave out {', '.join(others)}",
        )
    trained = checkpoint.load(find_checkpoint(cfg.tokenizer.from_run, "tokenizer.from_run"))
    settings = replace(trained.cfg.tokenizer, from_run=os.path.abspath(trained.path))
    return replace(cfg, tokenizer=settings), trained.tokenizer


def apply_overrides_to_checkpoint(run: Run, trained: LoadedCheckpoint) -> None:
    """Write the checkpoint again as the run's last, with its new config, which holds even if the run is killed now."""
    last = run.dir.last_checkpoint
    if run.cfg == trained.cfg and trained.path == last:
        return
    contents = trained.contents
    _set_rates(run, trained, contents["schedule"])
    ours = contents[checkpoint.CHECKPOINT_KEY]
    ours["config"] = to_plain(run.cfg)
    copies = []
    if trained.step == trained.record.best_step:
        copies = [run.dir.best_checkpoint]
    elif not _is_of_step(run.dir.best_checkpoint, trained.record.best_step):
        ours["record"]["best"] = []  # a later checkpoint took its place, which the run does not resume from
    checkpoint.write_checkpoint(contents, last, copies)
    run.resumed = replace(trained, path=last, cfg=run.cfg)


def _set_rates(run: Run, trained: LoadedCheckpoint, schedule: dict[str, Any]) -> None:
    """Take a new rate as it was given, not as the plateau had lowered the old one; the other rate stays lowered."""
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


def _first_config(run_dir: RunDir) -> TrainConfig:
    """The config that a run started with."""
    log.info("%s was stopped before its first checkpoint; starting over", run_dir)
    return saved_config(run_dir)


def _check_fits(run: Run, trained: LoadedCheckpoint) -> None:
    if run.data.digest != trained.corpus:
        raise InputError(
            "data.changed",
            f"data.path={run.cfg.data.path} has changed since the run {run.dir} started: resumed, the run might be "
            "validated on what it was trained on; bring the old file back, or start a new run",
        )
    before = CorpusDataModule(trained.cfg, run.data.corpus)
    if before.tokens_per_step != run.data.tokens_per_step:
        raise InputError(
            "config.cannot_change",
            f"trainer.devices={run.cfg.trainer.devices} changes a step on so small a corpus, of "
            f"{before.tokens_per_step} tokens: resume with trainer.devices={trained.cfg.trainer.devices}",
        )
    unvalidated = trained.record.validation_due or not os.path.isfile(run.dir.best_checkpoint)
    if trained.step >= run.total_steps and unvalidated:
        raise InputError(
            "run.no_steps_left", f"resume={run.dir} already trained for {trained.step} steps; increase max_steps"
        )


def _resumed_config(saved: TrainConfig, given: TrainConfig, overrides: list[str]) -> TrainConfig:
    """The saved config with what the command line overrides; a new bound on the length replaces both old ones."""
    keys = [key for key, _ in map(key_and_value, overrides) if key != "resume"]
    refused = [key for key in keys if not any(f"{key}.".startswith(f"{known}.") for known in RESUMABLE)]
    if refused:
        raise InputError(
            "config.cannot_change",
            f"{', '.join(refused)} cannot be changed when resuming; remove it or start a new run; "
            f"{', '.join(sorted(RESUMABLE))} can",
        )
    if "max_steps" in keys or "max_epochs" in keys:
        saved = replace(saved, max_steps=None, max_epochs=None)
    # What is compiled is kept there, and run: never a place that a checkpoint names.
    return with_overrides(saved, given, [*keys, "data.cache_dir"])


def hand_over(run: Run) -> str:
    """What the processes of the other devices need to know of the run, for `take_over`."""
    resumed = None if run.resumed is None else os.path.abspath(run.resumed.path)
    return json.dumps({"config": to_plain(run.cfg), "dir": os.path.abspath(run.dir.path), "resumed": resumed})


def take_over(handed_over: str) -> Run:
    """The run of the first process, for another device."""
    known = json.loads(handed_over)
    cfg = from_plain(known["config"])
    trained = None if known["resumed"] is None else checkpoint.load(Path(known["resumed"]))
    data = CorpusDataModule(cfg, tokenize_corpus(cfg.data, _tokenizer(cfg, trained)))
    return Run(cfg, RunDir(Path(known["dir"])), data, resumed=trained)
