"""What a run computes on, how often it validates, and when it is saved: `conf/trainer/`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from hp_lightning.common.errors import InputError
from hp_lightning.schema.data import DataConfig
from hp_lightning.schema.setting import POSITIVE, Bound, number, one_of, setting


@dataclass
class TrainerConfig:
    """What the run computes on, and how often it validates."""

    accelerator: str = setting(
        "auto", "what computes; auto: a GPU where there is one, else the CPU", one_of("auto", "cpu", "gpu")
    )
    devices: int = setting(1, "devices of one machine, which share each batch", number(at_least=1))
    precision: str = setting(
        "auto",
        "precision of the arithmetic; auto: bf16-mixed where it is faster",
        one_of("auto", "32-true", "bf16-mixed", "bf16-true"),
    )
    compile: Any = setting(
        "auto",
        "whether torch.compile is used; auto: where the run is long enough to earn it back",
        Bound(
            "must be one of true, false, auto",
            lambda value: isinstance(value, bool) or value == "auto",
            "config.unknown_choice",
        ),
    )
    accumulate_grad_batches: int = setting(1, "forward passes per optimizer step", number(at_least=1))
    val_every_steps: Optional[int] = setting(
        None, "optimizer steps between validations; null: an epoch", number(at_least=1)
    )
    profile: bool = setting(
        False, "whether a torch profiler writes a trace and table of some passes, in the run folder"
    )


@dataclass
class CheckpointConfig:
    """When the state of a run is saved, besides at every validation."""

    every_minutes: Optional[float] = setting(5.0, "minutes between saves; null: not by the clock", POSITIVE)
    every_steps: Optional[int] = setting(
        None, "optimizer steps between saves; null: not by their number", number(at_least=1)
    )
    top_k: int = setting(1, "how many of the best by validation loss are kept", number(at_least=1))


def trainer_rules(trainer: TrainerConfig, data: DataConfig) -> Iterator[InputError]:
    """Gradients are accumulated as one of the two settings says."""
    accumulate = trainer.accumulate_grad_batches
    if data.batch_tokens is not None and accumulate != 1 and not data.batch_size_is_settled(accumulate):
        yield InputError(
            "config.conflict",
            "data.batch_tokens works trainer.accumulate_grad_batches out by itself: leave one of the two out",
        )
