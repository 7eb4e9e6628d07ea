"""The command python -m hp_lightning.corpus."""
