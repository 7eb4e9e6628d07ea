"""A look at a corpus before training: what a run would read, and what its tokenizer would make of it.

    hp-lightning corpus PATH... [key=value...]

PATH is a file, a glob or a URL; without one the bundled stories are looked at. Keys are those of hp-lightning train,
as in

    hp-lightning corpus mine.csv data.text_column=line tokenizer.vocab_size=5000

Those that matter here, with their defaults:
"""

import sys

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hp_lightning.cli import app
from hp_lightning.cli.help import keys_table
from hp_lightning.common.console import messages, print_help
from hp_lightning.common.hydra_grammar import quoted
from hp_lightning.data.corpus_table import show_corpus
from hp_lightning.data.dataset import tokenize_corpus
from hp_lightning.data.ngram_baseline import counted_loss
from hp_lightning.schema.tokenizer import TokenizerConfig
from hp_lightning.schema.train import TrainConfig, to_plain, train_config
from hp_lightning.tokenizers import Tokenizer


@app.hydra_main("train")
def main(cfg: DictConfig) -> None:
    """Read, split and tokenize the corpus as a run would, and show the result."""
    checked = train_config(cfg)
    tokenizer: Tokenizer | TokenizerConfig = checked.tokenizer
    if checked.tokenizer.from_run is not None:
        from hp_lightning.training.run import chosen_tokenizer  # torch is imported only where a checkpoint is read

        checked, tokenizer = chosen_tokenizer(checked, list(HydraConfig.get().overrides.task))
    with messages():
        corpus = tokenize_corpus(checked.data, tokenizer)
        show_corpus(checked.data.path, corpus, counted_loss(checked.data, corpus))


# Hydra's options that take the next word.
WITH_A_VALUE = (
    "--cfg", "-c", "--info", "-i", "--config-name", "-cn", "--config-dir", "-cd", "--config-path", "-cp", "--package",
    "-p",
)  # fmt: skip


def _overrides(words: list[str]) -> list[str]:
    """Words that are neither key=value nor an option or its value are files, or URLs."""
    paths: list[str] = []
    others: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        is_path = "=" not in word.partition("/")[0] and not word.startswith("-") and before not in WITH_A_VALUE
        (paths if is_path else others).append(word)
    if not paths:
        return others
    chosen = [] if any(word.startswith("data=") for word in others) else ["data=csv"]
    path = paths[0] if len(paths) == 1 else f"[{','.join(map(quoted, paths))}]"
    return [*chosen, f"data.path={path}", *others]


def run() -> None:
    """The command."""
    if {"-h", "--help"} & set(sys.argv):
        keys = keys_table(TrainConfig, to_plain(TrainConfig()), r"tokenizer|data\.(?!path|seq_len|batch)")
        print_help(f"{__doc__}\n{keys}", app.program())
        return
    sys.argv[1:] = _overrides(sys.argv[1:])
    app.run(main, TrainConfig)
