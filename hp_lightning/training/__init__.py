"""One run: the Lightning module, the optimizers, the trainer."""
