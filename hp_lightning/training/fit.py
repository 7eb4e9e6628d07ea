"""One run, from its config to its summary."""

import atexit
import gc
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig

from hp_lightning import checkpoint
from hp_lightning.checkpoint import LoadedCheckpoint
from hp_lightning.common import torchrun
from hp_lightning.common.command_line import HANDED_OVER, command, own_command, restored_environment
from hp_lightning.common.console import LIBRARY_LOGGERS, log, messages
from hp_lightning.common.errors import InputError, RunError
from hp_lightning.common.failpoints import failpoint
from hp_lightning.common.files import file_refusals
from hp_lightning.common.hardware import check_devices
from hp_lightning.common.run_dir import OUTPUTS
from hp_lightning.data.dataset import tokenize_corpus
from hp_lightning.data.downloads import cache_folder
from hp_lightning.inference.generate import Sampling, continue_text
from hp_lightning.models.loss import perplexity
from hp_lightning.schema.train import TrainConfig
from hp_lightning.training.auto import resolve_auto
from hp_lightning.training.board import Board
from hp_lightning.training.callbacks.divergence import DivergenceGuard
from hp_lightning.training.callbacks.early_stopping import EarlyStopping
from hp_lightning.training.callbacks.graceful_shutdown import GracefulShutdown
from hp_lightning.training.callbacks.metrics_csv import MetricsCSV
from hp_lightning.training.callbacks.profiler import StepProfiler
from hp_lightning.training.callbacks.progress_bar import ProgressDisplay
from hp_lightning.training.callbacks.resumable_checkpoint import AtomicCheckpointIO, ResumableCheckpoint
from hp_lightning.training.callbacks.samples import prompts
from hp_lightning.training.compile import keep_compiled_in
from hp_lightning.training.debug import outcome
from hp_lightning.training.ending import classify
from hp_lightning.training.head import describe
from hp_lightning.training.module import GPTModule
from hp_lightning.training.run import (
    Run,
    apply_overrides_to_checkpoint,
    fitted_config,
    hand_over,
    make_run,
    new_origin,
    saved_origin,
    take_over,
)
from hp_lightning.training.summary import show_summary


@dataclass(frozen=True)
class Extras:
    """What a program gives Lightning's Trainer besides what a run has."""

    callbacks: Sequence[L.Callback] = ()
    loggers: Sequence[Logger] = ()


NO_EXTRAS = Extras()


def train(cfg: TrainConfig, overrides: list[str], hydra: DictConfig, extras: Extras = NO_EXTRAS) -> Path:
    """Train a new run, or resume the run `cfg.resume`; leave a run folder that is complete in itself.

    Args:
        cfg: the checked config
        overrides: the command line's, which name the run and say which keys of a resumed run change
        hydra: Hydra's own config, kept in the run folder
        extras: what Lightning's Trainer is given besides

    Returns:
        the run folder

    Raises:
        InputError: the corpus, the checkpoint or the machine does not fit the config; nothing was written
        RunError: the run could not be finished
    """
    _allow_tf32()
    with messages() as log_file, file_refusals("try again"):
        _check_started_once()
        origin = new_origin(cfg, overrides) if cfg.resume is None else saved_origin(cfg, overrides)
        check_devices(origin.cfg.trainer.accelerator, origin.cfg.trainer.devices)
        corpus = tokenize_corpus(origin.cfg.data, origin.tokenizer)
        resolved = resolve_auto(fitted_config(origin.cfg, corpus), len(corpus.streams["train"]))
        run = make_run(origin, resolved, corpus, overrides, hydra)
        assert run.lock is not None
        with run.lock, file_refusals(_resume_advice(run)):
            log_file.keep_in(run.dir.log)
            describe(run)
            if run.resumed is None or _has_work_left(run, run.resumed):
                _train_on_every_device(run, extras)
    return run.dir.path


def _train_on_every_device(run: Run, extras: Extras) -> None:
    checkpoint.put_aside(run.damaged)
    if run.resumed is not None:
        apply_overrides_to_checkpoint(run, run.resumed)
    handed_over = hand_over(run)
    torchrun.tell(handed_over)
    with restored_environment({HANDED_OVER: handed_over} if run.cfg.trainer.devices > 1 else {}):
        _fit(run, extras)


def train_beside(handed_over: str) -> None:
    """Train the share of another device in a run; the first process alone speaks and writes.

    Args:
        handed_over: what `hand_over` gave in the first process
    """
    _allow_tf32()
    for name in LIBRARY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    run = take_over(handed_over)
    with suppress(RunError), warnings.catch_warnings(action="ignore"):  # they end together
        _fit(run)


def _allow_tf32() -> None:
    """Where a run computes in float32 at all."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")


def _check_started_once() -> None:
    """A run starts its processes itself, by its own command line, or torchrun does."""
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        raise InputError(
            "machine.several_processes",
            "srun has started the run several times: give it --ntasks=1, trainer.devices does the rest",
        )


def _has_work_left(run: Run, trained: LoadedCheckpoint) -> bool:
    """Whether there are steps to take; or tests to make, in a run that was stopped after its last step."""
    if not run.dir.is_complete(trained.step) or not _bounds_reached(
        run, trained.step, trained.record.validations_since_best
    ):
        log.info("resumed at step %s", trained.step)
        return True
    log.info("Run already finished (%s steps). To train further:", f"{trained.step:,}")
    log.info("%s", _command_to_resume(run, trained.step, trained.record.validations_since_best))
    return False


def _bounds_reached(run: Run, step: int, validations_since_best: int) -> list[str]:
    """The settings that end the run where it stands, each with a value that would let it train further."""
    patience = run.cfg.regularization.early_stopping_patience
    wider = [f"max_steps={2 * step}"] if step >= run.total_steps else []
    if patience is not None and validations_since_best >= patience:
        wider.append(f"regularization.early_stopping_patience={2 * patience}")
    return wider


def _command_to_resume(run: Run, step: int, validations_since_best: int) -> str:
    wider = _bounds_reached(run, step, validations_since_best)
    return own_command("train", f"resume={run.dir}", *wider)


def _fit(run: Run, extras: Extras = NO_EXTRAS) -> None:
    """Train, test and report; the summary also tells of a run that did not end well, and why."""
    atexit.register(_leave_process_group)
    keep_compiled_in(cache_folder(run.cfg.data) / "compiled")
    L.seed_everything(run.cfg.seed, verbose=False)
    module = GPTModule(run.cfg, log=False)
    # Tokens per second, times this, are the share of the machine's matrix rate.
    flops_share = module.net.flops_per_token(run.cfg.data.seq_len) / run.peak_flops
    metrics_csv = MetricsCSV(run.dir, run.cfg.logger.log_every_steps, run.kept_until, flops_share)
    board = Board(run, module.net) if run.cfg.logger.tensorboard and run.speaks else None
    trainer, checkpoints = _make_trainer(run, metrics_csv, board, extras)
    resume_from = None
    if run.resumed is not None:
        resume_from = run.resumed.path
        run.resumed.drop_state()  # which Lightning reads again
    try:
        with _out_of_memory_refusal(run), file_refusals(_resume_advice(run)), _imports_left_out_of_collections():
            trainer.fit(module, datamodule=run.data, ckpt_path=resume_from, weights_only=True)
            _report(run, trainer, module, checkpoints, board, _metrics(run, trainer, module, metrics_csv, checkpoints))
    except BaseException as error:
        ending = classify(error, run.dir)
        if metrics_csv.has_started and trainer.is_global_zero:
            summary = {"status": ending.status, "reason": ending.reason}
            with suppress(OSError):  # would hide the first error
                run.dir.write_summary(summary | _metrics(run, trainer, module, metrics_csv, checkpoints))
        if ending.interrupted is not None:
            raise ending.interrupted from error
        raise


@contextmanager
def _imports_left_out_of_collections() -> Iterator[None]:
    """A collection of garbage that looks through all that was imported takes longer than a step."""
    if gc.get_freeze_count():  # by the program around this
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _leave_process_group() -> None:
    """Before Python ends, whose end the threads of gloo must not meet; Lightning itself does so for NCCL alone."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _resume_advice(run: Run) -> str:
    return f"resume with resume={run.dir}"


@contextmanager
def _out_of_memory_refusal(run: Run) -> Iterator[None]:
    """Say in a line what to lower where the memory does not suffice, for the network or for a step."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # On a processor PyTorch has no error of its own for it.
        is_of_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
        if not is_of_memory:
            raise
        tokens, seq_len = run.data.tokens_per_step, run.cfg.data.seq_len
        sequences = tokens // seq_len // run.cfg.trainer.accumulate_grad_batches  # a small corpus has no more
        raise RunError(
            "machine.out_of_memory",
            f"out of memory with data.batch_size={sequences} sequences of data.seq_len={seq_len} tokens in a forward "
            f"pass: lower data.batch_size and set data.batch_tokens={tokens}, which keeps the optimizer step and makes "
            "it in smaller passes; or lower data.seq_len, or take a smaller model",
        ) from error


def _make_trainer(
    run: Run, metrics_csv: MetricsCSV, board: Board | None, extras: Extras
) -> tuple[L.Trainer, ResumableCheckpoint]:
    cfg = run.cfg
    assert cfg.model.vocab_size is not None
    divergence = DivergenceGuard(cfg.model.vocab_size, cfg.logger.log_every_steps, str(run.dir))
    checkpoints = ResumableCheckpoint(run.dir, run.data, cfg, run.val_every, run.resumed, divergence.check)
    trainer = L.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=cfg.trainer.devices,
        strategy=DDPStrategy(broadcast_buffers=False) if cfg.trainer.devices > 1 else "auto",
        use_distributed_sampler=False,
        precision=cfg.trainer.precision,  # type: ignore[arg-type]
        max_steps=run.total_steps,
        max_epochs=-1,
        accumulate_grad_batches=cfg.trainer.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        val_check_interval=run.val_every * cfg.trainer.accumulate_grad_batches,
        num_sanity_val_steps=0,
        logger=[*([] if board is None else [board.logger]), *extras.loggers],
        log_every_n_steps=1,  # of no use to us, but Lightning warns where an epoch is shorter
        callbacks=[
            divergence,
            metrics_csv,
            *([ProgressDisplay(metrics_csv, run.total_steps)] if run.speaks else []),
            *([] if board is None else board.callbacks),
            *extras.callbacks,
            *([StepProfiler(run.dir.profile)] if cfg.trainer.profile and run.speaks else []),
            GracefulShutdown(checkpoints),
            checkpoints,
            EarlyStopping(cfg.regularization.early_stopping_patience, checkpoints),
        ],
        # A cluster's own environment would expect a task for each device, and take the signals over.
        plugins=[AtomicCheckpointIO(), LightningEnvironment()],
        default_root_dir=run.dir.path,
        detect_anomaly=cfg.debug == "anomaly",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return trainer, checkpoints


def _metrics(
    run: Run, trainer: L.Trainer, module: GPTModule, metrics_csv: MetricsCSV, checkpoints: ResumableCheckpoint
) -> dict[str, Any]:
    """The metrics of the run so far, as summary.json has them."""
    data, step = run.data, trainer.global_step
    record = checkpoints.record
    best = record.best_loss if math.isfinite(record.best_loss) else math.nan
    return {
        **{
            f"val/{name}": metrics_csv.latest.get(f"val/{name}")
            for name in ("loss", "perplexity", "bits_per_char", "gap")
        },
        "best/val/loss": best,
        "best/val/perplexity": perplexity(best),
        "best/val/bits_per_char": data.bits_per_char("val", best),
        "best/val/gap": metrics_csv.best.get("val/gap") if metrics_csv.best.get("step") == record.best_step else None,
        "best/step": record.best_step,
        "unigram/val_loss": data.unigram_loss("val"),
        "kneser_ney/val_loss": run.kneser_ney_loss,
        "unk_rate": data.unk_rate("val"),
        "parameters": module.net.num_parameters(),
        "steps": step,
        "tokens_seen": step * data.tokens_per_step,
        "seconds": round(metrics_csv.seconds, 1),
    }


def _report(
    run: Run,
    trainer: L.Trainer,
    module: GPTModule,
    checkpoints: ResumableCheckpoint,
    board: Board | None,
    metrics: dict[str, Any],
) -> None:
    """Test the best checkpoint, generate a sample from it, and print the summary."""
    failpoint("end.test")
    checkpoint.load_weights(module.net, checkpoint.load(run.dir.best_checkpoint))
    tested: dict[str, float] = {}
    if run.data.num_tokens("test"):
        trainer.test(module, datamodule=run.data, verbose=False)
        tested = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
        metrics.update(tested)
        metrics["test/unk_rate"] = run.data.unk_rate("test")
    if not trainer.is_global_zero:
        return
    if board is not None:
        failpoint("end.show_best")
        board.show_best(trainer.global_step, tested)
    has_stalled = checkpoints.record.has_stalled(run.cfg.regularization.early_stopping_patience)
    status = "stopped early" if has_stalled else "completed"
    summary = {"status": status, "reason": None, **metrics}
    prompt, context = next(iter(prompts(run.cfg.logger, run.data)), ""), run.cfg.data.seq_len
    [sample] = continue_text(module.net, run.data.tokenizer, prompt, context, Sampling())
    failpoint("end.summary")
    run.dir.write_summary(summary)
    show_summary(run.dir, summary, sample, _commands(run, summary["steps"], checkpoints.record.validations_since_best))
    if run.cfg.debug is not None and hasattr(module, "train_loss"):  # not where the last step was taken before
        log.info("debug      %s", outcome(run.cfg.debug, run.dir, summary["steps"], module.train_loss.item()))


def _commands(run: Run, step: int, validations_since_best: int) -> dict[str, str]:
    """Commands for what can be done with the run next, by purpose."""
    shown = OUTPUTS if run.dir.path.is_relative_to(OUTPUTS) else run.dir
    watch = {"Monitor:": command("tensorboard", "--logdir", str(shown))} if run.cfg.logger.tensorboard else {}
    return {
        **watch,
        "Generate:": own_command("generate", f"ckpt={run.dir}", "prompt=The lantern"),
        "Resume:": _command_to_resume(run, step, validations_since_best),
    }
