"""The optimizer and its learning rate: `conf/optim/`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from hp_lightning.common.errors import InputError
from hp_lightning.schema.regularization import RegularizationConfig
from hp_lightning.schema.setting import FRACTION, POSITIVE, PROPER_FRACTION, RATE, Bound, number, one_of, setting

MOST_L2_DECAY = 0.1  # that Adam, not AdamW, can be told


@dataclass
class PlateauConfig:
    """`torch.optim.lr_scheduler.ReduceLROnPlateau` on the validation loss."""

    factor: float = setting(0.5, "what the learning rates are multiplied by on a plateau", PROPER_FRACTION)
    patience: Optional[int] = setting(
        None,
        "validations without a better loss after which the next such one is a plateau; null: none is",
        number(at_least=0),
    )
    min_lr: float = setting(1e-5, "lowest optim.lr; every other rate falls by the same factor", number(at_least=0))


@dataclass
class OptimConfig:
    """The optimizer and its learning rate; what the schedules are stands in `training/schedule.py`."""

    name: str = setting(
        "muon", "optimizer; muon: for the hidden matrices, with AdamW for the others", one_of("adamw", "adam", "muon")
    )
    lr: float = setting(6e-3, "learning rate of Adam's steps", POSITIVE)
    betas: list[float] = setting(
        [0.9, 0.99],
        "decay of Adam's two running averages",
        Bound(
            "must be two numbers, each at least 0 and below 1",
            lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
        ),
    )
    eps: float = setting(1e-8, "added to Adam's denominator", POSITIVE)
    muon_lr: float = setting(0.015, "learning rate of Muon's steps", POSITIVE)
    muon_momentum: float = setting(0.9, "momentum of Muon's steps", RATE)
    warmup_steps: int = setting(20, "optimizer steps over which the rates rise from 0", number(at_least=0))
    schedule: str = setting(
        "wsd",
        "what the learning rates do after the warm-up, apart from the plateau",
        one_of("plateau", "cosine", "wsd"),
    )
    decay_fraction: float = setting(1.0, "share of the run's steps, at its end, over which wsd decays", FRACTION)
    final_lr_fraction: float = setting(0.0, "share of the rates that cosine and wsd end with", FRACTION)
    plateau: PlateauConfig = field(default_factory=PlateauConfig)


def decay_rules(optim: OptimConfig, regularization: RegularizationConfig) -> Iterator[InputError]:
    """A step multiplies each weight of a matrix by 1 minus the product of learning rate and decay."""
    weight_decay = regularization.weight_decay
    rates = {"muon": ("lr", "muon_lr"), "adamw": ("lr",)}.get(optim.name, ())
    for key in rates:
        if getattr(optim, key) * weight_decay >= 1:
            yield InputError(
                "optim.too_much_decay",
                f"optim.{key}={getattr(optim, key)} times regularization.weight_decay={weight_decay} must be below 1, "
                "or every step would undo the weights: lower one of the two",
            )


def l2_rules(optim: OptimConfig, regularization: RegularizationConfig) -> Iterator[InputError]:
    """Adam adds the decay to the gradient."""
    if optim.name == "adam" and regularization.weight_decay > MOST_L2_DECAY:
        yield InputError(
            "optim.too_much_decay",
            f"optim=adam adds regularization.weight_decay={regularization.weight_decay} to the gradient, which is too "
            "strong for Adam's L2 penalty: take regularization=light, or optim=adamw",
        )
