"""One run, from its config to its summary."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from hp_lightning import checkpoint, runs
from hp_lightning.checkpoint import AtomicCheckpointIO, Checkpoints, Trained
from hp_lightning.config import TokenizerConfig, TrainConfig, from_plain, to_plain, to_yaml
from hp_lightning.corpus import absolute_path
from hp_lightning.data import CorpusDataModule
from hp_lightning.errors import InputError, Interrupted, RunError
from hp_lightning.generation import Sampling, continue_text
from hp_lightning.lightning_module import GPTModule, perplexity
from hp_lightning.messages import messages
from hp_lightning.progress import log
from hp_lightning.reporting.corpus import show_corpus
from hp_lightning.reporting.run_log import RunLog
from hp_lightning.reporting.summary import is_complete, show_summary, write_summary
from hp_lightning.reporting.tensorboard import Samples, log_hyperparameters, make_logger
from hp_lightning.reporting.terminal import ProgressDisplay
from hp_lightning.stopping import StopOnSignal
from hp_lightning.tokenization import Tokenizer

# What a resumed run may be told anew; everything else belongs to the weights it goes on with.
RESUMABLE = {
    "resume", "data.path", "data.cache_dir", "max_steps", "max_epochs", "logger", "trainer.accelerator",
    "regularization.early_stopping_patience",
}  # fmt: skip


@dataclass
class Run:
    """A run that can begin: its settings, its folder, its corpus."""

    cfg: TrainConfig  # `cfg.model.vocab_size` is set
    dir: Path
    data: CorpusDataModule
    resumed: Trained | None = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps after which the run ends."""
        by_epochs = math.inf if self.cfg.max_epochs is None else self.cfg.max_epochs * self.data.steps_per_epoch
        return int(min(math.inf if self.cfg.max_steps is None else self.cfg.max_steps, by_epochs))

    @property
    def val_every(self) -> int:
        """Optimizer steps between two validations."""
        return self.cfg.trainer.val_every_steps or self.data.steps_per_epoch


def train(cfg: TrainConfig, overrides: list[str], hydra: DictConfig) -> None:
    """Trains, or goes on with the run `cfg.resume`; leaves a run folder that is complete in itself.

    Args:
        cfg: the checked config
        overrides: the command line's, which name the run and say what a resumed run is told anew
        hydra: Hydra's own config, kept in the run folder

    Raises:
        InputError: the corpus, the checkpoint or the machine does not fit the config; nothing was written
        RunError: the run could not be finished
    """
    with messages() as said:
        run = _begin(cfg, overrides, hydra) if cfg.resume is None else _resume(cfg.resume, cfg, overrides)
        said.keep_in(run.dir / "train.log")
        _describe(run)
        if run.resumed is None or _has_work_left(run, run.resumed):
            _fit(run)


def _begin(cfg: TrainConfig, overrides: list[str], hydra: DictConfig) -> Run:
    _check_accelerator(cfg)
    cfg, tokenizer = chosen_tokenizer(cfg, overrides)
    data = CorpusDataModule(cfg.data, tokenizer, cfg.seed, cfg.trainer.accumulate_grad_batches)
    cfg = replace(
        cfg,
        model=replace(cfg.model, vocab_size=_vocab_size(cfg, data)),
        data=replace(cfg.data, path=absolute_path(cfg.data.path)),  # resumed from anywhere
    )
    run_dir = runs.make_run_dir(cfg.run_dir, overrides)
    kept = run_dir / ".hydra"
    (kept / "config.yaml").write_text(to_yaml(cfg), encoding="utf-8")
    OmegaConf.save(OmegaConf.create(overrides), kept / "overrides.yaml")
    OmegaConf.save(OmegaConf.create({"hydra": hydra}), kept / "hydra.yaml")
    return Run(cfg, run_dir, data)


def chosen_tokenizer(cfg: TrainConfig, overrides: list[str]) -> tuple[TrainConfig, Tokenizer | TokenizerConfig]:
    """The tokenizer of the run `tokenizer.from_run`, its settings in the config; else the settings to learn one by.

    Raises:
        InputError: there is no such run, or other settings of the tokenizer were given beside it
    """
    if cfg.tokenizer.from_run is None:
        return cfg, cfg.tokenizer
    given = {key for key in map(_key, overrides) if key == "tokenizer" or key.startswith("tokenizer.")}
    others = sorted(given - {"tokenizer.from_run"})
    if others:
        raise InputError(f"tokenizer.from_run takes the whole tokenizer as it is: leave out {', '.join(others)}")
    trained = checkpoint.load(runs.find_checkpoint(cfg.tokenizer.from_run, "tokenizer.from_run"))
    settings = replace(trained.cfg.tokenizer, from_run=os.path.abspath(trained.path))
    return replace(cfg, tokenizer=settings), trained.tokenizer


def _resume(folder: str, given: TrainConfig, overrides: list[str]) -> Run:
    path = runs.last_checkpoint(Path(folder))
    if not os.path.isfile(path):
        raise InputError(f"resume={folder} holds no checkpoints/last.ckpt: name the folder of a run that has one")
    trained = checkpoint.load(path)
    cfg = _resumed_config(trained.cfg, given, overrides)
    _check_accelerator(cfg)
    data = CorpusDataModule(cfg.data, trained.tokenizer, cfg.seed, cfg.trainer.accumulate_grad_batches)
    if data.digest != trained.corpus:
        raise InputError(
            f"data.path={cfg.data.path} has changed since the run {folder} began: resumed, the run might be validated "
            "on what it was trained on; bring the old file back, or begin a new run"
        )
    run = Run(cfg, Path(folder), data, trained)
    if trained.step >= run.total_steps and not os.path.isfile(runs.best_checkpoint(run.dir)):
        raise InputError(f"resume={folder} has taken {trained.step} steps already: give it more by max_steps=")
    return run


def _check_accelerator(cfg: TrainConfig) -> None:
    if cfg.trainer.accelerator == "gpu" and not torch.accelerator.is_available():
        raise InputError(
            "trainer.accelerator=gpu, but there is no GPU that PyTorch can use: set trainer.accelerator=cpu"
        )


def _resumed_config(saved: TrainConfig, given: TrainConfig, overrides: list[str]) -> TrainConfig:
    """The saved config with what the command line says anew; a new bound on the length replaces both old ones."""
    keys = [_key(override) for override in overrides]
    refused = [key for key in keys if key not in RESUMABLE and not key.startswith("logger.")]
    if refused:
        raise InputError(
            f"{', '.join(refused)} cannot change in a resumed run: leave it out, or begin a new run; "
            f"{', '.join(sorted(RESUMABLE - {'resume'}))} can"
        )
    merged = to_plain(saved)
    if "max_steps" in keys or "max_epochs" in keys:
        merged["max_steps"] = merged["max_epochs"] = None
    for key in keys:
        node, new = merged, to_plain(given)
        *groups, name = key.split(".")
        for group in groups:
            node, new = node[group], new[group]
        node[name] = new[name]
    return from_plain(merged)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _vocab_size(cfg: TrainConfig, data: CorpusDataModule) -> int:
    needed = len(data.tokenizer.vocabulary)
    if cfg.model.vocab_size is not None and cfg.model.vocab_size < needed:
        raise InputError(
            f"model.vocab_size={cfg.model.vocab_size} is below the tokenizer's {needed} tokens: "
            "raise it, set it to null, or lower tokenizer.vocab_size"
        )
    return cfg.model.vocab_size or needed


def _describe(run: Run) -> None:
    data = run.data
    log.info("run     %s", run.dir)
    show_corpus(run.cfg.data.path, data.corpus)
    log.info(
        "length  %s steps of %s tokens, %s steps an epoch\n",
        f"{run.total_steps:,}", f"{data.tokens_per_step:,}", f"{data.steps_per_epoch:,}",
    )  # fmt: skip


def _has_work_left(run: Run, trained: Trained) -> bool:
    """Whether there are steps to take; or tests to make, in a run that was stopped after its last step."""
    if not is_complete(run.dir) or not _bounds_reached(run, trained.step, trained.validations_since_best):
        log.info("resumed at step %s", trained.step)
        return True
    log.info("The run is complete, with %s steps. To train on:", f"{trained.step:,}")
    log.info("%s", _command_to_go_on(run, trained.step, trained.validations_since_best))
    return False


def _bounds_reached(run: Run, step: int, validations_since_best: int) -> list[str]:
    """The settings that end the run where it stands, each with a value that would let it go on."""
    patience = run.cfg.regularization.early_stopping_patience
    wider = [f"max_steps={2 * step}"] if step >= run.total_steps else []
    if patience is not None and validations_since_best >= patience:
        wider.append(f"regularization.early_stopping_patience={2 * patience}")
    return wider


def _command_to_go_on(run: Run, step: int, validations_since_best: int) -> str:
    wider = _bounds_reached(run, step, validations_since_best)
    return runs.command("python", runs.script("train.py"), f"resume={run.dir}", *wider)


def _fit(run: Run) -> None:
    """Trains, tests and reports; the summary also tells of a run that did not end well, and why."""
    L.seed_everything(run.cfg.seed, verbose=False)
    module = GPTModule(run.cfg)
    run_log = RunLog(run.dir, run.cfg.logger.log_every_steps)
    checkpoints = Checkpoints(run.dir, run.data, run.cfg.regularization.early_stopping_patience)
    trainer = _make_trainer(run, run_log, checkpoints)
    resume_from = None if run.resumed is None else run.resumed.path
    try:
        trainer.fit(module, datamodule=run.data, ckpt_path=resume_from, weights_only=True)
        figures = _figures(run, trainer, module, run_log, checkpoints)
        _report(run, trainer, module, checkpoints, figures)
    except BaseException as error:
        # Lightning turns a Ctrl-C that comes while no handler of ours is set into sys.exit(1).
        pressed = isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)
        if run_log.begun:
            status = "interrupted" if pressed or isinstance(error, Interrupted) else "failed"
            figures = _figures(run, trainer, module, run_log, checkpoints)
            reason = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            write_summary(run.dir, {"status": status, "reason": reason, **figures})
        if pressed:
            raise KeyboardInterrupt from error
        raise


def _make_trainer(run: Run, run_log: RunLog, checkpoints: Checkpoints) -> L.Trainer:
    cfg = run.cfg
    step = None if run.resumed is None else run.resumed.step
    return L.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=1,
        precision=cfg.trainer.precision,  # type: ignore[arg-type]
        max_steps=run.total_steps,
        max_epochs=-1,
        accumulate_grad_batches=cfg.trainer.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        val_check_interval=run.val_every * cfg.trainer.accumulate_grad_batches,
        num_sanity_val_steps=0,
        logger=make_logger(run.dir, cfg, step) if cfg.logger.tensorboard else False,
        log_every_n_steps=1,  # of no use to us, but Lightning warns where an epoch is shorter
        callbacks=[
            run_log,
            ProgressDisplay(run_log, run.total_steps),
            *([Samples(cfg.logger, run.data.tokenizer, cfg.data.seq_len)] if cfg.logger.tensorboard else []),
            checkpoints,
            StopOnSignal(checkpoints, run.val_every),
        ],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run.dir,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _figures(
    run: Run, trainer: L.Trainer, module: GPTModule, run_log: RunLog, checkpoints: Checkpoints
) -> dict[str, Any]:
    """What the run has come to so far."""
    data, step = run.data, trainer.global_step
    best = checkpoints.best_loss if math.isfinite(checkpoints.best_loss) else math.nan
    return {
        **{f"val/{name}": run_log.latest.get(f"val/{name}") for name in ("loss", "perplexity", "bits_per_char")},
        "best/val/loss": best,
        "best/val/perplexity": perplexity(best),
        "best/val/bits_per_char": data.bits_per_char("val", best),
        "best/step": checkpoints.best_step,
        "unigram/val_loss": data.unigram_loss("val"),
        "unk_rate": data.unk_rate("val"),
        "parameters": module.net.num_parameters(),
        "steps": step,
        "tokens_seen": step * data.tokens_per_step,
        "seconds": round(run_log.seconds, 1),
    }


def _report(run: Run, trainer: L.Trainer, module: GPTModule, checkpoints: Checkpoints, figures: dict[str, Any]) -> None:
    """Tests the best checkpoint, lets it write, and shows everything."""
    checkpoint.load_weights(module.net, checkpoint.load(runs.best_checkpoint(run.dir)))
    reached = {f"reached/val_{name}": figures[f"best/val/{name}"] for name in ("loss", "perplexity", "bits_per_char")}
    if run.data.num_tokens("test"):
        trainer.test(module, datamodule=run.data, verbose=False)
        figures.update(
            {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
        )
        figures["test/unk_rate"] = run.data.unk_rate("test")
        reached["reached/test_loss"] = figures["test/loss"]
    log_hyperparameters(trainer, run.cfg, reached)
    status = "stopped early" if checkpoints.out_of_patience else "completed"
    summary = {"status": status, "reason": None, **figures}
    prompt, context = run.cfg.logger.sample_prompt, run.cfg.data.seq_len
    [sample] = continue_text(module.net, run.data.tokenizer, prompt, context, Sampling())
    write_summary(run.dir, summary)
    show_summary(run.dir, summary, sample, _commands(run, summary["steps"], checkpoints.validations_since_best))


def _commands(run: Run, step: int, validations_since_best: int) -> dict[str, str]:
    """What can be done with the run next."""
    shown = runs.OUTPUTS if run.dir.is_relative_to(runs.OUTPUTS) else run.dir
    watch = {"watch it": runs.command("tensorboard", "--logdir", str(shown))} if run.cfg.logger.tensorboard else {}
    return {
        **watch,
        "let it write": runs.command("python", runs.script("generate.py"), f"ckpt={run.dir}", "prompt=The lantern"),
        "go on with it": _command_to_go_on(run, step, validations_since_best),
    }
