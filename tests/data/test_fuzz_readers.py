"""Whatever a file holds, reading it ends in documents or in one line of refusal, and text is in one form.

HYPOTHESIS_EXAMPLES=10000 python -m pytest tests/data/test_fuzz_readers.py --hypothesis-show-statistics tries harder.
"""

import bz2
import csv
import gzip
import io
import lzma
import os
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from hp_lightning.common.errors import InputError
from hp_lightning.data import normalize
from hp_lightning.data.documents import read_documents
from hp_lightning.data.normalize import LINE_BREAKS, PARAGRAPH_MARK, ROW_END, SPACES, normalized
from hp_lightning.schema.data import DataConfig
from hp_lightning.schema.train import TrainConfig

MakeConfig = Callable[..., TrainConfig]

fuzz = settings(
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "300")),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),  # the fixtures hold nothing that an example changes
)


@pytest.fixture(scope="module")
def cfg(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("fuzz")
    return make_config("data=csv", f"data.path='{folder}/mine'", f"data.cache_dir='{folder}/cache'").data


def ends_well(cfg: DataConfig, ending: str, content: bytes, **changes: Any) -> None:
    """Reads the bytes; anything but documents or an `InputError` of one line is an error."""
    path = Path(cfg.path + ending)
    path.write_bytes(content)
    try:
        reading = read_documents(replace(cfg, path=str(path), **changes))
    except InputError as refusal:
        assert len(str(refusal).splitlines()) == 1
        event("refused")
        return
    assert reading.documents
    assert reading.rows
    for document in reading.documents:
        assert document.text.strip()
        assert document.text.encode()
        assert "\0" not in document.text
    event("read")


CSV_PIECES = st.sampled_from(
    ("text|book|chapter|a|1|The fog came.|é|e\u0301|漢|😀|\x1b[31m|\ufeff|\0|" + PARAGRAPH_MARK).split("|")
    + list('",;\t|\n\r \xa0\u3000\u2028\x85\x0b\x1c')
    + ['""', "\r\n"]
)
CSV_TEXT = st.lists(CSV_PIECES | st.text(max_size=5), max_size=40).map("".join)
HEADED = st.tuples(st.sampled_from(["", "text\n", "text,book\n", "text;book\r\n", '"text"\t"book"\n']), CSV_TEXT).map(
    "".join
)
# What a config may say; most files are read as they are found.
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "encoding": st.sampled_from(
            ["utf-8", "utf-16", "utf-16-le", "cp1252", "shift_jis", "ascii", "utf-7", "hex", "x"]
        ),
        "delimiter": st.sampled_from([",", ";", "tab", "\\t", '"', "\n", "ab", " "]),
        "text_column": st.sampled_from(["text", "0", "1", "no"]),
        "group_columns": st.lists(st.sampled_from(["book", "text", "0", "1"]), max_size=2),
        "row_separator": st.sampled_from([" ", "", "\\n", "\n\n"]),
        "header": st.booleans(),
        "collapse_spaces": st.booleans(),
    },
)
REAL = "text,book\r\n" + "".join(
    f'"\u3000\u3000The fog, it came {n} times\r\nand sat.",Book {n % 3}\r\n' for n in range(40)
)


def packed(kind: str, content: bytes) -> bytes:
    if kind == ".parquet":
        rows = list(csv.reader(io.StringIO(REAL)))
        table = pyarrow.table({"text": [row[0] for row in rows], "book": [row[1] for row in rows]})
        sink = io.BytesIO()
        parquet.write_table(table, sink)
        return sink.getvalue()
    if kind == ".zip":
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("a.csv", "b/c.txt"):
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return sink.getvalue()
    compress: dict[str, Callable[[bytes], bytes]] = {
        ".gz": lambda plain: gzip.compress(plain, mtime=0),
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
    }
    return compress[kind](content)


PACKED = {kind: packed(kind, REAL.encode()) for kind in (".gz", ".bz2", ".xz", ".zip", ".parquet")}


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with some changed, some cut out, some put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(found) - 1, 0)))
        match draw(st.sampled_from(["flip", "set", "cut", "drop", "insert"])):
            case "flip" if found:
                found[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if found:
                found[place] = draw(st.sampled_from(b'\0\n\r",;\xff\xfe\x80\x01'))
            case "cut":
                del found[place:]
            case "drop":
                del found[place : place + draw(st.integers(1, 20))]
            case "insert":
                found[place:place] = draw(st.binary(max_size=6))
    return bytes(found)


@fuzz
@given(
    ending=st.sampled_from(["", ".csv", ".tsv", ".txt", ".gz", ".zip", ".bz2", ".xz", ".parquet"]), content=st.binary()
)
def test_any_bytes(cfg: DataConfig, ending: str, content: bytes) -> None:
    ends_well(cfg, ending, content)


@fuzz
@given(
    ending=st.sampled_from([".csv", ".txt"]),
    content=HEADED,
    changes=SETTINGS,
    written=st.sampled_from(["utf-8", "utf-16"]),
)
def test_any_csv(cfg: DataConfig, ending: str, content: str, changes: dict[str, Any], written: str) -> None:
    ends_well(cfg, ending, content.encode(written, "replace"), **changes)


@fuzz
@given(content=damaged(REAL.encode()))
def test_a_damaged_csv(cfg: DataConfig, content: bytes) -> None:
    ends_well(cfg, ".csv", content)


@fuzz
@given(data=st.data(), kind=st.sampled_from(sorted(PACKED)))
def test_a_damaged_archive(cfg: DataConfig, data: st.DataObject, kind: str) -> None:
    ends_well(cfg, kind, data.draw(damaged(PACKED[kind])))


@fuzz
@given(kind=st.sampled_from([".gz", ".bz2", ".xz", ".zip"]), content=HEADED)
def test_any_csv_packed(cfg: DataConfig, kind: str, content: str) -> None:
    ends_well(cfg, kind, packed(kind, content.encode("utf-8", "replace")))


ROWS = st.lists(
    st.sampled_from([ROW_END, *LINE_BREAKS, *SPACES, PARAGRAPH_MARK, " ", "  ", "\n"]) | st.text(max_size=3)
).map("".join)
SEPARATORS = st.sampled_from([" ", "\n", "\n\n", "", "\t", "-"])


@fuzz
@given(rows=ROWS, separator=SEPARATORS)
def test_collapsed_text_has_two_kinds_of_white_space(rows: str, separator: str) -> None:
    text = normalized(rows.encode(), separator, collapse_spaces=True)
    assert {character for character in text if character.isspace()} <= {" ", "\n"}
    assert not any(doubled in text for doubled in ("  ", " \n", "\n "))
    assert text == text.strip(" ")
    assert unicodedata.is_normalized("NFC", text)


@fuzz
@given(rows=ROWS, separator=SEPARATORS, collapse_spaces=st.booleans())
@example(rows="\u3000\0\u3000", separator="", collapse_spaces=False)
def test_normalized_text_stays_as_it_is(rows: str, separator: str, collapse_spaces: bool) -> None:
    text = normalized(rows.encode(), separator, collapse_spaces)
    assert normalized(text.encode(), separator, collapse_spaces) == text


@fuzz
@given(rows=ROWS.filter(lambda rows: PARAGRAPH_MARK not in rows and ROW_END not in rows))
def test_spaces_stay_where_they_are_not_collapsed(rows: str) -> None:
    text = normalized(rows.encode(), "\n", collapse_spaces=False)
    kept = [character for character in unicodedata.normalize("NFC", rows) if character in SPACES + " "]
    assert [character for character in text if character in SPACES + " "] == kept


@fuzz
@given(rows=ROWS, separator=SEPARATORS, collapse_spaces=st.booleans(), block=st.integers(0, 9))
def test_long_texts_are_normalized_block_by_block(rows: str, separator: str, collapse_spaces: bool, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalize, "BLOCK_BYTES", block)
        in_blocks = normalized(rows.encode(), separator, collapse_spaces)
    assert in_blocks == normalized(rows.encode(), separator, collapse_spaces)
