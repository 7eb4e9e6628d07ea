"""The sentiment of a text: python sentiment.py text="The movie was fantastic and entertaining." """

from hp_lightning.cli.sentiment import run

if __name__ == "__main__":
    run()
