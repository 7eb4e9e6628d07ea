"""One run, from its config to its summary."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from hp_lightning import checkpoint, runs
from hp_lightning.checkpoint import AtomicCheckpointIO, Checkpoints, Trained
from hp_lightning.config import TrainConfig, from_plain, to_plain
from hp_lightning.data import CorpusDataModule
from hp_lightning.errors import InputError, Interrupted
from hp_lightning.generation import Sampling, continue_text
from hp_lightning.lightning_module import GPTModule
from hp_lightning.reporting.run_log import RunLog
from hp_lightning.reporting.summary import show_summary, write_summary
from hp_lightning.reporting.tensorboard import Samples, log_hyperparameters, make_logger
from hp_lightning.reporting.terminal import ProgressDisplay, log, messages
from hp_lightning.stopping import StopOnSignal

# What a resumed run may be told anew; everything else belongs to the weights it goes on with.
RESUMABLE = {"resume", "max_steps", "max_epochs", "logger", "regularization.early_stopping_patience"}


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


def train(cfg: TrainConfig, overrides: list[str], hydra: DictConfig | None = None) -> None:
    """Trains, or goes on with the run `cfg.resume`; leaves a run folder that is complete in itself.

    Args:
        cfg: the checked config
        overrides: the command line's, which name the run and say what a resumed run is told anew
        hydra: Hydra's own config, kept in the run folder

    Raises:
        InputError: the corpus, the checkpoint or the machine does not fit the config; nothing was written
        RunError: the run could not be finished
    """
    if cfg.trainer.accelerator == "gpu" and not torch.accelerator.is_available():
        raise InputError("trainer.accelerator=gpu, but there is no GPU that PyTorch can use: take trainer=cpu")
    with messages() as said:
        run = _resume(cfg, overrides) if cfg.resume else _begin(cfg, overrides, hydra)
        said.keep_in(run.dir / "train.log")
        _describe(run)
        if run.resumed is None or _has_work_left(run, run.resumed):
            _fit(run)


def _begin(cfg: TrainConfig, overrides: list[str], hydra: DictConfig | None) -> Run:
    data = CorpusDataModule(cfg.data, cfg.tokenizer, cfg.seed, cfg.trainer.accumulate_grad_batches)
    cfg = replace(cfg, model=replace(cfg.model, vocab_size=_vocab_size(cfg, data)))
    run_dir = runs.make_run_dir(cfg.run_dir, overrides)
    kept = run_dir / ".hydra"
    kept.mkdir()
    OmegaConf.save(OmegaConf.create(to_plain(cfg)), kept / "config.yaml")
    OmegaConf.save(OmegaConf.create(overrides), kept / "overrides.yaml")
    if hydra is not None:
        OmegaConf.save(OmegaConf.create({"hydra": hydra}), kept / "hydra.yaml")
    return Run(cfg, run_dir, data)


def _resume(cfg: TrainConfig, overrides: list[str]) -> Run:
    run_dir = Path(str(cfg.resume))
    path = runs.last_checkpoint(run_dir)
    if not path.is_file():
        raise InputError(f"resume={cfg.resume} holds no checkpoints/last.ckpt: name the folder of a run that has one")
    trained = checkpoint.load(path)
    cfg = _resumed_config(trained.cfg, cfg, overrides)
    data = CorpusDataModule(cfg.data, trained.tokenizer, cfg.seed, cfg.trainer.accumulate_grad_batches)
    return Run(cfg, run_dir, data, trained)


def _resumed_config(saved: TrainConfig, given: TrainConfig, overrides: list[str]) -> TrainConfig:
    """The saved config with what the command line says anew; a new bound on the length replaces both old ones."""
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    refused = [key for key in keys if key not in RESUMABLE and not key.startswith("logger.")]
    if refused:
        raise InputError(
            f"{', '.join(refused)} cannot change in a resumed run: leave it out, or begin a new run; "
            f"{', '.join(sorted(RESUMABLE - {'resume'}))} can"
        )
    merged, new = OmegaConf.create(to_plain(saved)), OmegaConf.create(to_plain(given))
    if "max_steps" in keys or "max_epochs" in keys:
        merged.max_steps = merged.max_epochs = None
    for key in keys:
        OmegaConf.update(merged, key, OmegaConf.select(new, key))
    return from_plain(OmegaConf.to_container(merged))  # type: ignore[arg-type]


def _vocab_size(cfg: TrainConfig, data: CorpusDataModule) -> int:
    needed = len(data.tokenizer.vocabulary)
    if cfg.model.vocab_size is not None and cfg.model.vocab_size < needed:
        raise InputError(
            f"model.vocab_size={cfg.model.vocab_size} is below the tokenizer's {needed} tokens: "
            "raise it, set it to null, or lower tokenizer.vocab_size"
        )
    return cfg.model.vocab_size or needed


def _describe(run: Run) -> None:
    data, documents = run.data, run.data.documents
    log.info("run     %s", run.dir)
    log.info(
        "corpus  %s: %d / %d / %d documents to train on, validate and test, %s / %s / %s tokens",
        run.cfg.data.path, len(documents.train), len(documents.val), len(documents.test),
        *(f"{data.num_tokens(part):,}" for part in ("train", "val", "test")),
    )  # fmt: skip
    log.info(
        "tokens  %s, vocabulary %s, <UNK> %.2f %% of validation",
        run.cfg.tokenizer.kind, f"{len(data.tokenizer.vocabulary):,}", 100 * data.unk_rate("val"),
    )  # fmt: skip
    log.info(
        "length  %s steps of %s tokens, %s steps an epoch\n",
        f"{run.total_steps:,}", f"{data.tokens_per_step:,}", f"{data.steps_per_epoch:,}",
    )  # fmt: skip


def _has_work_left(run: Run, trained: Trained) -> bool:
    patience = run.cfg.regularization.early_stopping_patience
    out_of_patience = patience is not None and trained.validations_since_best >= patience
    if out_of_patience or trained.step >= run.total_steps:
        reason = "stopped early" if out_of_patience else "trained to its end"
        log.info("The run is complete: %s, at step %s. To train on:", reason, f"{trained.step:,}")
        log.info("%s", _command_to_go_on(run, trained.step, out_of_patience))
        return False
    log.info("resumed at step %s", trained.step)
    return True


def _command_to_go_on(run: Run, step: int, out_of_patience: bool) -> str:
    """What a complete run must be told to train on."""
    patience = run.cfg.regularization.early_stopping_patience or 1
    more = f"regularization.early_stopping_patience={2 * patience}" if out_of_patience else f"max_steps={2 * step}"
    return f"python train.py resume={run.dir} {more}"


def _fit(run: Run) -> None:
    """Trains, tests and reports; the summary tells the status also of a run that did not end well."""
    cfg, data = run.cfg, run.data
    L.seed_everything(cfg.seed, verbose=False)
    module = GPTModule(cfg)
    run_log = RunLog(run.dir, cfg.logger.log_every_steps)
    checkpoints = Checkpoints(run.dir, data.tokenizer, cfg.regularization.early_stopping_patience)
    trainer = _make_trainer(run, run_log, checkpoints)
    status, reason = "failed", None
    try:
        resume_from = None if run.resumed is None else run.resumed.path
        trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
        status = "stopped early" if checkpoints.out_of_patience else "completed"
    except Interrupted as interruption:
        status, reason = "interrupted", str(interruption)
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise
    finally:
        summary = {"status": status, "reason": reason, **_figures(run, module, run_log, checkpoints)}
        write_summary(run.dir, summary)
    _report(run, trainer, module, summary)


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
        logger=make_logger(run.dir, step) if cfg.logger.tensorboard else False,
        callbacks=[
            run_log,
            ProgressDisplay(run_log, run.total_steps),
            Samples(cfg.logger, run.data.tokenizer, cfg.data.seq_len),
            checkpoints,
            StopOnSignal(checkpoints, run.val_every),
        ],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=run.dir,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _figures(run: Run, module: GPTModule, run_log: RunLog, checkpoints: Checkpoints) -> dict[str, Any]:
    data, step = run.data, run_log.step
    best = checkpoints.best_loss if math.isfinite(checkpoints.best_loss) else None
    return {
        "val/loss": run_log.latest.get("val/loss"),
        "val/perplexity": run_log.latest.get("val/perplexity"),
        "val/bits_per_char": run_log.latest.get("val/bits_per_char"),
        "best/val/loss": best,
        "best/val/perplexity": None if best is None else math.exp(best),
        "best/val/bits_per_char": None if best is None else data.bits_per_char("val", best),
        "best/step": checkpoints.best_step,
        "unigram/val_loss": data.unigram_loss("val"),
        "unk_rate": data.unk_rate("val"),
        "parameters": module.net.num_parameters(),
        "steps": step,
        "tokens_seen": step * data.tokens_per_step,
        "seconds": round(run_log.seconds, 1),
    }


def _report(run: Run, trainer: L.Trainer, module: GPTModule, summary: dict[str, Any]) -> None:
    """Tests the best checkpoint, lets it write, and shows everything."""
    best = checkpoint.load(runs.best_checkpoint(run.dir))
    checkpoint.load_weights(module.net, best)
    reached = {key: summary[f"best/val/{key}"] for key in ("loss", "perplexity", "bits_per_char")}
    metrics = {f"reached/val_{key}": value for key, value in reached.items()}
    if run.data.documents.test:
        trainer.test(module, datamodule=run.data, verbose=False)
        tested = {key: trainer.callback_metrics[f"test/{key}"].item() for key in reached}
        summary.update({f"test/{key}": value for key, value in tested.items()})
        summary["test/unk_rate"] = run.data.unk_rate("test")
        metrics["reached/test_loss"] = tested["loss"]
    log_hyperparameters(trainer, run.cfg, metrics)
    write_summary(run.dir, summary)
    prompt, context = run.cfg.logger.sample_prompt, run.cfg.data.seq_len
    [sample] = continue_text(module.net, run.data.tokenizer, prompt, context, Sampling())
    command = _command_to_go_on(run, summary["steps"], summary["status"] == "stopped early")
    show_summary(run.dir, summary, sample, command)
