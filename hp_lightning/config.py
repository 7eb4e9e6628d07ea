"""What a run can be told: one dataclass a config group, and the checks that a type cannot make.

The values stand in `conf/`, one YAML file a choice; the classes here give them types and meaning, and Hydra refuses a
key that no class has. Nothing heavy is imported, so that a wrong config is refused at once.
"""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from hp_lightning.errors import InputError


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
    batch_size: Optional[int]  # windows in a forward pass, over all devices; null: 32, or with batch_tokens what fits
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
    """The form of the network; every choice is defined, with its source, in `model.py`."""

    vocab_size: Optional[int]  # rows of the embedding table; null: as many as the tokenizer has
    d_model: int
    num_heads: int
    num_layers: int
    d_ff: int
    max_seq_len: int
    position: str  # learned | sinusoidal | rotary
    norm: str  # layer | rms
    norm_position: str  # pre | post
    activation: str  # relu | gelu | relu_squared
    bias: bool
    tie_embeddings: bool
    qk_norm: bool


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
    patience: int  # validations without a better loss
    min_lr: float


@dataclass
class OptimConfig:
    """The optimizer and its learning rate: a linear warm-up, then halved where the validation loss stands still."""

    name: str  # adamw | adam
    lr: float
    betas: list[float]
    eps: float
    warmup_steps: int
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
    """What train.py can be told: a run, and what concerns no single run; the root of `conf/train.yaml`."""

    sweep: SweepConfig
    resume_sweep: Optional[str]  # folder of a sweep to go on with


@dataclass
class GenerateConfig:
    """Writing with a trained model: the root of `conf/generate.yaml`."""

    ckpt: Optional[str]  # checkpoint file or run folder; null: the newest run below outputs/
    prompt: str
    prompt_file: Optional[str]  # a prompt in each line; -: standard input
    interactive: bool  # asks for one prompt after the other
    format: str  # text | json: an object a line for each sample
    num_samples: int  # of each prompt
    max_new_tokens: int
    temperature: float  # 0: always the likeliest token
    top_k: Optional[int]
    top_p: Optional[float]
    min_p: Optional[float]
    repetition_penalty: float  # 1: none
    seed: Optional[int]  # null: drawn


@dataclass
class ExportConfig:
    """Taking a trained model along: the root of `conf/export.yaml`."""

    ckpt: Optional[str]  # checkpoint file or run folder; null: the newest run below outputs/
    to: str  # the folder that is made


@dataclass
class OtherCorpusConfig:
    """How a corpus is read by which a trained model is evaluated; null: as its run read its own."""

    path: Any
    delimiter: Optional[str]
    encoding: Optional[str]
    text_column: Optional[str]
    group_columns: Optional[list[str]]
    row_separator: Optional[str]
    header: Optional[bool]
    cache_dir: Optional[str]  # null: the user's cache folder


@dataclass
class EvaluateConfig:
    """How well a trained model predicts, and how much it copies: the root of `conf/evaluate.yaml`."""

    ckpt: Optional[str]  # checkpoint file or run folder; null: the newest run below outputs/
    data: OtherCorpusConfig
    parts: list[str]  # train, val, test
    stride: Optional[int]  # tokens from a window to the next; null: windows side by side, as in training
    num_samples: int  # that are written to see what is copied; 0: none
    max_new_tokens: int
    temperature: float
    top_k: Optional[int]
    top_p: Optional[float]
    seed: int


@dataclass
class ReviewsConfig:
    """How a CSV of texts to be judged, or of labelled ones, is read."""

    delimiter: Optional[str]  # what parts the columns; null: found from the file
    encoding: str
    text_column: Optional[str]  # name, or position from 0; null: found from the header
    label_column: Optional[str]  # says positive or negative; null: found from the header


@dataclass
class TeachConfig:
    """How a language model is taught to write the sentiment of a text behind it."""

    labels: list[str]  # the word that is taught for positive, and for negative
    networks: int  # that differ by the seed, and whose log-odds are averaged
    from_weights: bool  # whether they begin with the model's weights, or afresh
    epochs: int
    batch_size: int  # texts
    lr: float  # the highest; it falls linearly to 0
    weight_decay: float
    dropout: float  # of attention and residual branches
    embedding_dropout: float
    word_deletion: float  # share of a text's words that are left out when it is shown
    shuffle: float  # share of the texts whose words are shown in any order
    val_fraction: float  # of the rows, kept back to set the temperature


@dataclass
class SentimentConfig:
    """The sentiment of texts: the root of `conf/sentiment.yaml`."""

    ckpt: Optional[str]  # checkpoint file or run folder; null: the newest run below outputs/
    text: Optional[str]
    file: Optional[str]  # texts, in a CSV or one a line; -: standard input, one a line
    evaluate: Optional[str]  # labelled rows that the judgements are compared with
    train: Optional[str]  # labelled rows that a model is taught by
    out: Optional[str]  # where the scores, the evaluation or the taught model go; null: see README.md
    data: ReviewsConfig
    method: str  # next_word | calibrated; a model that was taught labels has its own
    template: str  # follows a text, before the words, with the method calibrated
    positive: list[str]
    negative: list[str]
    teach: TeachConfig
    seed: int


def register() -> None:
    """Makes the dataclasses known to Hydra as the schemas of `conf/*.yaml`."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainScriptConfig)
    store.store(name="generate_schema", node=GenerateConfig)
    store.store(name="export_schema", node=ExportConfig)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="sentiment_schema", node=SentimentConfig)


def train_config(cfg: DictConfig) -> TrainConfig:
    """A composed Hydra config as a checked `TrainConfig`, interpolations resolved.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    of_a_run = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key not in ("sweep", "resume_sweep")])
    checked: TrainConfig = _checked(_resolved(of_a_run), TrainConfig, _train_problems)
    return checked


def sweep_config(cfg: DictConfig) -> SweepConfig:
    """The part of a composed config that concerns the sweep, checked.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    checked: SweepConfig = _checked(_resolved(cfg.sweep), SweepConfig, _sweep_problems)
    return checked


def generate_config(cfg: DictConfig) -> GenerateConfig:
    """A composed Hydra config as a checked `GenerateConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    checked: GenerateConfig = _checked(_resolved(cfg), GenerateConfig, _generate_problems)
    return checked


def export_config(cfg: DictConfig) -> ExportConfig:
    """A composed Hydra config as a checked `ExportConfig`.

    Raises:
        InputError: a value is missing
    """
    checked: ExportConfig = _checked(_resolved(cfg), ExportConfig, _export_problems)
    return checked


def evaluate_config(cfg: DictConfig) -> EvaluateConfig:
    """A composed Hydra config as a checked `EvaluateConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    checked: EvaluateConfig = _checked(_resolved(cfg), EvaluateConfig, _evaluate_problems)
    return checked


def sentiment_config(cfg: DictConfig) -> SentimentConfig:
    """A composed Hydra config as a checked `SentimentConfig`.

    Raises:
        InputError: a value is out of its range; names every such key.
    """
    checked: SentimentConfig = _checked(_resolved(cfg), SentimentConfig, _sentiment_problems)
    return checked


def to_plain(cfg: TrainConfig) -> dict[str, Any]:
    """The config as nested dicts and lists of plain values, fit for JSON and checkpoints."""
    return dataclasses.asdict(cfg)


def to_yaml(cfg: TrainConfig) -> str:
    """The config as Hydra would write it."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(to_plain(cfg))))


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
        raise InputError("keys and values were expected")
    if any(re.search(r"(?<!\\)(\\\\)*\$\{", string) for string in _strings(plain)):
        raise InputError("it holds an interpolation, ${...}")
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
    checked: TrainConfig = _checked(plain, TrainConfig, _train_problems)
    return checked


def _resolved(cfg: DictConfig) -> Any:
    """Plain values: a typed config would be taken as it is, keys added by +key=value included."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def _escaped(value: Any) -> Any:
    """The same value, in which OmegaConf sees no interpolation any more: ${ is text that somebody typed."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _checked(plain: Any, schema: type, problems: Callable[[Any], Iterator[str]]) -> Any:
    typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), _escaped(plain)))
    found = list(problems(typed))
    if found:
        raise InputError("; ".join(found))
    return typed


def _train_problems(cfg: TrainConfig) -> Iterator[str]:
    yield from _data_problems(cfg.data, cfg.model)
    yield from _model_problems(cfg.model)
    yield from _regularization_problems(cfg.regularization)
    yield from _optim_problems(cfg.optim)
    yield from _tokenizer_problems(cfg.tokenizer)
    yield from _one_of("trainer.accelerator", cfg.trainer.accelerator, "auto", "cpu", "gpu")
    yield from _one_of("trainer.precision", cfg.trainer.precision, "auto", "32-true", "bf16-mixed", "bf16-true")
    if not isinstance(cfg.trainer.compile, bool) and cfg.trainer.compile != "auto":
        yield f"trainer.compile={cfg.trainer.compile} is not a choice: take one of true, false, auto"
    yield from _at_least("trainer.devices", cfg.trainer.devices, 1)
    accumulate = cfg.trainer.accumulate_grad_batches
    if cfg.data.batch_tokens is not None and accumulate != 1 and not cfg.data.batch_size_is_settled(accumulate):
        yield "data.batch_tokens works trainer.accumulate_grad_batches out by itself: leave one of the two out"
    yield from _at_least("trainer.accumulate_grad_batches", cfg.trainer.accumulate_grad_batches, 1)
    yield from _at_least("trainer.val_every_steps", cfg.trainer.val_every_steps, 1)
    yield from _above("checkpoint.every_minutes", cfg.checkpoint.every_minutes, 0)
    yield from _at_least("checkpoint.every_steps", cfg.checkpoint.every_steps, 1)
    yield from _at_least("checkpoint.top_k", cfg.checkpoint.top_k, 1)
    yield from _at_least("logger.log_every_steps", cfg.logger.log_every_steps, 1)
    yield from _at_least("logger.sample_tokens", cfg.logger.sample_tokens, 0)
    yield from _not_empty("run_dir", cfg.run_dir)
    yield from _not_empty("resume", cfg.resume)
    yield from _at_least("max_steps", cfg.max_steps, 1)
    yield from _at_least("max_epochs", cfg.max_epochs, 1)
    yield from _seed("seed", cfg.seed)
    if cfg.max_steps is None and cfg.max_epochs is None:
        yield "max_steps and max_epochs are both null: set at least one, or the run would never end"


def _sweep_problems(cfg: SweepConfig) -> Iterator[str]:
    yield from _not_empty("sweep.name", cfg.name)
    if cfg.name is not None and (os.path.basename(cfg.name) != cfg.name or cfg.name in (".", "..")):
        yield f"sweep.name={cfg.name} is no name of a folder: leave out slashes, or take sweep.dir for another place"
    yield from _not_empty("sweep.dir", cfg.dir)
    if cfg.jobs != "auto" and (type(cfg.jobs) is not int or cfg.jobs < 1):
        yield f"sweep.jobs={cfg.jobs} is not a number of jobs: it must be auto, or at least 1"
    yield from _at_least("sweep.max_failures", cfg.max_failures, 1)


def _data_problems(data: DataConfig, model: ModelConfig) -> Iterator[str]:
    for key in ("path", "delimiter", "encoding", "sha256", "text_column", "cache_dir"):
        yield from _not_empty(f"data.{key}", getattr(data, key))
    yield from _one_of("data.split", data.split, "documents", "tail", "auto")
    for key in ("val_fraction", "test_fraction"):
        value = getattr(data, key)
        if not 0 <= value < 1:
            yield f"data.{key}={value} is not a fraction: it must be at least 0 and below 1"
    if data.val_fraction == 0:
        yield "data.val_fraction=0 leaves nothing to validate on: set it above 0"
    if data.val_fraction + data.test_fraction >= 1:
        yield "data.val_fraction and data.test_fraction leave nothing to train on: together they must stay below 1"
    yield from _seed("data.split_seed", data.split_seed)
    yield from _at_least("data.batch_size", data.batch_size, 1)
    yield from _at_least("data.batch_tokens", data.batch_tokens, 1)
    yield from _at_least("data.seq_len", data.seq_len, 1)
    if data.seq_len > model.max_seq_len:
        yield (
            f"data.seq_len={data.seq_len} is longer than model.max_seq_len={model.max_seq_len}: "
            "lower the first or raise the second"
        )


def _tokenizer_problems(tokenizer: TokenizerConfig) -> Iterator[str]:
    yield from _one_of("tokenizer.kind", tokenizer.kind, "word", "char", "bpe")
    least, holds = (257, "256 bytes and <EOS>") if tokenizer.kind == "bpe" else (3, "<UNK>, <EOS> and a token")
    if tokenizer.vocab_size is not None and tokenizer.vocab_size < least:
        yield f"tokenizer.vocab_size={tokenizer.vocab_size} is too small: it must be at least {least}, for {holds}"
    yield from _at_least("tokenizer.min_frequency", tokenizer.min_frequency, 1)
    yield from _not_empty("tokenizer.from_run", tokenizer.from_run)


def _model_problems(model: ModelConfig) -> Iterator[str]:
    for key in ("d_model", "num_heads", "num_layers", "d_ff", "max_seq_len", "vocab_size"):
        yield from _at_least(f"model.{key}", getattr(model, key), 1)
    yield from _one_of("model.position", model.position, "learned", "sinusoidal", "rotary")
    yield from _one_of("model.norm", model.norm, "layer", "rms")
    yield from _one_of("model.norm_position", model.norm_position, "pre", "post")
    yield from _one_of("model.activation", model.activation, "relu", "gelu", "relu_squared")
    if model.num_heads < 1 or model.d_model < 1:
        return
    if model.d_model % model.num_heads:
        yield (
            f"model.num_heads={model.num_heads} does not divide model.d_model={model.d_model}: "
            f"each head takes an equal share; try num_heads={_nearest_divisor(model.d_model, model.num_heads)}"
        )
    elif model.position == "rotary" and (model.d_model // model.num_heads) % 2:
        yield (
            f"model.position=rotary turns pairs of features, but a head has {model.d_model // model.num_heads}: "
            "choose d_model and num_heads so that d_model / num_heads is even"
        )
    if model.position == "sinusoidal" and model.d_model % 2:
        yield f"model.position=sinusoidal pairs sines with cosines: model.d_model={model.d_model} must be even"


def _regularization_problems(regularization: RegularizationConfig) -> Iterator[str]:
    for key in ("dropout", "embedding_dropout", "attention_dropout", "residual_dropout"):
        value = getattr(regularization, key)
        if not 0 <= value < 1:
            yield f"regularization.{key}={value} is not a rate: it must be at least 0 and below 1"
            break  # the first sets the others
    yield from _at_least("regularization.weight_decay", regularization.weight_decay, 0)
    yield from _above("regularization.gradient_clip_norm", regularization.gradient_clip_norm, 0)
    yield from _at_least("regularization.early_stopping_patience", regularization.early_stopping_patience, 1)


def _optim_problems(optim: OptimConfig) -> Iterator[str]:
    yield from _one_of("optim.name", optim.name, "adamw", "adam")
    yield from _above("optim.lr", optim.lr, 0)
    if len(optim.betas) != 2 or not all(0 <= beta < 1 for beta in optim.betas):
        yield f"optim.betas={optim.betas} must be two numbers, each at least 0 and below 1"
    yield from _above("optim.eps", optim.eps, 0)
    yield from _at_least("optim.warmup_steps", optim.warmup_steps, 0)
    if not 0 < optim.plateau.factor < 1:
        yield f"optim.plateau.factor={optim.plateau.factor} must be above 0 and below 1"
    yield from _at_least("optim.plateau.patience", optim.plateau.patience, 0)
    yield from _at_least("optim.plateau.min_lr", optim.plateau.min_lr, 0)


def _generate_problems(cfg: GenerateConfig) -> Iterator[str]:
    yield from _not_empty("prompt_file", cfg.prompt_file)
    if cfg.prompt_file is not None and (cfg.prompt or cfg.interactive):
        yield f"prompt_file and {'prompt' if cfg.prompt else 'interactive'} are both given: leave one of the two out"
    yield from _one_of("format", cfg.format, "text", "json")
    yield from _at_least("num_samples", cfg.num_samples, 1)
    yield from _above("repetition_penalty", cfg.repetition_penalty, 0)
    yield from _sampling_problems(cfg)


def _evaluate_problems(cfg: EvaluateConfig) -> Iterator[str]:
    for key in ("path", "delimiter", "encoding", "text_column", "cache_dir"):
        yield from _not_empty(f"data.{key}", getattr(cfg.data, key))
    if not cfg.parts:
        yield "parts is empty: name at least one of train, val, test"
    for part in cfg.parts:
        yield from _one_of("parts", part, "train", "val", "test")
    yield from _at_least("stride", cfg.stride, 1)
    yield from _at_least("num_samples", cfg.num_samples, 0)
    yield from _sampling_problems(cfg)


def _sentiment_problems(cfg: SentimentConfig) -> Iterator[str]:
    for key in ("ckpt", "text", "file", "evaluate", "train", "out"):
        yield from _not_empty(key, getattr(cfg, key))
    given = [key for key in ("text", "file", "evaluate", "train") if getattr(cfg, key) is not None]
    if len(given) != 1:
        yield f"{' and '.join(given) or 'nothing'} is given: give one of text=, file=, evaluate= and train="
    yield from _one_of("method", cfg.method, "next_word", "calibrated")
    for key in ("positive", "negative"):
        if not getattr(cfg, key) or not all(map(str.strip, getattr(cfg, key))):
            yield f"{key} must be a list of words: {key}=[good,great]"
    for key in ("delimiter", "encoding", "text_column", "label_column"):
        yield from _not_empty(f"data.{key}", getattr(cfg.data, key))
    if len(cfg.teach.labels) != 2 or not all(map(str.strip, cfg.teach.labels)):
        yield "teach.labels must be two words, for positive and for negative: teach.labels=[good,bad]"
    for key in ("networks", "epochs", "batch_size"):
        yield from _at_least(f"teach.{key}", getattr(cfg.teach, key), 1)
    yield from _above("teach.lr", cfg.teach.lr, 0)
    yield from _at_least("teach.weight_decay", cfg.teach.weight_decay, 0)
    for key in ("dropout", "embedding_dropout", "word_deletion"):
        if not 0 <= getattr(cfg.teach, key) < 1:
            yield f"teach.{key}={getattr(cfg.teach, key)} is not a rate: it must be at least 0 and below 1"
    if not 0 <= cfg.teach.shuffle <= 1:
        yield f"teach.shuffle={cfg.teach.shuffle} is not a share: it must be between 0 and 1"
    if not 0 < cfg.teach.val_fraction < 1:
        yield f"teach.val_fraction={cfg.teach.val_fraction} is not a fraction: it must be above 0 and below 1"
    yield from _seed("seed", cfg.seed)


def _sampling_problems(cfg: GenerateConfig | EvaluateConfig) -> Iterator[str]:
    yield from _not_empty("ckpt", cfg.ckpt)
    yield from _at_least("max_new_tokens", cfg.max_new_tokens, 1)
    yield from _at_least("temperature", cfg.temperature, 0)
    yield from _at_least("top_k", cfg.top_k, 1)
    if cfg.seed is not None:
        yield from _seed("seed", cfg.seed)
    if 0 < cfg.temperature < 0.01:
        yield f"temperature={cfg.temperature} is too small: take 0 for always the likeliest token, or at least 0.01"
    for key in ("top_p", "min_p"):
        value = getattr(cfg, key, None)  # an evaluation knows no min_p
        if value is not None and not 0 < value <= 1:
            yield f"{key}={value} is not a probability: it must be above 0 and at most 1"


def _export_problems(cfg: ExportConfig) -> Iterator[str]:
    yield from _not_empty("ckpt", cfg.ckpt)
    yield from _not_empty("to", cfg.to)


def _one_of(key: str, value: str, *choices: str) -> Iterator[str]:
    if value not in choices:
        yield f"{key}={value} is not a choice: take one of {', '.join(choices)}"


def _not_empty(key: str, value: Optional[str]) -> Iterator[str]:
    if value == "":
        yield f"{key} is empty: give it a value, or leave it out"


def _at_least(key: str, value: Optional[float], bound: float) -> Iterator[str]:
    if value is not None and not bound <= value < math.inf:
        yield f"{key}={value} is out of range: it must be a number of at least {bound}"


def _above(key: str, value: Optional[float], bound: float) -> Iterator[str]:
    if value is not None and not bound < value < math.inf:
        yield f"{key}={value} is out of range: it must be a number above {bound}"


def _seed(key: str, value: int) -> Iterator[str]:
    if not 0 <= value < 2**32:
        yield f"{key}={value} is out of range: it must be at least 0 and below 2**32"


def _nearest_divisor(number: int, wish: int) -> int:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: abs(d - wish))
