"""The same as `hp-lightning generate`."""

from hp_lightning.cli.generate import run

if __name__ == "__main__":
    run()
