"""A look at the corpus: at the head of every run, and by `python -m hp_lightning.corpus PATH`."""

from typing import Any

from rich.table import Table

from hp_lightning.corpus import CorpusFacts
from hp_lightning.encoding import Encoded
from hp_lightning.messages import log_table
from hp_lightning.progress import log

PARTS = {"train": "train", "val": "validation", "test": "test"}
LISTED = 5  # of a long list, so many are shown
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SEPARATORS = {" ": "spaces (printed lines flow together)", "\n": "line breaks"}


def show_corpus(path: Any, corpus: Encoded) -> None:
    """Says what was read, how it was split, and what the tokenizer makes of it."""
    facts = corpus.facts
    log.info("corpus  %s: %s", path, _how_it_was_read(facts))
    log_table(_parts(corpus))
    if corpus.coverage:
        log.info("\nshare of the tokens that a vocabulary of the training part's most common ones would know:")
        log_table(_coverage(corpus))
    log.info("")
    log.info("vocabulary         %s tokens", f"{len(corpus.tokenizer.vocabulary):,}")
    log.info("longest document   %s, %s words", facts.longest[0], f"{facts.longest[1]:,}")
    log.info("shortest           %s, %s words", facts.shortest[0], f"{facts.shortest[1]:,}")
    log.info("duplicated         %s", _duplicates(facts))
    log.info("odd characters     %s\n", _odd_characters(facts))


def _how_it_was_read(facts: CorpusFacts) -> str:
    documents = (
        f"a document for each {', '.join(facts.group_columns)}" if facts.group_columns else "one document a file"
    )
    columns = f"text in column {facts.text_column!r}, " if facts.text_column else ""
    parted = f"columns parted by {DELIMITERS.get(facts.delimiter, repr(facts.delimiter))}, " if facts.delimiter else ""
    joined = SEPARATORS.get(facts.row_separator, repr(facts.row_separator))
    return f"{facts.rows:,} rows, {parted}{columns}{documents}, rows joined by {joined}"


def _parts(corpus: Encoded) -> Table:
    table = Table(show_edge=False)
    table.add_column("")
    for name in ("documents", "words", "characters", "tokens", "<UNK>"):
        table.add_column(name, justify="right")
    unk_id = corpus.tokenizer.vocabulary.unk_id
    for part, name in PARTS.items():
        facts, predicted = corpus.facts.parts[part], corpus.streams[part][1:]
        unknown = "none" if unk_id is None else f"{(predicted == unk_id).mean():.2%}" if len(predicted) else ""
        numbers = (facts.documents, facts.words, facts.characters, len(predicted))
        table.add_row(name, *(f"{number:,}" for number in numbers), unknown)
    return table


def _coverage(corpus: Encoded) -> Table:
    table = Table(show_edge=False)
    table.add_column("known of")
    for row in corpus.coverage:
        is_last = row is corpus.coverage[-1]
        table.add_column(f"all {row.size:,}" if is_last else f"{row.size // 1000}k", justify="right")
    for part, name in PARTS.items():
        shares = (f"{row.known[part]:.1%}" for row in corpus.coverage) if corpus.facts.parts[part].documents else ()
        table.add_row(name, *shares)
    return table


def _duplicates(facts: CorpusFacts) -> str:
    shown = [" = ".join(names) for names in facts.duplicates]
    return _listed(shown) if shown else "none"


def _odd_characters(facts: CorpusFacts) -> str:
    return _listed([f"{name} ({count:,})" for name, count in facts.odd_characters.items()]) or "none"


def _listed(items: list[str]) -> str:
    more = f"; and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return "; ".join(items[:LISTED]) + more
