"""python -m hp_lightning.reporting"""

from hp_lightning.cli.compare import run

if __name__ == "__main__":
    run()
