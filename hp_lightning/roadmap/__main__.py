"""python -m hp_lightning.roadmap"""

from hp_lightning.cli.course import run

if __name__ == "__main__":
    run()
