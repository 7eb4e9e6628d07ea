"""What a run can be told: one dataclass a config group, and the checks that a type cannot make.

The values stand in `conf/`, one YAML file a choice; the classes here give them types and meaning, and Hydra refuses a
key that no class has. Nothing heavy is imported, so that a wrong config is refused at once.
"""

import dataclasses
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from hp_lightning.common.errors import InputError
from hp_lightning.schema.checks import (
    above,
    at_least,
    escaped,
    fraction,
    not_empty,
    one_of,
    resolved,
    seed,
    validated,
)

MOST_L2_DECAY = 0.1  # that Adam, not AdamW, can be told


@dataclass
class DataConfig:
    """Where the text is, how its rows become documents, and how the documents are split and cut."""

    path: Any  # a file, a glob or a URL, or a list of them
    delimiter: Optional[str]  # what parts the columns; null: found from the file
    encoding: str  # utf-8 (with or without byte order mark), or what Python calls the file's encoding
    sha256: Optional[str]  # what the file must have, as hexadecimal digits; null: not checked
    text_column: Optional[str]  # name, or position from 0; null: found from the header
    group_columns: Optional[list[str]]  # rows that agree in these are one document; null: found from the header
    row_separator: Optional[str]  # what joins the rows of a document; null: found from the text
    header: bool
    collapse_spaces: bool  # runs of spaces become one, those at the ends of lines go
    split: str  # documents | tail | auto
    val_fraction: float  # of the characters
    test_fraction: float
    split_seed: int
    seq_len: int  # tokens in a training window
    batch_size: Optional[int]  # windows in a forward pass, over all devices; null: 16, or with batch_tokens what fits
    batch_tokens: Optional[int]  # tokens an optimizer step, gradients accumulated as needed; null: by batch_size
    cache_dir: Optional[str]  # for downloads and encoded corpora; null: the user's cache folder

    def batch_size_is_settled(self, accumulate: int) -> bool:
        """Whether the batches of an optimizer step make up `batch_tokens` already."""
        return self.batch_size is not None and self.batch_size * accumulate * self.seq_len == self.batch_tokens


@dataclass
class TokenizerConfig:
    """How text becomes ids."""

    kind: str  # word | char | bpe
    vocab_size: Optional[int]  # at most so many, special tokens included; null: no bound
    min_frequency: int  # rarer tokens become <UNK>; bpe: rarer pairs are not merged
    lowercase: bool
    from_run: Optional[str]  # run folder or checkpoint whose tokenizer is taken as it is; null: learned


@dataclass
class ModelConfig:
    """The form of the network; every choice is defined, with its source, in `models/`."""

    vocab_size: Optional[int]  # rows of the embedding table; null: as many as the tokenizer has
    d_model: int
    num_heads: int
    num_layers: int
    d_ff: int
    max_seq_len: int
    position: str  # learned | sinusoidal | rotary
    norm: str  # layer | rms | rms_plain: without learned weights
    norm_position: str  # pre | post
    activation: str  # relu | gelu | relu_squared
    bias: bool
    tie_embeddings: bool
    qk_norm: bool
    embedding_norm: bool  # an rms_plain behind the embedding
    zero_init: bool  # what ends a residual branch starts at zero
    logit_cap: Optional[float]  # no logit is larger; null: any may be


@dataclass
class RegularizationConfig:
    """Everything that keeps the network from learning the training text by heart."""

    dropout: float  # sets the three below together
    embedding_dropout: float
    attention_dropout: float
    residual_dropout: float
    weight_decay: float  # of matrices only
    gradient_clip_norm: Optional[float]  # null: no clipping
    early_stopping_patience: Optional[int]  # validations without a better loss; null: never stop early


@dataclass
class PlateauConfig:
    """`torch.optim.lr_scheduler.ReduceLROnPlateau` on the validation loss."""

    factor: float
    patience: Optional[int]  # validations without a better loss; null: the validation loss has no say
    min_lr: float  # of optim.lr; every other rate falls by the same factor


@dataclass
class OptimConfig:
    """The optimizer and its learning rate; what the schedules are stands in `training/schedule.py`."""

    name: str  # adamw | adam | muon: for the hidden matrices, with AdamW for the others
    lr: float  # of Adam's steps
    lr_width: Optional[int]  # the d_model for which lr is meant, as 1 / d_model but for embeddings; null: for any
    betas: list[float]
    eps: float
    muon_lr: float
    muon_momentum: float
    warmup_steps: int
    schedule: str  # plateau | cosine | wsd
    decay_fraction: float  # of the run's steps, at its end: wsd
    final_lr_fraction: float  # of the rate, that cosine and wsd have come to after the last step
    plateau: PlateauConfig


@dataclass
class TrainerConfig:
    """What the run computes on, and how often it validates."""

    accelerator: str  # auto | cpu | gpu
    devices: int  # of one machine; a batch is shared out over them
    precision: str  # auto | 32-true | bf16-mixed | bf16-true
    compile: Any  # true | false | auto: where the run is long enough to earn it back
    accumulate_grad_batches: int  # forward passes an optimizer step
    val_every_steps: Optional[int]  # optimizer steps; null: once an epoch
    profile: bool  # a torch profiler's trace and table of some steps, in the run folder


@dataclass
class CheckpointConfig:
    """When the state of a run is saved, beside once at every validation."""

    every_minutes: Optional[float]  # null: by the clock never
    every_steps: Optional[int]  # optimizer steps; null: by their number never
    top_k: int  # so many of the best by validation loss are kept; the very best is best.ckpt


@dataclass
class LoggerConfig:
    """What is written down while the run goes on; `metrics.csv` always is."""

    tensorboard: bool
    log_every_steps: int
    # What the model is asked to continue; "": begins a document; null: "" and the first words of the validation part.
    sample_prompts: Optional[list[str]]
    sample_tokens: int  # 0: no samples
    images: bool  # attention, positions, losses of tokens


@dataclass
class TrainConfig:
    """One training run."""

    data: DataConfig
    tokenizer: TokenizerConfig
    model: ModelConfig
    regularization: RegularizationConfig
    optim: OptimConfig
    trainer: TrainerConfig
    checkpoint: CheckpointConfig
    logger: LoggerConfig
    max_steps: Optional[int]  # optimizer steps; the first of the two bounds that is reached ends the run
    max_epochs: Optional[int]
    seed: int
    run_dir: Optional[str]  # null: outputs/runs/<date>_<time>_<slug>
    resume: Optional[str]  # folder of a run to go on with, a checkpoint in it, or latest


@dataclass
class SweepConfig:
    """Several runs by one command (`-m`): where they lie, and how they are run."""

    name: Optional[str]  # null: date and time
    dir: str  # outputs/sweeps/<name>
    jobs: Any  # side by side; auto: as many as there are GPUs, or what a processor is quickest with
    max_failures: Optional[int]  # failed jobs after which no other is begun; null: all jobs are tried
    job: Optional[str]  # the folder of a job, given to it by the sweep


@dataclass
class TrainScriptConfig(TrainConfig):
    """What train can be told: a run, and what concerns no single run; the root of `conf/train.yaml`."""

    sweep: SweepConfig
    resume_sweep: Optional[str]  # folder of a sweep to go on with


def register() -> None:
    """Makes the dataclasses known to Hydra as the schema of `conf/train.yaml`."""
    ConfigStore.instance().store(name="train_schema", node=TrainScriptConfig)


def train_config(cfg: DictConfig) -> TrainConfig:
    """A composed Hydra config as a checked `TrainConfig`, interpolations resolved.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    of_a_run = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in ("sweep", "resume_sweep")])
    return validated(resolved(of_a_run), TrainConfig, _train_problems)


def sweep_config(cfg: DictConfig) -> SweepConfig:
    """The part of a composed config that concerns the sweep, checked.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(resolved(cfg.sweep), SweepConfig, _sweep_problems)


def to_plain(cfg: TrainConfig) -> dict[str, Any]:
    """The config as nested dicts and lists of plain values, fit for JSON and checkpoints."""
    return dataclasses.asdict(cfg)


def to_yaml(cfg: TrainConfig) -> str:
    """The config as Hydra would write it."""
    return OmegaConf.to_yaml(OmegaConf.create(escaped(to_plain(cfg))))


def from_yaml(text: str) -> TrainConfig:
    """The config that `to_yaml` wrote, checked again.

    Raises:
        InputError: a value is out of its range, or is an interpolation, which `to_yaml` writes none of
    """
    return from_plain(plain_from_yaml(text))


def plain_from_yaml(text: str) -> dict[str, Any]:
    """The keys and values that `to_yaml` wrote, as they stand there: by another version of the project, too.

    Raises:
        InputError: there is an interpolation, which `to_yaml` writes none of
    """
    loaded = OmegaConf.create(text)
    plain = OmegaConf.to_container(loaded, resolve=False)
    if not isinstance(plain, dict):
        raise InputError("config.not_a_mapping", "keys and values were expected")
    if any(re.search(r"(?<!\\)(\\\\)*\$\{", string) for string in _strings(plain)):
        raise InputError("config.interpolation", "it holds an interpolation, ${...}")
    return OmegaConf.to_container(loaded, resolve=True)  # type: ignore[return-value]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, str):
        yield value


def from_plain(plain: dict[str, Any]) -> TrainConfig:
    """The config that `to_plain` made these values of, checked again.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    return validated(plain, TrainConfig, _train_problems)


def _train_problems(cfg: TrainConfig) -> Iterator[InputError]:
    yield from _data_problems(cfg.data, cfg.model)
    yield from model_problems(cfg.model)
    yield from _regularization_problems(cfg.regularization)
    yield from _optim_problems(cfg.optim)
    yield from _tokenizer_problems(cfg.tokenizer)
    yield from one_of("trainer.accelerator", cfg.trainer.accelerator, "auto", "cpu", "gpu")
    yield from one_of("trainer.precision", cfg.trainer.precision, "auto", "32-true", "bf16-mixed", "bf16-true")
    if not isinstance(cfg.trainer.compile, bool) and cfg.trainer.compile != "auto":
        yield InputError(
            "config.unknown_choice",
            f"trainer.compile={cfg.trainer.compile} is not a choice: take one of true, false, auto",
        )
    yield from at_least("trainer.devices", cfg.trainer.devices, 1)
    accumulate = cfg.trainer.accumulate_grad_batches
    if cfg.data.batch_tokens is not None and accumulate != 1 and not cfg.data.batch_size_is_settled(accumulate):
        yield InputError(
            "config.conflict",
            "data.batch_tokens works trainer.accumulate_grad_batches out by itself: leave one of the two out",
        )
    yield from at_least("trainer.accumulate_grad_batches", cfg.trainer.accumulate_grad_batches, 1)
    yield from at_least("trainer.val_every_steps", cfg.trainer.val_every_steps, 1)
    yield from above("checkpoint.every_minutes", cfg.checkpoint.every_minutes, 0)
    yield from at_least("checkpoint.every_steps", cfg.checkpoint.every_steps, 1)
    yield from at_least("checkpoint.top_k", cfg.checkpoint.top_k, 1)
    yield from at_least("logger.log_every_steps", cfg.logger.log_every_steps, 1)
    yield from at_least("logger.sample_tokens", cfg.logger.sample_tokens, 0)
    yield from not_empty("run_dir", cfg.run_dir)
    yield from not_empty("resume", cfg.resume)
    yield from at_least("max_steps", cfg.max_steps, 1)
    yield from at_least("max_epochs", cfg.max_epochs, 1)
    yield from seed("seed", cfg.seed)
    if cfg.max_steps is None and cfg.max_epochs is None:
        yield InputError(
            "config.missing", "max_steps and max_epochs are both null: set at least one, or the run would never end"
        )
    if cfg.resume is None:  # else what is not told here is as the run has it, with which it is checked again
        yield from _decay_problems(cfg.optim, cfg.regularization.weight_decay)
    if cfg.optim.name == "adam" and cfg.regularization.weight_decay > MOST_L2_DECAY:
        yield InputError(
            "optim.too_much_decay",
            f"optim=adam adds regularization.weight_decay={cfg.regularization.weight_decay} to the gradient, where so "
            "much drowns the loss: take regularization=light, or optim=adamw",
        )


def _sweep_problems(cfg: SweepConfig) -> Iterator[InputError]:
    yield from not_empty("sweep.name", cfg.name)
    if cfg.name is not None and (os.path.basename(cfg.name) != cfg.name or cfg.name in (".", "..")):
        yield InputError(
            "config.not_a_name",
            f"sweep.name={cfg.name} is no name of a folder: leave out slashes, or take sweep.dir for another place",
        )
    yield from not_empty("sweep.dir", cfg.dir)
    if cfg.jobs != "auto" and (type(cfg.jobs) is not int or cfg.jobs < 1):
        yield InputError(
            "config.out_of_range", f"sweep.jobs={cfg.jobs} is not a number of jobs: it must be auto, or at least 1"
        )
    yield from at_least("sweep.max_failures", cfg.max_failures, 1)


def _data_problems(data: DataConfig, model: ModelConfig) -> Iterator[InputError]:
    for key in ("path", "delimiter", "encoding", "sha256", "text_column", "cache_dir"):
        yield from not_empty(f"data.{key}", getattr(data, key))
    yield from one_of("data.split", data.split, "documents", "tail", "auto")
    for key in ("val_fraction", "test_fraction"):
        value = getattr(data, key)
        if not 0 <= value < 1:
            yield InputError(
                "config.out_of_range", f"data.{key}={value} is not a fraction: it must be at least 0 and below 1"
            )
    if data.val_fraction == 0:
        yield InputError("config.out_of_range", "data.val_fraction=0 leaves nothing to validate on: set it above 0")
    if data.val_fraction + data.test_fraction >= 1:
        yield InputError(
            "config.conflict",
            "data.val_fraction and data.test_fraction leave nothing to train on: together they must stay below 1",
        )
    yield from seed("data.split_seed", data.split_seed)
    yield from at_least("data.batch_size", data.batch_size, 1)
    yield from at_least("data.batch_tokens", data.batch_tokens, 1)
    yield from at_least("data.seq_len", data.seq_len, 1)
    if data.seq_len > model.max_seq_len:
        yield InputError(
            "config.conflict",
            f"data.seq_len={data.seq_len} is longer than model.max_seq_len={model.max_seq_len}: "
            "lower the first or raise the second",
        )


def _tokenizer_problems(tokenizer: TokenizerConfig) -> Iterator[InputError]:
    yield from one_of("tokenizer.kind", tokenizer.kind, "word", "char", "bpe")
    least, holds = (257, "256 bytes and <EOS>") if tokenizer.kind == "bpe" else (3, "<UNK>, <EOS> and a token")
    if tokenizer.vocab_size is not None and tokenizer.vocab_size < least:
        yield InputError(
            "config.out_of_range",
            f"tokenizer.vocab_size={tokenizer.vocab_size} is too small: it must be at least {least}, for {holds}",
        )
    yield from at_least("tokenizer.min_frequency", tokenizer.min_frequency, 1)
    yield from not_empty("tokenizer.from_run", tokenizer.from_run)


def model_problems(model: ModelConfig) -> Iterator[InputError]:
    """What no network can have."""
    for key in ("d_model", "num_heads", "num_layers", "d_ff", "max_seq_len", "vocab_size"):
        yield from at_least(f"model.{key}", getattr(model, key), 1)
    yield from one_of("model.position", model.position, "learned", "sinusoidal", "rotary")
    yield from one_of("model.norm", model.norm, "layer", "rms", "rms_plain")
    yield from one_of("model.norm_position", model.norm_position, "pre", "post")
    yield from one_of("model.activation", model.activation, "relu", "gelu", "relu_squared")
    yield from above("model.logit_cap", model.logit_cap, 0)
    if model.num_heads < 1 or model.d_model < 1:
        return
    if model.d_model % model.num_heads:
        yield InputError(
            "model.indivisible_heads",
            f"model.num_heads={model.num_heads} does not divide model.d_model={model.d_model}: "
            f"each head takes an equal share; try num_heads={_nearest_divisor(model.d_model, model.num_heads)}",
        )
    elif model.position == "rotary" and (model.d_model // model.num_heads) % 2:
        yield InputError(
            "model.odd_features",
            f"model.position=rotary turns pairs of features, but a head has {model.d_model // model.num_heads}: "
            "choose d_model and num_heads so that d_model / num_heads is even",
        )
    if model.position == "sinusoidal" and model.d_model % 2:
        yield InputError(
            "model.odd_features",
            f"model.position=sinusoidal pairs sines with cosines: model.d_model={model.d_model} must be even",
        )


def _regularization_problems(regularization: RegularizationConfig) -> Iterator[InputError]:
    for key in ("dropout", "embedding_dropout", "attention_dropout", "residual_dropout"):
        value = getattr(regularization, key)
        if not 0 <= value < 1:
            yield InputError(
                "config.out_of_range", f"regularization.{key}={value} is not a rate: it must be at least 0 and below 1"
            )
            break  # the first sets the others
    yield from at_least("regularization.weight_decay", regularization.weight_decay, 0)
    yield from above("regularization.gradient_clip_norm", regularization.gradient_clip_norm, 0)
    yield from at_least("regularization.early_stopping_patience", regularization.early_stopping_patience, 1)


def _optim_problems(optim: OptimConfig) -> Iterator[InputError]:
    yield from one_of("optim.name", optim.name, "adamw", "adam", "muon")
    yield from one_of("optim.schedule", optim.schedule, "plateau", "cosine", "wsd")
    yield from above("optim.lr", optim.lr, 0)
    yield from at_least("optim.lr_width", optim.lr_width, 1)
    yield from above("optim.muon_lr", optim.muon_lr, 0)
    if not 0 <= optim.muon_momentum < 1:
        yield InputError(
            "config.out_of_range", f"optim.muon_momentum={optim.muon_momentum} must be at least 0 and below 1"
        )
    for key in ("decay_fraction", "final_lr_fraction"):
        yield from fraction(f"optim.{key}", getattr(optim, key))
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        yield InputError(
            "config.out_of_range", f"optim.betas={optim.betas} must be two numbers, each at least 0 and below 1"
        )
    yield from above("optim.eps", optim.eps, 0)
    yield from at_least("optim.warmup_steps", optim.warmup_steps, 0)
    if not 0 < optim.plateau.factor < 1:
        yield InputError(
            "config.out_of_range", f"optim.plateau.factor={optim.plateau.factor} must be above 0 and below 1"
        )
    yield from at_least("optim.plateau.patience", optim.plateau.patience, 0)
    yield from at_least("optim.plateau.min_lr", optim.plateau.min_lr, 0)


def _decay_problems(optim: OptimConfig, weight_decay: float) -> Iterator[InputError]:
    """A step multiplies each weight of a matrix with 1 minus the product of the two."""
    rates = {"muon": ("lr", "muon_lr"), "adamw": ("lr",)}.get(optim.name, ())
    for key in rates:
        if getattr(optim, key) * weight_decay >= 1:
            yield InputError(
                "optim.too_much_decay",
                f"optim.{key}={getattr(optim, key)} times regularization.weight_decay={weight_decay} must be below 1, "
                "or every step would undo the weights: lower one of the two",
            )


def _nearest_divisor(number: int, wish: int) -> int:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: abs(d - wish))
