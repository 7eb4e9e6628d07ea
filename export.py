"""Take a trained model along, as a folder for transformers: python export.py ckpt=outputs/runs/... to=DIR"""

from hp_lightning.cli.export import run

if __name__ == "__main__":
    run()
