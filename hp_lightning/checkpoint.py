"""What a checkpoint holds, how it is written whole, and how it is read without trusting it.

One file is enough: weights, the run's config with the network's form in it, and the tokenizer's whole state, as tensors
and plain Python values; and, to resume from, the optimizer's state, the loader's position and what `ValidationHistory`
has. Random numbers are none of it: those of a step are drawn from the seed and the step's number alone.
"""

import dataclasses
import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hp_lightning.common.console import log
from hp_lightning.common.errors import InputError
from hp_lightning.common.failpoints import failpoint
from hp_lightning.common.files import atomic_write
from hp_lightning.common.run_dir import RunDir
from hp_lightning.models.gpt import GPT
from hp_lightning.schema.migrations import CONFIG_MIGRATIONS, FIRST_FORMAT, FORMAT, Migrations, migrated
from hp_lightning.schema.model import ModelConfig
from hp_lightning.schema.train import TrainConfig, from_plain, to_plain
from hp_lightning.tokenizers import Tokenizer, tokenizer_from_state

CONTENTS_MIGRATIONS: Migrations = {}  # besides those of the config in it
CHECKPOINT_KEY = "hp_lightning"  # the key below which our part of a checkpoint stands, next to Lightning's
SENTIMENT_KEY = "hp_lightning_sentiment"  # likewise in a file of `tasks.sentiment.checkpoint`


@dataclass
class ValidationHistory:
    """The history of validations of a run."""

    best: list[tuple[float, int]] = field(default_factory=list)  # the lowest losses, each with its step; lowest first
    validations_since_best: int = 0  # without a better loss
    validation_due: bool = False  # saved between a step and the validation that follows it

    @property
    def best_loss(self) -> float:
        """The lowest validation loss; infinite before the first validation."""
        return self.best[0][0] if self.best else float("inf")

    @property
    def best_step(self) -> int:
        """The optimizer steps after which it was reached."""
        return self.best[0][1] if self.best else 0

    def has_stalled(self, patience: int | None) -> bool:
        """Whether so many validations, or more, were without a better loss."""
        return patience is not None and self.validations_since_best >= patience


@dataclass(frozen=True)
class LoadedCheckpoint:
    """What a checkpoint gives back."""

    path: Path
    cfg: TrainConfig
    tokenizer: Tokenizer
    contents: dict[str, Any]  # everything, as Lightning wrote it

    @property
    def step(self) -> int:
        """Optimizer steps that had been taken."""
        return int(self.contents["global_step"])

    @property
    def keeps_metrics_until(self) -> int:
        """The last step whose metrics are all in it; a due validation's are written again."""
        return self.step - 1 if self.record.validation_due else self.step

    @property
    def corpus(self) -> str:
        """The digest of the corpus it was trained on."""
        return str(self.contents[CHECKPOINT_KEY]["corpus"])

    @property
    def record(self) -> ValidationHistory:
        """A copy of the record of its run so far."""
        saved = self.contents[CHECKPOINT_KEY]["record"]
        return ValidationHistory(**{**saved, "best": [(loss, step) for loss, step in saved["best"]]})

    def drop_state(self) -> None:
        """Give back the memory of the weights and of the optimizer's state."""
        for key in ("state_dict", "optimizer_states"):
            self.contents.pop(key)

    def net(self) -> GPT:
        """The network with its weights, without dropout."""
        net = blank_network(self.cfg.model)
        load_weights(net, self)
        return net.eval()


class DamagedError(InputError):
    """A file that is no whole checkpoint: truncated, with other bits than were written, or something else."""


def our_part(cfg: TrainConfig, tokenizer: Tokenizer, corpus: str, record: ValidationHistory) -> dict[str, Any]:
    """What makes a checkpoint of Lightning's enough by itself; goes into it under `CHECKPOINT_KEY`.

    Args:
        corpus: the digest of the corpus
    """
    return {
        "format": FORMAT,
        "config": to_plain(cfg),
        "tokenizer": tokenizer.state(),
        "corpus": corpus,
        "record": dataclasses.asdict(record),
    }


def load(path: Path) -> LoadedCheckpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        InputError: the file cannot be read, is of another version, or holds more than tensors and plain values
        DamagedError: the file is not a checkpoint of hp_lightning, or is damaged
    """
    with refusals(path):
        contents = read_contents(path)
        if SENTIMENT_KEY in contents:
            raise InputError(
                "checkpoint.finetuned",
                f"{path} was finetuned with labels, and can only classify: name the checkpoint that it comes from, as "
                "in best.ckpt",
            )
        ours = contents[CHECKPOINT_KEY]
        if FIRST_FORMAT <= ours["format"] <= FORMAT:
            contents = migrated(contents, ours["format"], CONTENTS_MIGRATIONS)
            ours = contents[CHECKPOINT_KEY]
            ours["config"] = migrated(ours["config"], ours["format"], CONFIG_MIGRATIONS)
            _expect_whole_state(contents)
            return _fitting(
                LoadedCheckpoint(path, from_plain(ours["config"]), tokenizer_from_state(ours["tokenizer"]), contents)
            )
    raise InputError(
        "checkpoint.other_version",
        f"{path} has the checkpoint format {ours['format']}, and this version reads {FIRST_FORMAT} to {FORMAT}: use "
        "the version of hp_lightning that wrote it, or train again",
    )


def read_contents(path: Path) -> dict[str, Any]:
    """What a file of tensors and plain values holds; nothing in it is executed. To be called within `refusals`."""
    _verify_checksums(path)
    with warnings.catch_warnings(action="ignore"):  # torch warns of what it is about to refuse
        contents: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return contents


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn whatever a file that is something else can raise into a refusal.

    Raises:
        InputError: the file cannot be read, or holds more than tensors and plain values
        DamagedError: the file is none of hp_lightning's, or is damaged
    """
    try:
        yield
    except OSError as error:
        raise InputError("checkpoint.not_readable", f"{path} cannot be read ({error.strerror})") from error
    except (InputError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise InputError(
            "checkpoint.unsafe",
            f"{path} holds more than tensors and plain values, which could run code: it was not read; take only "
            "checkpoints that hp_lightning has written",
        ) from error
    except Exception as error:  # there is no end to what a file that is something else can hold
        raise DamagedError(
            "checkpoint.damaged",
            f"{path} is not a checkpoint of hp_lightning, or is damaged: name a run folder or its .ckpt file",
        ) from error


def _expect_whole_state(contents: dict[str, Any]) -> None:
    missing = {"state_dict", "optimizer_states", "schedule", "loops", "callbacks", "global_step"} - contents.keys()
    if missing:
        raise KeyError(*missing)


def _fitting(trained: LoadedCheckpoint) -> LoadedCheckpoint:
    """The same, if its weights are those of the network that its config describes."""
    wanted = {f"net.{name}": value.shape for name, value in blank_network(trained.cfg.model).state_dict().items()}
    if {name: value.shape for name, value in trained.contents["state_dict"].items()} != wanted:
        raise ValueError("other weights")
    return trained


class _WithoutDrawing(TorchFunctionMode):
    """Leaves out what `torch.nn.init` would put into weights."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, if it is none of those."""
        named = kwargs or {}
        if getattr(function, "__module__", None) == nn.init.__name__:
            return args[0] if args else named["tensor"]
        return function(*args, **named)


def blank_network(cfg: ModelConfig) -> GPT:
    """A network that waits for its weights: drawing some first would take longer than reading a checkpoint."""
    with _WithoutDrawing():
        return GPT(cfg)


def _verify_checksums(path: Path) -> None:
    """A checkpoint is a zip archive, with a CRC-32 of each tensor; `torch.load` does not look at them."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)


def load_first_whole(paths: list[Path]) -> tuple[LoadedCheckpoint, list[Path]]:
    """The first of a run's checkpoints that is whole; and those before it, which are damaged.

    Raises:
        InputError: none is whole, or the first whole one is of another version
    """
    damaged: list[Path] = []
    for path in paths:
        try:
            trained = load(path)
        except DamagedError:
            damaged.append(path)
            continue
        for other in damaged:
            log.warning("%s is damaged: resuming from %s, of step %s", other, path, trained.step)
        return trained, damaged
    raise DamagedError(
        "checkpoint.damaged",
        f"{' and '.join(map(str, damaged))} {'is' if len(damaged) == 1 else 'are'} damaged: name the run's folder or "
        "another of its checkpoints, or start a new run",
    )


def put_aside(damaged: Iterable[Path]) -> None:
    """Rename damaged checkpoints, which are in the way of new ones."""
    for path in damaged:
        path.replace(path.with_suffix(".damaged"))


def load_weights(net: GPT, trained: LoadedCheckpoint) -> None:
    """Put a checkpoint's weights into a network of the same form."""
    weights = trained.contents["state_dict"].items()
    net.load_state_dict({name.removeprefix("net."): value for name, value in weights})


def write_checkpoint(checkpoint: dict[str, Any], last: Path, names: Iterable[Path] = ()) -> None:
    """Replace a run's `last.ckpt` by a checkpoint, and `previous.ckpt` by the former `last.ckpt`.

    A process killed at any point of it leaves each name with a whole file or with none; killed between the two, it
    leaves `previous.ckpt` alone.

    Args:
        checkpoint: what is saved
        last: the run's `last.ckpt`
        names: of further copies, which are made first

    Raises:
        OSError: nothing was changed, but for some of the copies
    """
    last.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(last, sole_writer=True) as file:
        watched = _FirstError(file)
        torch.save(checkpoint, cast(IO[bytes], watched))
        if watched.error is not None:
            raise watched.error
        file.flush()
        failpoint("checkpoint.written")
        os.fsync(file.fileno())  # before a name is taken from the checkpoint that it replaces
        for name in names:  # a second name of the same file would be damaged together with the first
            failpoint("checkpoint.copy")
            with atomic_write(name, sole_writer=True) as copy:
                shutil.copyfile(file.name, copy.name)
        if last.exists():
            failpoint("checkpoint.keep_previous")
            last.resolve().replace(RunDir(last.parent.parent).previous_checkpoint)
        failpoint("checkpoint.rename")


class _FirstError:
    """A file that keeps its first error to itself: torch writes on after one, and then raises another."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        failpoint("checkpoint.write")
        if self.error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        pass  # once, at the end
