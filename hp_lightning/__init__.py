"""Train a small GPT on your own books: PyTorch Lightning trains, Hydra configures, TensorBoard shows."""

__version__ = "0.1.0"
