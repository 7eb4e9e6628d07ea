"""python -m hp_lightning.corpus"""

from hp_lightning.cli.corpus import run

if __name__ == "__main__":
    run()
