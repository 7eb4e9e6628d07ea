"""The same as `hp-lightning train`."""

from hp_lightning.cli.train import run

if __name__ == "__main__":
    run()
