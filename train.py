"""Train a GPT on a CSV of books: python train.py data.path=mine.csv model=small"""

from hp_lightning.cli.train import run

if __name__ == "__main__":
    run()
