"""A look at the corpus: at the head of every run, and by `hp-lightning corpus PATH`."""

import html
import math
import re
from typing import Any

from hp_lightning.common.console import log, log_table
from hp_lightning.data.dataset import TokenizedCorpus
from hp_lightning.data.ngram_baseline import MOST_TOKENS, ORDER
from hp_lightning.data.stats import CorpusFacts

SPLITS = {"train": "train", "val": "validation", "test": "test"}
LISTED = 5  # of a long list, so many are shown
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
COVERAGE = "Vocabulary coverage (share of the tokens), by size of the vocabulary:"
SEPARATORS = {" ": "spaces (printed lines flow together)", "\n": "line breaks"}


Table = tuple[list[str], list[list[str]]]  # the headings, and the rows


def show_corpus(path: Any, corpus: TokenizedCorpus, counted_loss: float | None) -> None:
    """Log what was read, how it was split, what the tokenizer makes of it, and the n-gram baseline."""
    log.info("corpus  %s: %s", path, _how_it_was_read(corpus.facts))
    log_table(*_splits(corpus))
    if corpus.coverage:
        log.info("\n%s", COVERAGE)
        log_table(*_coverage(corpus))
    log.info("")
    for name, value in _findings(corpus, counted_loss):
        log.info("%-21s %s", name, value)
    log.info("")


def corpus_in_markdown(path: Any, corpus: TokenizedCorpus, counted_loss: float | None) -> str:
    """The same for a page."""
    coverage = [f"{COVERAGE}\n\n{_markdown(_coverage(corpus))}"] if corpus.coverage else []
    return "\n\n".join(
        [
            f"{_escaped(str(path))}: {_escaped(_how_it_was_read(corpus.facts))}",
            _markdown(_splits(corpus)),
            *coverage,
            "\n".join(f"- {name}: {_escaped(value)}" for name, value in _findings(corpus, counted_loss)),
        ]
    )


def _how_it_was_read(facts: CorpusFacts) -> str:
    documents = f"one document per {', '.join(facts.group_columns)}" if facts.group_columns else "one document per file"
    columns = f"text in column {facts.text_column!r}, " if facts.text_column else ""
    delimiter = DELIMITERS.get(facts.delimiter or "", repr(facts.delimiter))
    separated = f"columns separated by {delimiter}, " if facts.delimiter else ""
    joined = SEPARATORS.get(facts.row_separator, repr(facts.row_separator))
    return f"{facts.rows:,} rows, {separated}{columns}{documents}, rows joined by {joined}"


def _splits(corpus: TokenizedCorpus) -> Table:
    rows = []
    unk_id = corpus.tokenizer.vocabulary.unk_id
    for split, name in SPLITS.items():
        facts, predicted = corpus.facts.splits[split], corpus.streams[split][1:]
        unknown = "none" if unk_id is None else f"{(predicted == unk_id).mean():.2%}" if len(predicted) else ""
        numbers = (facts.documents, facts.words, facts.characters, len(predicted))
        rows.append([name, *(f"{number:,}" for number in numbers), unknown])
    return ["", "documents", "words", "characters", "tokens", "<UNK>"], rows


def _coverage(corpus: TokenizedCorpus) -> Table:
    sizes = [f"{row.size // 1000}k" for row in corpus.coverage[:-1]] + [f"all {corpus.coverage[-1].size:,}"]
    rows = []
    for split, name in SPLITS.items():
        known = corpus.facts.splits[split].documents > 0
        rows.append([name, *(f"{row.known[split]:.1%}" if known else "" for row in corpus.coverage)])
    return ["vocabulary size", *sizes], rows


def _findings(corpus: TokenizedCorpus, counted_loss: float | None) -> list[tuple[str, str]]:
    facts = corpus.facts
    return [
        ("vocabulary", f"{len(corpus.tokenizer.vocabulary):,} tokens"),
        ("longest document", f"{facts.longest[0]}, {facts.longest[1]:,} words"),
        ("shortest", f"{facts.shortest[0]}, {facts.shortest[1]:,} words"),
        ("duplicate documents", _duplicates(facts)),
        ("unusual characters", _odd_characters(facts)),
        ("n-gram baseline", _counting(corpus, counted_loss)),
    ]


def _markdown(table: Table) -> str:
    headings, rows = table
    head, *body = [" | ".join(map(_escaped, row)) for row in (headings, *rows)]
    align = " | ".join([":--", *("--:" for _ in headings[1:])])
    return "\n".join(f"| {row} |" for row in (head, align, *body))


def _escaped(text: str) -> str:
    """Text in which Markdown and HTML find no signs of theirs."""
    return re.sub(r"([\\`*_{}\[\]()#+!|.-])", r"\\\1", html.escape(text, quote=False))


def _duplicates(facts: CorpusFacts) -> str:
    shown = [" = ".join(names) for names in facts.duplicates]
    return _listed(shown) if shown else "none"


def _odd_characters(facts: CorpusFacts) -> str:
    return _listed([f"{name} ({count:,})" for name, count in facts.odd_characters.items()]) or "none"


def _counting(corpus: TokenizedCorpus, loss: float | None) -> str:
    """What a network has to beat."""
    if len(corpus.streams["val"]) < 2:
        return "no validation split to try it on"
    unigram = f"a unigram model {corpus.unigram_loss('val'):.2f}"
    if loss is None:
        return f"on the validation split {unigram}; of more than {MOST_TOKENS:,} tokens no n-grams are counted"
    model = f"a Kneser-Ney model of order {ORDER} reaches {loss:.2f} on the validation split"
    return f"{model} (perplexity {math.exp(loss):,.0f}), {unigram}"


def _listed(items: list[str]) -> str:
    more = f"; and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return "; ".join(items[:LISTED]) + more
