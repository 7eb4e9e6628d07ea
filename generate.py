"""Let a trained model write: python generate.py prompt="The lantern" """

from hp_lightning.cli.generate import run

if __name__ == "__main__":
    run()
