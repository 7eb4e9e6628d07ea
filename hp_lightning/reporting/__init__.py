"""The command python -m hp_lightning.reporting."""
