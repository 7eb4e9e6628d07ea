"""How well a trained model predicts its held-out text: python evaluate.py ckpt=outputs/runs/..."""

from hp_lightning.cli.evaluate import run

if __name__ == "__main__":
    run()
