"""What `data.path` can name, how it may be packed, written and damaged, and what is said where it cannot be read."""

import bz2
import gzip
import hashlib
import http.server
import io
import lzma
import os
import sys
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pytest
from helpers.errors import refused
from pyarrow import parquet

from hp_lightning.data import downloads
from hp_lightning.data.documents import Document, Reading, read_documents
from hp_lightning.data.downloads import cache_folder
from hp_lightning.data.sources import content_digest, find_sources
from hp_lightning.schema.data import DataConfig
from hp_lightning.schema.train import TrainConfig

MARK = "\u3000\u3000"
MakeConfig = Callable[..., TrainConfig]

CONTENT = f'text,book\n{MARK}One line,A\nruns on.,A\n"{MARK}Another, ""quoted"".",B\n'
DOCUMENTS = [Document("A", "One line runs on."), Document("B", 'Another, "quoted".')]


@pytest.fixture
def cfg(make_config: MakeConfig, tmp_path: Path) -> DataConfig:
    """The settings of somebody who names a file in `tmp_path`."""
    return make_config("data=csv", f"data.path='{tmp_path}/mine.csv'", f"data.cache_dir='{tmp_path}/cache'").data


@pytest.fixture
def read(cfg: DataConfig, tmp_path: Path) -> Callable[..., Reading]:
    """Writes a file and reads it."""

    def written_and_read(content: str | bytes, name: str = "mine.csv", **settings: Any) -> Reading:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_documents(replace(cfg, path=str(path), **settings))

    return written_and_read


def zipped(members: dict[str, str | bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def changed(content: bytes, place: int, bits: int) -> bytes:
    return content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]


def as_parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue()


# ---------------------------------------------------------------- places


def test_home_and_relative_paths(cfg: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.csv").write_text(CONTENT)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/mine.csv", "mine.csv", "./mine.csv", "m*.csv", "~/m*.csv", (tmp_path / "mine.csv").as_uri()):
        assert read_documents(replace(cfg, path=path)).documents == DOCUMENTS


def test_several_files_are_one_corpus(cfg: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("book;content\nA;x\nA;y\n")
    (tmp_path / "a.csv").write_text(CONTENT)
    (tmp_path / "c.txt").write_text("One.\n\nTwo.")
    paths = [str(tmp_path / name) for name in ("b.csv", "a.csv", "c.txt")]
    reading = read_documents(replace(cfg, path=paths))
    assert reading.documents == [
        Document("b / A", "x\ny"),
        Document("a / A", DOCUMENTS[0].text),
        Document("a / B", DOCUMENTS[1].text),
        Document("c", "One.\n\nTwo."),
    ]
    assert (reading.rows, reading.text_column, reading.group_columns) == (8, "content", ["book"])
    assert (reading.delimiter, reading.row_separator) == (";", "\n")


def test_globs_are_sorted_and_may_be_recursive(cfg: DataConfig, tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "deep/er/c.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text\n{name}\n")
    (tmp_path / "folder.csv").mkdir()

    def texts(pattern: str) -> list[str]:
        documents = read_documents(replace(cfg, path=str(tmp_path / pattern))).documents
        return [document.text for document in documents]

    assert texts("*.csv") == ["a.csv", "b.csv"]
    assert texts("**/*.csv") == ["a.csv", "b.csv", "deep/er/c.csv"]
    assert texts("[b].csv") == ["b.csv"]
    (tmp_path / "[b].csv").write_text("text\nthe file itself\n")
    assert texts("[b].csv") == ["the file itself"]


def test_a_file_named_twice_is_read_once(cfg: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CONTENT)
    paths = [str(tmp_path / "a.csv"), str(tmp_path / "*.csv")]
    assert read_documents(replace(cfg, path=paths)).documents == DOCUMENTS


@pytest.mark.parametrize("path", [[], [""], ["a.csv", 3], 3, " ", None, {"a": 1}, "a\0b"])
def test_refuses_what_is_no_path(cfg: DataConfig, path: Any) -> None:
    with refused("data.not_a_path", "data.path"):
        find_sources(replace(cfg, path=path))


def test_refuses_places_without_a_file(cfg: DataConfig, tmp_path: Path) -> None:
    places = {
        f"{tmp_path}/no*.csv": "data.no_match",
        f"{tmp_path}/no.csv": "data.not_found",
        "~nobody-of-this-name/mine.csv": "data.not_found",
        "x" * 5000: "data.not_readable",
        str(tmp_path): "data.is_folder",
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        places[f"{tmp_path}/pipe"] = "data.not_a_file"
    for path, code in places.items():
        with refused(code, f"data.path={path[:200]}"):
            find_sources(replace(cfg, path=path))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_refuses_a_file_that_may_not_be_read(cfg: DataConfig, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(CONTENT)
    path.chmod(0)
    with refused("data.no_permission", f"data.path={path}"):
        find_sources(cfg)


def test_content_digest_tells_content_and_names(cfg: DataConfig, tmp_path: Path) -> None:
    def digest(name: str, content: str) -> str:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
        return content_digest(find_sources(replace(cfg, path=str(tmp_path / name))))

    first = digest("a.csv", CONTENT)
    assert digest("elsewhere/a.csv", CONTENT) == first
    assert digest("b.csv", CONTENT) != first
    for ending in ("txt", "tsv", "csv.gz"):  # which tell how the bytes are read
        (tmp_path / f"a.{ending}").write_text(CONTENT)
        assert content_digest(find_sources(replace(cfg, path=str(tmp_path / f"a.{ending}")))) != first
    assert digest("a.csv", CONTENT + "x,A\n") != first


# ---------------------------------------------------------------- what a file may be


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("mine.csv", bytes),
        ("mine.CSV", bytes),
        ("mine", bytes),
        ("mine.dat", bytes),
        ("mine.csv.gz", gzip.compress),
        ("mine.CSV.GZ", gzip.compress),
        ("mine.gz", gzip.compress),
        ("mine.csv.bz2", bz2.compress),
        ("mine.csv.xz", lzma.compress),
        ("other.zip", lambda content: zipped({"mine.csv": content})),
    ],
)
def test_packed_files(read: Callable[..., Reading], name: str, pack: Callable[[bytes], bytes]) -> None:
    assert read(pack(CONTENT.encode()), name).documents == DOCUMENTS
    [document] = read(pack(b"text\nx\n"), name).documents
    assert document == Document("mine", "x")


def test_every_member_of_a_zip_that_can_be_read(read: Callable[..., Reading]) -> None:
    members: dict[str, str | bytes] = {
        "b.csv": "text\nthree\n",
        "a/": "",
        "a/z.TXT": "two",
        "a/a.tsv": "text\tbook\none\tA\n",
        "notes.doc": b"\0",
        "__MACOSX/b.csv": b"\0\0",
        "c.parquet": as_parquet({"text": ["four"]}),
    }
    assert [(document.name, document.text) for document in read(zipped(members), "mine.zip").documents] == [
        ("a / A", "one"),
        ("z", "two"),
        ("b", "three"),
        ("c", "four"),
    ]


def test_plain_text_is_a_document_as_it_stands(read: Callable[..., Reading]) -> None:
    text = '"Yes,  she said.\n\n\tNo, he\t\tsaid;\n'
    reading = read(text.replace("\n", "\r\n"), "mine.txt", collapse_spaces=False)
    assert reading == Reading([Document("mine", text)], 4, "", [], None, "\n")
    assert read(text, "mine.txt").documents[0].text == '"Yes, she said.\n\nNo, he said;\n'
    packed = read(lzma.compress(text.encode()), "mine.txt.xz", text_column="any", group_columns=["any"])
    assert packed.documents[0].text == '"Yes, she said.\n\nNo, he said;\n'


def test_printed_lines_of_plain_text_flow_together(read: Callable[..., Reading]) -> None:
    reading = read(f"{MARK}One line\nruns on.\n{MARK}Two.\n\nThree\n", "mine.txt")
    assert reading.documents == [Document("mine", "One line runs on.\nTwo.\nThree")]
    assert reading.row_separator == " "


def test_plain_text_and_csv_of_the_same_lines_are_the_same(make_config: MakeConfig, shared_data: Path) -> None:
    path = shared_data / "tinyshakespeare.csv"
    cfg = make_config("data=csv", f"data.path='{path}'").data
    assert read_documents(cfg).documents == read_documents(replace(cfg, path=str(path.with_suffix(".txt")))).documents


def test_parquet(read: Callable[..., Reading]) -> None:
    columns = {
        "n": list(range(3000)),
        "book": pyarrow.array(["A", "B", None] * 1000).dictionary_encode(),
        "text": pyarrow.array([f"row {n}" for n in range(2999)] + [None], pyarrow.large_string()),
    }
    for name, pack in (("mine.parquet", bytes), ("mine.parquet.gz", gzip.compress)):
        reading = read(pack(as_parquet(columns)), name)
        assert [document.name for document in reading.documents] == ["A", "B", "mine"]
        assert reading.documents[1].text.startswith("row 1\nrow 4\n")
        assert (reading.rows, reading.delimiter, reading.group_columns) == (3000, None, ["book"])


def test_parquet_needs_pyarrow(read: Callable[..., Reading], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with refused("install.missing_extra", "pip install 'hp_lightning[parquet]'"):
        read(b"PAR1", "mine.parquet")


# ---------------------------------------------------------------- how a CSV may be written


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quoted", [True, False])
def test_delimiters_are_found(read: Callable[..., Reading], delimiter: str, quoted: bool) -> None:
    rows = [("book", "text"), *((f"Book {n % 2}", f"No, yes; or | what {n}?") for n in range(9))]
    if quoted:
        content = "".join(delimiter.join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    else:
        content = "".join(delimiter.join(row) + "\n" for row in rows).replace(", ", " ").replace("; ", " ")
        content = content.replace(" | ", " ")
    reading = read(content)
    assert reading.delimiter == delimiter
    assert [document.name for document in reading.documents] == ["Book 0", "Book 1"]


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("text\nOne, two\nthree; four\n", "\t"),  # one column whatever its text holds
        ('text\n"One, two"\n"three; four"\n', ","),
        ('text\n"One; two"\n"three; four"\n', ","),
        ("text\nOne; two\nthree; four\n", ","),
        ("id,x;text\n1,2;a\n", ";"),  # a known name decides
        ("id,x;said\n1,2;a\n", ","),  # else the comma
        ('text|book\n"a\n' + "line\n" * 30_000 + '"|b\n', "|"),  # longer than the sample
    ],
)
def test_delimiter_of(read: Callable[..., Reading], content: str, delimiter: str) -> None:
    assert read(content, text_column=None if "text" in content else "1").delimiter == delimiter


@pytest.mark.parametrize(("typed", "meant"), [("\\t", "\t"), ("tab", "\t"), ("TAB", "\t"), ("\t", "\t"), ("~", "~")])
def test_delimiter_as_one_types_it(read: Callable[..., Reading], typed: str, meant: str) -> None:
    reading = read(f"a,b{meant}text\n1,2{meant}x\n", delimiter=typed)
    assert (reading.delimiter, reading.documents) == (meant, [Document("mine", "x")])


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n'])
def test_a_line_for_spreadsheets_tells_the_delimiter(read: Callable[..., Reading], first: str) -> None:
    reading = read(first + "text;book\nOne, two;A\n")
    assert (reading.delimiter, reading.rows, reading.documents) == (";", 1, [Document("A", "One, two")])


@pytest.mark.parametrize("typed", ["", ",,", '"', "\n", "comma", "\\n"])
def test_refuses_a_delimiter(read: Callable[..., Reading], typed: str) -> None:
    with refused("data.invalid_delimiter", "data.delimiter="):
        read(CONTENT, delimiter=typed)


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", "utf-8-sig"),
        ("UTF8", "utf-8"),
        ("cp1252", "cp1252"),
        ("latin-1", "latin-1"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("cp850", "cp850"),
    ],
)
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_encodings_and_line_breaks(read: Callable[..., Reading], encoding: str, written: str, line_break: str) -> None:
    content = 'text,book\n"Un café,\nnoir",Été\nÀ lui.,Été\n'.replace("\n", line_break)
    reading = read(content.encode(written), encoding=encoding)
    assert reading.documents == [Document("Été", "Un café,\nnoir\nÀ lui.")]
    assert reading.rows == 2


@pytest.mark.parametrize("encoding", ["utf-9", "hex", "rot13", "", "a\0b"])
def test_refuses_an_encoding(read: Callable[..., Reading], encoding: str) -> None:
    with refused("data.unknown_encoding", "data.encoding="):
        read(CONTENT, encoding=encoding)


def test_spaces_collapse_or_stay(read: Callable[..., Reading]) -> None:
    content = "text\n a \t b\xa0c\u2003\n\u3000d \n"
    assert read(content).documents[0].text == "a b c\nd"
    assert read(content, collapse_spaces=False).documents[0].text == " a \t b\xa0c\u2003\n\u3000d "


def test_a_column_that_is_the_text_tells_no_documents_apart(read: Callable[..., Reading]) -> None:
    assert read("title,note\nx,1\ny,2\n", text_column="title").documents == [Document("mine", "x\ny")]


# ---------------------------------------------------------------- what is refused

REFUSED: dict[str, tuple[str, str | bytes, dict[str, Any], str, list[str]]] = {
    "empty": ("mine.csv", "", {}, "data.no_rows", []),
    "empty text": ("mine.txt", "", {}, "data.no_rows", []),
    "empty lines": ("mine.csv", "\n\n", {}, "data.no_rows", []),
    "web page": ("mine.csv", "\ufeff <!DOCTYPE html>\n<p>Log in</p>\n", {}, "data.web_page", []),
    "web page as text": ("mine.txt", "<HTML>\n<p>Log in</p>\n", {}, "data.web_page", []),
    "UTF-16 with other letters": (
        "mine.csv",
        "text\né,ő\n".encode("utf-16-le"),
        {},
        "data.wrong_encoding",
        ["data.encoding=utf-16-le"],
    ),
    "wrong row below a line for spreadsheets": (
        "mine.csv",
        "sep=;\ntext;book\nx;A\ny\n",
        {},
        "data.ragged_row",
        ["line 4: 1 "],
    ),
    "header only": ("mine.csv", "text,book\n", {}, "data.no_rows", []),
    "blank text": ("mine.txt", "\n \n", {}, "data.blank", []),
    "blank rows": ("mine.csv", 'text\n""\n  \n', {}, "data.blank", ["'text'"]),
    "no such column": (
        "mine.csv",
        CONTENT,
        {"text_column": "no"},
        "data.no_such_column",
        ["data.text_column=no:", "text, book"],
    ),
    "no such group": (
        "mine.csv",
        CONTENT,
        {"group_columns": ["no"]},
        "data.no_such_column",
        ["data.group_columns=no:", "text, book"],
    ),
    "column twice": (
        "mine.csv",
        "text,text\nx,y\n",
        {},
        "data.ambiguous_column",
        ["2 columns", " text:", "data.text_column"],
    ),
    "group twice": (
        "mine.csv",
        "text,book,Book\nx,y,z\n",
        {},
        "data.ambiguous_column",
        ["2 columns", " book:", "data.group_columns"],
    ),
    "asked column twice": (
        "mine.csv",
        "a,a\nx,y\n",
        {"text_column": "a"},
        "data.ambiguous_column",
        ["2 columns", " a:"],
    ),
    "names of several lines": ("mine.csv", '"a\nb",c\nx,y\n', {}, "data.ambiguous_text_column", ["a b, c"]),
    "cells missing": ("mine.csv", "text,book,note\nx,A,1\n\ny,A\n", {}, "data.ragged_row", ["line 4: 2 ", "3 columns"]),
    "cells too many": (
        "mine.csv",
        'text,book\n"x\ny",A\nHello, world,A\n',
        {},
        "data.ragged_row",
        ["line 4: 3 ", "2 columns"],
    ),
    "a broken row under semicolons": ("mine.csv", "text;book\na;b\nc\n", {}, "data.ragged_row", ["line 3: 1 "]),
    "unclosed quote": ("mine.csv", 'text,book\nx,A\n"y,A\nz,A\n', {}, "data.invalid_csv", ["line 3:"]),
    "quote inside": ("mine.csv", 'text,book\n"a\nb" c,A\n', {}, "data.invalid_csv", ["line 2:"]),
    "unclosed quote after a carriage return": (
        "mine.csv",
        'text,book\rx,A\r"y,A\rz,A\r',
        {},
        "data.invalid_csv",
        ["line 3:"],
    ),
    "NUL": ("mine.csv", "text\nx\ny\0\n", {}, "data.nul_byte", ["line 3:"]),
    "NUL in text": ("mine.txt", "x\ny\0\n", {}, "data.nul_byte", ["line 2:"]),
    "UTF-16 without a mark": (
        "mine.csv",
        "text\nx\n".encode("utf-16-le"),
        {},
        "data.wrong_encoding",
        ["line 1:", "data.encoding=utf-16-le"],
    ),
    "big-endian": (
        "mine.csv",
        "text\nx\n".encode("utf-16-be"),
        {},
        "data.wrong_encoding",
        ["line 1:", "data.encoding=utf-16-be"],
    ),
    "UTF-16": (
        "mine.csv",
        "text\nThe fog\n".encode("utf-16"),
        {},
        "data.wrong_encoding",
        ["line 1:", "data.encoding=utf-16"],
    ),
    "odd UTF-16": (
        "mine.csv",
        "text\nx\n".encode("utf-16") + b"x",
        {"encoding": "utf-16"},
        "data.wrong_encoding",
        ["not utf-16"],
    ),
    "no UTF-16": ("mine.csv", "text\nxy\n", {"encoding": "utf-16"}, "data.wrong_encoding", ["utf-16"]),
    "cp1252": (
        "mine.csv",
        ("text\n" + "x\n" * 9_000 + "Un café “noir”, voilà qu’elle préfère été\n" * 3).encode("cp1252"),
        {},
        "data.wrong_encoding",
        ["line 9002:", "not UTF-8", "data.encoding=cp1252"],
    ),
    "carriage returns and cp1252": (
        "mine.csv",
        "text\rx\ry\rcafé\r".encode("cp1252"),
        {},
        "data.wrong_encoding",
        ["line 4:", "data.encoding=cp1252"],
    ),
    "cp1252 packed": (
        "mine.csv.gz",
        gzip.compress("text\ncafé\n".encode("cp1252")),
        {},
        "data.wrong_encoding",
        ["line 2:", "data.encoding=cp1252"],
    ),
    "cp1252 in a zip": (
        "mine.zip",
        zipped({"a.txt": b"x\ncaf\xe9\n"}),
        {},
        "data.wrong_encoding",
        ["mine.zip, a.txt, line 2:"],
    ),
    "no ASCII": ("mine.csv", "text\ncafé\n", {"encoding": "ascii"}, "data.wrong_encoding", ["line 2:", "not ascii"]),
    "gz": ("mine.csv.gz", gzip.compress(CONTENT.encode())[:-9], {}, "data.damaged", []),
    "gz with a wrong sum": ("mine.csv.gz", gzip.compress(CONTENT.encode())[:-8] + b"01234567", {}, "data.damaged", []),
    "no gz": ("mine.csv.gz", CONTENT, {}, "data.damaged", []),
    "xz": ("mine.csv.xz", lzma.compress(CONTENT.encode())[:-9], {}, "data.damaged", []),
    "no xz": ("mine.csv.xz", CONTENT, {}, "data.damaged", []),
    "bz2": ("mine.csv.bz2", bz2.compress(CONTENT.encode())[:-9], {}, "data.damaged", []),
    "no bz2": ("mine.csv.bz2", CONTENT, {}, "data.damaged", []),
    "zip": ("mine.zip", zipped({"a.csv": CONTENT})[:-9], {}, "data.damaged", []),
    "no zip": ("mine.zip", CONTENT, {}, "data.damaged", []),
    "zip with a wrong sum": (
        "mine.zip",
        changed(zipped({"a.csv": CONTENT}), 45, 0xFF),
        {},
        "data.damaged",
        ["mine.zip, a.csv"],
    ),
    "zip of something else": ("mine.zip", zipped({"a.doc": CONTENT}), {}, "data.empty_archive", [".csv"]),
    "zip with a password": (
        "mine.zip",
        changed(zipped({"a.csv": CONTENT}), zipped({"a.csv": CONTENT}).index(b"PK\x01\x02") + 8, 1),
        {},
        "data.encrypted",
        ["a.csv"],
    ),
    "parquet": ("mine.parquet", as_parquet({"text": ["x"]})[:-9], {}, "data.damaged", []),
    "no parquet": ("mine.parquet", CONTENT, {}, "data.damaged", []),
    "parquet without text": ("mine.parquet", as_parquet({"n": [1]}), {}, "data.no_text_column", []),
    "NUL in parquet": ("mine.parquet", as_parquet({"text": ["x", "y\0z"]}), {}, "data.nul_byte", ["row 2:"]),
    "parquet without rows": ("mine.parquet", as_parquet({"text": pyarrow.array([], "string")}), {}, "data.no_rows", []),
}


@pytest.mark.parametrize(("name", "content", "settings", "code", "mentioned"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(
    read: Callable[..., Reading],
    tmp_path: Path,
    name: str,
    content: str | bytes,
    settings: dict[str, Any],
    code: str,
    mentioned: list[str],
) -> None:
    with refused(code, f"data.path={tmp_path / name}", *mentioned):
        read(content, name, **settings)


def test_names_the_file_of_several(cfg: DataConfig, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CONTENT)
    (tmp_path / "b.csv").write_text("text,book\nx\n")
    with refused("data.ragged_row", f"data.path={tmp_path}/b.csv, line 2: 1 "):
        read_documents(replace(cfg, path=str(tmp_path / "?.csv")))


# ---------------------------------------------------------------- remote files


class Web(http.server.ThreadingHTTPServer):
    """Serves what a test puts into `files`, and counts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), WebHandler)
        self.files: dict[str, bytes] = {"/mine.csv": CONTENT.encode()}
        self.requests: Counter[str] = Counter()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class WebHandler(http.server.BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.requests[path] += 1
        if path not in self.server.files:
            self.send_error(500 if path == "/error.csv" else 404)
            return
        content = self.server.files[path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if path == "/broken.csv":
            self.wfile.write(content[:-10])
        elif path == "/stuck.csv":
            self.wfile.write(content[:-10])
            self.wfile.flush()
            self.server.released.wait(30)
        elif path == "/slow.csv":
            for begin in range(0, len(content), 10):
                self.wfile.write(content[begin : begin + 10])
                self.wfile.flush()
                time.sleep(0.1)
        else:
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Web() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def cached(cfg: DataConfig) -> list[str]:
    folder = cache_folder(cfg) / "downloads"
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_downloads_once(cfg: DataConfig, web: Web, caplog: pytest.LogCaptureFixture) -> None:
    web.files["/my%20books.csv.gz"] = gzip.compress(b"text\nx\n")
    asked = replace(cfg, path=f"{web.url}/mine.csv?version=2#top")
    other = replace(cfg, path=f"{web.url}/my%20books.csv.gz")
    caplog.set_level("INFO", "hp_lightning")
    for _ in range(3):
        assert read_documents(asked).documents == DOCUMENTS
        assert read_documents(other).documents == [Document("my books", "x")]
    assert set(web.requests.values()) == {1}
    assert len(cached(cfg)) == 2
    assert cached(cfg)[0].endswith((".csv", ".csv.gz"))
    assert [record.getMessage() for record in caplog.records] == [
        f"downloading {web.url}/mine.csv?version=2#top",
        f"downloading {web.url}/my%20books.csv.gz",
    ]


def test_two_at_once(cfg: DataConfig, web: Web) -> None:
    web.files["/large.csv"] = b"text\n" + b"a line\n" * 300_000
    asked = replace(cfg, path=f"{web.url}/large.csv")
    sizes: list[int] = []
    threads = [
        threading.Thread(target=lambda: sizes.append(find_sources(asked)[0].path.stat().st_size)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [len(web.files["/large.csv"])] * 4
    assert len(cached(cfg)) == 1


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("no.csv", "data.not_found", ""),
        ("error.csv", "data.not_downloaded", "(500"),
        ("broken.csv", "data.not_downloaded", ""),
        ("stuck.csv", "data.timeout", ""),
    ],
)
def test_a_failed_download_leaves_nothing(
    cfg: DataConfig, web: Web, monkeypatch: pytest.MonkeyPatch, name: str, code: str, said: str
) -> None:
    monkeypatch.setattr(downloads, "SECONDS_WITHOUT_DATA", 0.3)
    for broken in ("broken.csv", "stuck.csv"):
        web.files[f"/{broken}"] = CONTENT.encode() * 100
    with refused(code, f"data.path={web.url}/{name} ", said):
        find_sources(replace(cfg, path=f"{web.url}/{name}"))
    assert cached(cfg) == []


def test_refuses_a_server_that_is_not_there(cfg: DataConfig, web: Web) -> None:
    url = web.url
    web.server_close()
    with refused("data.not_downloaded", f"data.path={url}/mine.csv "):
        find_sources(replace(cfg, path=f"{url}/mine.csv"))
    assert cached(cfg) == []


def test_a_slow_download_is_no_failure(cfg: DataConfig, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "SECONDS_WITHOUT_DATA", 0.5)
    web.files["/slow.csv"] = CONTENT.encode()
    begun = time.monotonic()
    assert read_documents(replace(cfg, path=f"{web.url}/slow.csv")).documents == DOCUMENTS
    assert time.monotonic() - begun > 0.5


def test_other_file_systems(cfg: DataConfig) -> None:
    fsspec.filesystem("memory").pipe("/shelf/mine.csv", CONTENT.encode())
    assert read_documents(replace(cfg, path="memory://shelf/mine.csv")).documents == DOCUMENTS
    with refused("data.not_found", "data.path=memory://shelf/no.csv "):
        find_sources(replace(cfg, path="memory://shelf/no.csv"))


@pytest.mark.parametrize(("url", "said"), [("s3://bucket/mine.csv", "s3fs"), ("nothing://mine.csv", "nothing")])
def test_says_which_package_a_file_system_needs(
    cfg: DataConfig, monkeypatch: pytest.MonkeyPatch, url: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with refused("data.missing_package" if said == "s3fs" else "data.not_downloaded") as refusal:
        find_sources(replace(cfg, path=url))
    assert said in str(refusal.value).removeprefix(f"data.path={url}")
    assert cached(cfg) == []


def test_refuses_a_cache_that_cannot_be_written(cfg: DataConfig, web: Web, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    asked = replace(cfg, path=f"{web.url}/mine.csv", cache_dir=str(tmp_path / "taken"))
    with refused("data.cache_not_writable", tmp_path / "taken", "data.cache_dir"):
        find_sources(asked)


def test_the_cache_is_the_users_own_where_none_is_told(cfg: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder(replace(cfg, cache_dir=None)).name.startswith("hp_lightning")
    assert cache_folder(replace(cfg, cache_dir="~/kept")) == Path.home() / "kept"


# ---------------------------------------------------------------- data.sha256

SHA256 = hashlib.sha256(CONTENT.encode()).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def test_sha256_of_a_local_file(read: Callable[..., Reading]) -> None:
    assert read(CONTENT, sha256=SHA256.upper()).documents == DOCUMENTS
    with refused("data.checksum_mismatch", f"expected {OTHER}, found {SHA256}"):
        read(CONTENT, sha256=OTHER)


@pytest.mark.parametrize("typed", ["", "abc", SHA256 + "0", "g" * 64])
def test_refuses_what_is_no_sha256(read: Callable[..., Reading], typed: str) -> None:
    with refused("data.invalid_checksum", f"data.sha256={typed} "):
        read(CONTENT, sha256=typed)


def test_sha256_is_of_one_file(cfg: DataConfig, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(CONTENT)
    asked = replace(cfg, path=str(tmp_path / "*.csv"), sha256=SHA256)
    with refused("config.conflict", "data.sha256", "data.path names 2"):
        find_sources(asked)


def test_sha256_of_a_remote_file(cfg: DataConfig, web: Web) -> None:
    asked = replace(cfg, path=f"{web.url}/mine.csv", sha256=SHA256)
    assert read_documents(asked).documents == DOCUMENTS
    assert read_documents(asked).documents == DOCUMENTS
    assert web.requests["/mine.csv"] == 1
    [name] = cached(cfg)
    (cache_folder(cfg) / "downloads" / name).write_text("damaged since")
    assert read_documents(asked).documents == DOCUMENTS
    assert web.requests["/mine.csv"] == 2
    web.files["/mine.csv"] = b"text\nother\n"
    found = hashlib.sha256(web.files["/mine.csv"]).hexdigest()
    with refused("data.checksum_mismatch", f"expected {found[::-1]}, found {found}"):
        find_sources(replace(asked, sha256=found[::-1]))
    web.files.clear()  # the copy from before is still there
    assert cached(cfg) == [name]
    assert read_documents(asked).documents == DOCUMENTS


def test_a_refused_download_says_where_its_copy_lies(cfg: DataConfig, web: Web) -> None:
    web.files["/mine.csv"] = b'text,book\n"x,A\n'
    asked = replace(cfg, path=f"{web.url}/mine.csv")
    with refused("data.invalid_csv", f"data.path={web.url}/mine.csv, line 2:") as refusal:
        read_documents(asked)
    [name] = cached(cfg)
    assert str(cache_folder(cfg) / "downloads" / name) in str(refusal.value)
