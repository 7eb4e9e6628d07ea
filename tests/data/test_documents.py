import csv
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.errors import refused

from hp_lightning.data.documents import Document, characters, read_documents
from hp_lightning.data.splits import split_documents
from hp_lightning.schema.data import DataConfig
from hp_lightning.schema.train import TrainConfig

MARK = "\u3000\u3000"  # before the first word of a paragraph
SPLITS = ("train", "val", "test")
MakeConfig = Callable[..., TrainConfig]
Read = Callable[..., list[Document]]


@pytest.fixture(scope="module")
def own_csv(make_config: MakeConfig) -> DataConfig:
    """The settings of somebody who names a CSV and nothing else."""
    return make_config("data=csv", "data.path=mine.csv").data


@pytest.fixture
def read(tmp_path: Path, own_csv: DataConfig) -> Read:
    """Writes `mine.csv` and reads it."""

    def written_and_read(content: str | bytes, **settings: Any) -> list[Document]:
        path = tmp_path / "mine.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_documents(replace(own_csv, path=str(path), **settings)).documents

    return written_and_read


@pytest.fixture(scope="module")
def bundled(make_config: MakeConfig) -> DataConfig:
    return make_config().data


@pytest.fixture(scope="module")
def stories(bundled: DataConfig) -> list[Document]:
    return read_documents(bundled).documents


def some_documents(*texts: str) -> list[Document]:
    return [Document(f"document {number}", text) for number, text in enumerate(texts)]


def joined(documents: list[Document]) -> str:
    return "".join(document.text for document in documents)


READABLE: dict[str, tuple[str, dict[str, Any], list[tuple[str, str]]]] = {
    "printed lines flow together, marks begin paragraphs": (
        f"text,book,chapter\n{MARK}The fog came,Fog,1\nin and sat,Fog,1\ndown.,Fog,1\n{MARK}Nobody spoke.,Fog,1\n"
        f"{MARK}Next day,Fog,2\nit rose.,Fog,2\n",
        {},
        [("Fog / 1", "The fog came in and sat down.\nNobody spoke."), ("Fog / 2", "Next day it rose.")],
    ),
    "marks inside a row": (f"text\n{MARK}One.{MARK}Two\ngoes on.\n", {}, [("mine", "One.\nTwo goes on.")]),
    "blank rows end paragraphs": (
        f'text,chapter\n{MARK}One line,1\nruns on.,1\n,1\n"  ",1\nNext,1\none.,1\n,1\n',
        {},
        [("1", "One line runs on.\nNext one.")],
    ),
    "blank rows of a single column": (
        f'text\n{MARK}One line\nruns on.\n""\nNext one.\n',
        {},
        [("mine", "One line runs on.\nNext one.")],
    ),
    "printed lines without marks": (
        'text\nOne line \n runs on.\n""\nNext  one.\n',
        {"row_separator": " "},
        [("mine", "One line runs on.\nNext one.")],
    ),
    "a paragraph a row": (
        'text,president,year\n"Mr. Speaker,",Truman,1945\nIt is.,Truman,1945\n',
        {"group_columns": ["president", "year"]},
        [("Truman / 1945", "Mr. Speaker,\nIt is.")],
    ),
    "a chapter a cell": (
        'chapter,text\n1,"He said ""no"".\nShe left.\n\nIt rained."\n2,"Later,\nit stopped."\n',
        {},
        [("1", 'He said "no".\nShe left.\n\nIt rained.'), ("2", "Later,\nit stopped.")],
    ),
    "byte order mark": ("\ufefftext,book\nOne.,A\n", {}, [("A", "One.")]),
    "carriage returns": ('text,book\r\n"One.\r\nTwo.",A\r\nThree.,A\r\n', {}, [("A", "One.\nTwo.\nThree.")]),
    "accents in one form": ("text\ncafe\u0301\n", {}, [("mine", "caf\u00e9")]),
    "text column by name": ("text,verse\nno,yes\n", {"text_column": "verse"}, [("mine", "yes")]),
    "text column by position": ("a,b\nno,yes\n", {"text_column": "1"}, [("mine", "yes")]),
    "text column from the header": ("number, Content \n1,yes\n", {}, [("mine", "yes")]),
    "the only column": ("whatever\nyes\n", {}, [("mine", "yes")]),
    "group column by name": ("text,who\nx,A\ny,B\n", {"group_columns": ["who"]}, [("A", "x"), ("B", "y")]),
    "group column by position": ("text,who\nx,A\ny,B\n", {"group_columns": ["1"]}, [("A", "x"), ("B", "y")]),
    "group columns from the header": (
        "Volume,text,note,Chapter\nI,x,n,1\nI,y,m,1\nII,z,n,1\n",
        {},
        [("I / 1", "x\ny"), ("II / 1", "z")],
    ),
    "no group column": ("text,note\nx,A\ny,B\n", {}, [("mine", "x\ny")]),
    "group columns of the header not wanted": ("text,book\nx,A\ny,B\n", {"group_columns": []}, [("mine", "x\ny")]),
    "no header": ("x\ny\n", {"header": False}, [("mine", "x\ny")]),
    "no header, columns by position": (
        "A,x\nB,y\n",
        {"header": False, "text_column": "1", "group_columns": ["0"]},
        [("A", "x"), ("B", "y")],
    ),
    "separator of one's own": ("text\nx\ny\n", {"row_separator": "\n\n"}, [("mine", "x\n\ny")]),
    "interleaved groups": ("text,book\na1,A\nb1,B\na2,A\nb2,B\n", {}, [("A", "a1\na2"), ("B", "b1\nb2")]),
    "blank documents are none": ("text,book\nx,A\n ,B\n", {}, [("A", "x")]),
}


@pytest.mark.parametrize(("content", "settings", "expected"), READABLE.values(), ids=READABLE.keys())
def test_reads_what_people_have(
    read: Read, content: str, settings: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert [(document.name, document.text) for document in read(content, **settings)] == expected


def test_reads_an_empty_line_of_a_single_column_as_a_blank_row(read: Read) -> None:
    # So an editor leaves it, and so spreadsheets save an empty cell of the only column.
    [document] = read(f"text\n{MARK}One line\nruns on.\n\nNext one.\n")
    assert document.text == "One line runs on.\nNext one."


def test_reads_a_cell_as_long_as_a_book(read: Read) -> None:
    text = "It was, as she said, a long night.\n" * 8_000
    assert len(text) > 131_072  # the csv module's own bound
    assert read(f'text,book\n"{text}",A\nIt ended.,B\n') == [Document("A", text), Document("B", "It ended.")]


def test_reads_columns_from_the_command_line(make_config: MakeConfig, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("when,who,said\n1,A,x\n2,B,y\n")
    cfg = make_config("data=csv", f"data.path='{path}'", "data.text_column=2", "data.group_columns=[1, when]")
    assert read_documents(cfg.data).documents == [Document("A / 1", "x"), Document("B / 2", "y")]


@pytest.mark.parametrize("overrides", [["data=csv", "data.collapse_spaces=false"], ["experiment=shakespeare_char"]])
def test_tinyshakespeare_is_read_byte_for_byte(
    make_config: MakeConfig, shared_data: Path, overrides: list[str]
) -> None:
    path = shared_data / "tinyshakespeare.csv"
    cfg = make_config(*overrides, f"data.path='{path}'").data
    [document] = read_documents(cfg).documents
    assert document.text.encode() == path.with_suffix(".txt").read_bytes()


def test_state_union_has_an_address_a_document(make_config: MakeConfig, shared_data: Path) -> None:
    path = shared_data / "state_union.csv"
    documents = read_documents(
        make_config("data=csv", f"data.path='{path}'", "data.group_columns=[president,year]").data
    ).documents
    assert len(documents) == 65
    assert documents[0].name == "Truman / 1945"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    first = [row["text"] for row in rows if (row["president"], row["year"]) == ("Truman", "1945")]
    assert documents[0].text == "\n".join(first)


REFUSED: dict[str, tuple[str | bytes, dict[str, Any], str, list[str]]] = {
    "no such text column": (
        "when,who,said\n1,A,x\n",
        {"text_column": "words"},
        "data.no_such_column",
        ["words", "when, who, said"],
    ),
    "no such position": (
        "text,book\nx,A\n",
        {"text_column": "2"},
        "data.no_such_column",
        ["data.text_column=2", "text, book"],
    ),
    "no such group column": (
        "text,book\nx,A\n",
        {"group_columns": ["split"]},
        "data.no_such_column",
        ["data.group_columns=split", "text, book"],
    ),
    "text column not to be found": (
        "when,who,said\n1,A,x\n",
        {},
        "data.ambiguous_text_column",
        ["data.text_column", "when, who, said"],
    ),
    "no header, many columns": ("A,x\n", {"header": False}, "data.ambiguous_text_column", ["data.text_column", "0, 1"]),
    "empty": ("", {}, "data.no_rows", []),
    "header only": ("text,book,chapter\n", {}, "data.no_rows", []),
    "all blank": ('text,book\n"",A\n  ,A\n', {}, "data.blank", ["'text'"]),
    "cells missing": ("text,book\nx,A\ny\nz,A\n", {}, "data.ragged_row", ["line 3: 1 ", "2 columns"]),
    "cells missing below a cell of two lines": ('book,text\nA,"x\ny"\nz\n', {}, "data.ragged_row", ["line 4:"]),
    "quotation mark missing": ('text,book\n"x,A\ny,A\n', {}, "data.invalid_csv", ["line 2:"]),
    "Latin-1": (
        "text\ncafé\n".encode("latin-1"),
        {},
        "data.wrong_encoding",
        ["line 2:", "not UTF-8", "data.encoding="],
    ),
    "UTF-16": ("text\nx\n".encode("utf-16"), {}, "data.wrong_encoding", ["not UTF-8"]),
}


@pytest.mark.parametrize(("content", "settings", "code", "mentioned"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses_with_a_line_that_names_the_thing(
    read: Read, content: str | bytes, settings: dict[str, Any], code: str, mentioned: list[str]
) -> None:
    with refused(code, *mentioned):
        read(content, **settings)


def test_refuses_a_row_with_more_cells_than_the_header(read: Read) -> None:
    # A comma that is not quoted: taken as it is, the row would lose " world" and be a document of its own.
    with refused("data.ragged_row", "line 3: 3 "):
        read("text,book\nGood evening,A\nHello, world,A\n")


@pytest.mark.parametrize(("name", "code"), [("nowhere.csv", "data.not_found"), ("", "data.is_folder")])
def test_refuses_a_path_that_is_no_file(tmp_path: Path, own_csv: DataConfig, name: str, code: str) -> None:
    path = tmp_path / name
    with refused(code, f"data.path={path} "):
        read_documents(replace(own_csv, path=str(path)))


@pytest.mark.parametrize("split", ["documents", "auto", "tail"])
def test_split_is_a_function_of_the_seed(stories: list[Document], bundled: DataConfig, split: str) -> None:
    def parts(seed: int) -> Any:
        return split_documents(stories, replace(bundled, split=split, split_seed=seed))

    assert parts(3) == parts(3)
    assert (parts(3) == parts(4)) == (split == "tail")


@pytest.mark.parametrize("seed", range(5))
def test_split_by_document_parts_the_stories(stories: list[Document], bundled: DataConfig, seed: int) -> None:
    splits = split_documents(stories, replace(bundled, split="documents", split_seed=seed))
    found = [document for split in SPLITS for document in getattr(splits, split)]
    assert sorted(document.name for document in found) == sorted(document.name for document in stories)
    assert set(found) == set(stories)
    total = characters(stories)
    assert characters(splits.val) / total == pytest.approx(bundled.val_fraction, abs=0.015)
    assert characters(splits.test) / total == pytest.approx(bundled.test_fraction, abs=0.015)
    for split in SPLITS:
        places = [stories.index(document) for document in getattr(splits, split)]
        assert places == sorted(places)


def test_split_by_document_without_a_test_part(stories: list[Document], bundled: DataConfig) -> None:
    splits = split_documents(stories, replace(bundled, split="documents", test_fraction=0.0))
    assert splits.test == []
    assert len(splits.train) + len(splits.val) == len(stories)


@pytest.mark.parametrize("seed", range(20))
def test_equal_documents_are_never_on_two_sides(bundled: DataConfig, seed: int) -> None:
    rng = random.Random(seed)
    different = ["x" * rng.randrange(1, 50) + str(number) for number in range(12)]
    documents = some_documents(*rng.choices(different, k=40))
    splits = split_documents(documents, replace(bundled, split="documents", split_seed=seed))
    texts = [{document.text for document in getattr(splits, split)} for split in SPLITS]
    assert all(texts)
    assert not any(one & other for one, other in combinations(texts, 2))
    assert sum(len(getattr(splits, split)) for split in SPLITS) == len(documents)


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.05), (0.1, 0.0), (0.25, 0.25)])
def test_tail_cuts_by_position(stories: list[Document], bundled: DataConfig, val: float, test: float) -> None:
    cfg = replace(bundled, split="tail", val_fraction=val, test_fraction=test)
    splits = split_documents(stories, cfg)
    assert "".join(joined(getattr(splits, split)) for split in SPLITS) == joined(stories)
    total = characters(stories)
    assert characters(splits.val) == pytest.approx(val * total, abs=1)
    assert characters(splits.test) == pytest.approx(test * total, abs=1)


@pytest.mark.parametrize("split", ["tail", "auto"])
def test_tail_keeps_the_first_of_equal_documents(bundled: DataConfig, split: str) -> None:
    texts = ["A long text. " * 90, "Another text. " * 90, "A third. " * 90]
    splits = split_documents(some_documents(*texts, texts[0], texts[2]), replace(bundled, split=split))
    assert "".join(joined(getattr(splits, split)) for split in SPLITS) == "".join(texts)
    assert splits.train[0].name == "document 0"
    assert {document.name for document in splits.test} == {"document 2"}


@pytest.mark.parametrize("typed", [r"\n", "\n"])
def test_row_separator_as_one_types_it(bundled: DataConfig, tmp_path: Path, typed: str) -> None:
    path = tmp_path / "verse.csv"
    path.write_text("text\nOne line\nand another\n", encoding="utf-8")
    [document] = read_documents(replace(bundled, path=str(path), row_separator=typed)).documents
    assert document.text == "One line\nand another"


def test_tail_of_tinyshakespeare_is_the_last_tenth(make_config: MakeConfig, shared_data: Path) -> None:
    path = shared_data / "tinyshakespeare.csv"
    cfg = make_config("experiment=shakespeare_char", f"data.path='{path}'").data
    splits = split_documents(read_documents(cfg).documents, cfg)
    text = path.with_suffix(".txt").read_text(encoding="utf-8")
    border = int(len(text) * 0.9)
    assert joined(splits.train) == text[:border]
    assert joined(splits.val) == text[border:]
    assert splits.test == []


@pytest.mark.parametrize(
    ("texts", "test", "taken"),
    [
        (["A long text. " * 9], 0.05, "tail"),
        (["A long text. " * 9, "Another text. " * 9], 0.05, "tail"),
        (["The same text. " * 9] * 5, 0.05, "tail"),
        (["A long text. " * 9, "Another text. " * 9], 0.0, "tail"),
        (["A long text. " * 9] * 3 + ["A book. " * 900], 0.05, "tail"),
        ([f"The text {number}. " * 9 for number in range(10, 30)], 0.05, "documents"),
        ([f"The text {number}. " * 9 for number in range(10, 20)], 0.0, "documents"),
    ],
)
def test_auto_splits_documents_where_that_comes_near_the_fractions(
    bundled: DataConfig, texts: list[str], test: float, taken: str
) -> None:
    cfg = replace(bundled, split="auto", test_fraction=test)
    documents = some_documents(*texts)
    assert split_documents(documents, cfg) == split_documents(documents, replace(cfg, split=taken))


@pytest.mark.parametrize(
    ("split", "texts"),
    [
        ("documents", ["The only text. " * 9]),
        ("documents", ["One text. " * 9, "Another text. " * 9]),
        ("documents", ["The same text. " * 9] * 9),
        ("tail", ["abc"]),
        ("auto", ["abc"]),
    ],
)
def test_refuses_a_split_that_leaves_a_part_empty(bundled: DataConfig, split: str, texts: list[str]) -> None:
    with refused("data.empty_split", f"data.split={split} "):
        split_documents(some_documents(*texts), replace(bundled, split=split))


@pytest.fixture(scope="module")
def bundled_rows(bundled: DataConfig) -> list[list[str]]:
    with Path(bundled.path).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_bundled_corpus_is_four_books_of_chapters(bundled_rows: list[list[str]], stories: list[Document]) -> None:
    assert bundled_rows[0] == ["text", "book", "chapter"]
    chapters = {(book, chapter) for _, book, chapter in bundled_rows[1:]}
    chapters_of_book = Counter(book for book, _ in chapters)
    assert len(chapters_of_book) == 4
    assert min(chapters_of_book.values()) >= 10
    assert len(stories) == len(chapters)
    assert sum(len(document.text.split()) for document in stories) >= 50_000


def test_bundled_corpus_is_printed_lines(bundled_rows: list[list[str]]) -> None:
    lines = [line for line, _, _ in bundled_rows[1:]]
    printed = [line.removeprefix(MARK) for line in lines]
    assert all(line.isascii() and line.isprintable() and line.strip() for line in printed)
    assert max(map(len, printed)) <= 70
    assert any(line.startswith(MARK) for line in lines)
    # As in a book, a sentence runs over several lines.
    assert sum(one[-1].isalnum() and not two.startswith(MARK) for one, two in pairwise(lines)) > len(lines) / 2


def test_bundled_corpus_does_not_repeat_itself(stories: list[Document]) -> None:
    words = re.findall(r"[\w']+", " ".join(document.text for document in stories).lower())
    sequences = Counter(zip(*(words[shift:] for shift in range(8)), strict=False))
    [(sequence, times)] = sequences.most_common(1)
    assert times <= 4, " ".join(sequence)
