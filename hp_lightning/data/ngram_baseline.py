"""What models that only count come to on a corpus: what a network has to beat."""

from hp_lightning.common.failpoints import failpoint
from hp_lightning.data.cache import Cache, digest, from_array, to_array
from hp_lightning.data.dataset import Encoded
from hp_lightning.data.downloads import cache_folder
from hp_lightning.data.kneser_ney import kneser_ney_loss
from hp_lightning.schema.train import DataConfig

FORMAT = 1  # of what the cache holds; to be raised with every change of counting


def counted_loss(cfg: DataConfig, corpus: Encoded) -> float | None:
    """The loss of a Kneser-Ney model on the validation part, see `kneser_ney_loss`; counted once, and then kept.

    Args:
        cfg: says where the cache is
    """
    cache = Cache(cache_folder(cfg) / "counting")
    vocab_size = len(corpus.tokenizer.vocabulary)
    key = digest(FORMAT, corpus.digest, vocab_size)
    kept = cache.load(key)
    if kept is None:
        failpoint("ngrams.count")
        loss = kneser_ney_loss(corpus.streams["train"], corpus.streams["val"], vocab_size)
        kept = {"loss": to_array(loss)}
        cache.store(key, kept)
    found: float | None = from_array(kept["loss"])
    return found
