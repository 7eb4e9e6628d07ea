"""What a checkpoint holds, how it is written whole or not at all, and how it is read without trusting it.

One file is enough: weights, the run's config with the network's form in it, and the tokenizer's whole state, as tensors
and plain Python values.
"""

import os
import random
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from hp_lightning.config import TrainConfig, from_plain, to_plain
from hp_lightning.data import CorpusDataModule
from hp_lightning.errors import InputError
from hp_lightning.lightning_module import GPTModule
from hp_lightning.model import GPT
from hp_lightning.runs import best_checkpoint, last_checkpoint
from hp_lightning.tokenization import Tokenizer, tokenizer_from_state

FORMAT = 3


@dataclass(frozen=True)
class Trained:
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
    def corpus(self) -> str:
        """The digest of the corpus it was trained on."""
        return str(self.contents["hp_lightning"]["corpus"])

    @property
    def validations_since_best(self) -> int:
        """Validations without a better loss."""
        return int(self.contents["callbacks"][Checkpoints.__qualname__]["validations_since_best"])

    def net(self) -> GPT:
        """The network with its weights, without dropout."""
        net = GPT(self.cfg.model)
        load_weights(net, self)
        return net.eval()


def load(path: Path) -> Trained:
    """Reads a checkpoint; nothing in it is executed.

    Raises:
        InputError: the file is no checkpoint of hp_lightning, is damaged, or holds more than tensors and plain values
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of what it is about to refuse
            contents = torch.load(path, map_location="cpu", weights_only=True)
        ours = contents["hp_lightning"]
        if ours["format"] == FORMAT:
            return Trained(path, from_plain(ours["config"]), tokenizer_from_state(ours["tokenizer"]), contents)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except Exception as error:  # there is no end to what a file that is something else can hold
        raise InputError(
            f"{path} is no checkpoint of hp_lightning, or is damaged: name a run folder or its .ckpt file"
        ) from error
    raise InputError(f"{path} has the checkpoint format {ours['format']}, and this version reads {FORMAT}")


def load_weights(net: GPT, trained: Trained) -> None:
    """Puts a checkpoint's weights into a network of the same form.

    Raises:
        InputError: they do not fit
    """
    prefix = "net."
    weights = trained.contents["state_dict"].items()
    try:
        net.load_state_dict({name.removeprefix(prefix): value for name, value in weights if name.startswith(prefix)})
    except RuntimeError as error:
        raise InputError(f"{trained.path} is damaged: its weights do not fit the network it describes") from error


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file, flushes to the disk and renames, so that a checkpoint is whole or absent."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replaces what stood at `path` in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.unfinished")
        try:
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


class Checkpoints(Checkpoint):
    """After every validation `last.ckpt`, and `best.ckpt` where the loss is the lowest so far; stops a run early.

    Paths are not part of its state, so that a run folder can be moved.
    """

    def __init__(self, run_dir: Path, data: CorpusDataModule, patience: int | None) -> None:
        self.run_dir = run_dir
        self._data = data
        self._patience = patience
        self.best_loss = float("inf")
        self.best_step = 0
        self.last_step = -1  # of the last.ckpt that this process wrote
        self.validations_since_best = 0

    @property
    def out_of_patience(self) -> bool:
        """Whether the validation loss has stood still for as long as the config allows."""
        return self._patience is not None and self.validations_since_best >= self._patience

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A run that was out of patience when it was stopped does not begin another step."""
        if self.out_of_patience:
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes the loss, then saves."""
        loss = trainer.callback_metrics["val/loss"].item()
        improved = loss < self.best_loss
        if improved:
            self.best_loss, self.best_step, self.validations_since_best = loss, trainer.global_step, 0
        else:
            self.validations_since_best += 1
        if improved:
            trainer.save_checkpoint(best_checkpoint(self.run_dir))
        self.save_last(trainer)
        if self.out_of_patience:
            trainer.should_stop = True

    def save_last(self, trainer: L.Trainer) -> None:
        """Writes the checkpoint to resume from."""
        trainer.save_checkpoint(last_checkpoint(self.run_dir))
        self.last_step = trainer.global_step

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Makes the file enough by itself."""
        assert isinstance(pl_module, GPTModule)
        checkpoint["hp_lightning"] = {
            "format": FORMAT,
            "config": to_plain(pl_module.cfg),
            "tokenizer": self._data.tokenizer.state(),
            "corpus": self._data.digest,
        }

    def state_dict(self) -> dict[str, Any]:
        """The record of the best validation, and the random generators, which Lightning leaves out."""
        return {
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "validations_since_best": self.validations_since_best,
            "random": {
                "python": random.getstate(),
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the record; the generators are set when training starts, after everything that might draw."""
        self.best_loss = state_dict["best_loss"]
        self.best_step = state_dict["best_step"]
        self.validations_since_best = state_dict["validations_since_best"]
        self._random = state_dict["random"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sets the random generators of a resumed run."""
        state = self.__dict__.pop("_random", None)
        if state is None:
            return
        random.setstate(state["python"])
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
