"""What keeps the network from memorizing its training text: `conf/regularization/`."""

from dataclasses import dataclass
from typing import Optional

from hp_lightning.schema.setting import POSITIVE, RATE, number, setting

DROPOUT_PLACES = ("embedding", "attention", "residual")


@dataclass
class RegularizationConfig:
    """Everything that keeps the network from memorizing its training text."""

    dropout: float = setting(0.1, "dropout rate at every place whose own rate is null", RATE)
    embedding_dropout: Optional[float] = setting(None, "dropout rate of the embedding; null: dropout", RATE)
    attention_dropout: Optional[float] = setting(None, "dropout rate of attention weights; null: dropout", RATE)
    residual_dropout: Optional[float] = setting(None, "dropout rate of residual branches; null: dropout", RATE)
    weight_decay: float = setting(1.0, "weight decay of matrices, times the learning rate", number(at_least=0))
    gradient_clip_norm: Optional[float] = setting(1.0, "largest norm of the gradient; null: no clipping", POSITIVE)
    early_stopping_patience: Optional[int] = setting(
        10, "validations without a better loss after which training stops; null: never", number(at_least=1)
    )

    def rate(self, place: str) -> float:
        """The dropout rate of one of `DROPOUT_PLACES`."""
        own: float | None = getattr(self, f"{place}_dropout")
        return self.dropout if own is None else own
