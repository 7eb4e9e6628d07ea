"""The token embeddings, for TensorBoard's projector."""

from tensorboard.plugins.projector.metadata import PROJECTOR_FILENAME

from hp_lightning.common.files import atomic_write
from hp_lightning.common.run_dir import RunDir
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.models.gpt import GPT
from hp_lightning.tokenizers.base import labels

MOST_TOKENS = 5_000  # what a browser still turns smoothly
CONFIG = """embeddings {{
  tensor_name: "token embeddings"
  tensor_shape: {}
  tensor_shape: {}
  tensor_path: "{}"
  metadata_path: "{}"
}}
"""  # a ProjectorConfig of TensorBoard's, in protobuf's text format


def write_projector(run_dir: RunDir, net: GPT, data: CorpusDataModule) -> None:
    """Put the vectors of the most frequent tokens, with their words and ranks, where TensorBoard finds them."""
    order = data.unigram_losses().argsort(stable=True)[:MOST_TOKENS]
    vectors = net.token_embedding.weight.detach()[order.to(net.token_embedding.weight.device)].float().cpu().numpy()
    words = labels(data.tokenizer, order.tolist())
    rows = ["token\trank", *(f"{word}\t{rank}" for rank, word in enumerate(words, start=1))]
    shown = (run_dir.embeddings, run_dir.embedding_labels)
    config = CONFIG.format(*vectors.shape, *(path.relative_to(run_dir.path) for path in shown))
    run_dir.embeddings.parent.mkdir(exist_ok=True)
    for path, content in (
        (run_dir.embeddings, vectors.tobytes()),
        (run_dir.embedding_labels, ("\n".join(rows) + "\n").encode()),
        (run_dir.path / PROJECTOR_FILENAME, config.encode()),
    ):
        with atomic_write(path) as file:
            file.write(content)
