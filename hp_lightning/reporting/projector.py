"""The token embeddings, for TensorBoard's projector."""

from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tensorboard.plugins.projector.metadata import PROJECTOR_FILENAME
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from hp_lightning.data import CorpusDataModule
from hp_lightning.model import GPT
from hp_lightning.progress import log
from hp_lightning.reporting.labels import labels
from hp_lightning.runs import write_whole

MOST_TOKENS = 5_000  # what a browser still turns smoothly
FOLDER = "projector"


def write_projector(run_dir: Path, net: GPT, data: CorpusDataModule) -> None:
    """Puts the vectors of the most frequent tokens, with their words and ranks, where TensorBoard finds them."""
    order = data.unigram_losses().argsort(stable=True)[:MOST_TOKENS]
    vectors = net.token_embedding.weight.detach()[order.to(net.token_embedding.weight.device)].float().cpu().numpy()
    words = labels(data.tokenizer, order.tolist())
    rows = ["token\trank", *(f"{word}\t{rank}" for rank, word in enumerate(words, start=1))]
    config = ProjectorConfig()
    embedding = config.embeddings.add()
    embedding.tensor_name = "token embeddings"
    embedding.tensor_shape.extend(vectors.shape)
    embedding.tensor_path = f"{FOLDER}/vectors.bytes"
    embedding.metadata_path = f"{FOLDER}/tokens.tsv"
    try:
        (run_dir / FOLDER).mkdir(exist_ok=True)
        write_whole(run_dir / embedding.tensor_path, vectors.astype(np.float32).tobytes())
        write_whole(run_dir / embedding.metadata_path, ("\n".join(rows) + "\n").encode("utf-8"))
        write_whole(run_dir / PROJECTOR_FILENAME, text_format.MessageToString(config).encode("utf-8"))
    except OSError as error:
        log.warning("the embeddings for TensorBoard cannot be written in %s (%s)", run_dir, error.strerror)
