"""`python -m hp_lightning COMMAND`: the same as `hp-lightning COMMAND`."""

from hp_lightning.cli.main import main

if __name__ == "__main__":
    main()
