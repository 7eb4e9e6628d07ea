"""How many sentences come back exactly from their tokens, beside NLTK's own detokenizer.

    python benchmarks/round_trip.py                                            # the bundled stories
    python benchmarks/round_trip.py data.path=state_union.csv "data.group_columns=[president,year]"

Takes any setting of train.py. The tokenizer is learned from the training split, as in a run; of each split the
sentences that have no `<UNK>` are encoded and decoded.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from nltk.tokenize import NLTKWordTokenizer
from nltk.tokenize.treebank import TreebankWordDetokenizer

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from hp_lightning.cli import app  # noqa: E402, F401  makes schemas and resolvers known
from hp_lightning.data.documents import Document, read_documents  # noqa: E402
from hp_lightning.data.splits import split_documents  # noqa: E402
from hp_lightning.schema.train import train_config  # noqa: E402
from hp_lightning.tokenizers import Tokenizer, learn_tokenizer  # noqa: E402
from hp_lightning.tokenizers.punkt import Sentences  # noqa: E402


def main() -> None:
    """Prints the shares of the three splits."""
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = train_config(compose("train", overrides=sys.argv[1:]))
    splits = split_documents(read_documents(cfg.data).documents, cfg.data)
    tokenizer = learn_tokenizer(cfg.tokenizer, [document.text for document in splits.train]).tokenizer
    sentences = Sentences(tokenizer.state()["punkt"])
    cut, joined = NLTKWordTokenizer().tokenize, TreebankWordDetokenizer().detokenize
    for part, documents in vars(splits).items():
        known = list(_known_sentences(documents, sentences, tokenizer))
        ours = sum(tokenizer.decode(tokenizer.encode(sentence)) == sentence for sentence in known)
        nltk = sum(joined(cut(sentence)) == sentence for sentence in known)
        print(f"{part:5} {len(known):6,} sentences: ours {ours / len(known):.2%}, NLTK's {nltk / len(known):.2%}")


def _known_sentences(documents: list[Document], sentences: Sentences, tokenizer: Tokenizer) -> Iterator[str]:
    for document in documents:
        for line in document.text.split("\n"):
            for sentence in sentences.of(line):
                if tokenizer.vocabulary.unk_id not in tokenizer.encode(sentence):
                    yield sentence


if __name__ == "__main__":
    main()
