"""The page of the sixteen steps: whole, self-contained, and true to the model."""

import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import save_untrained, script_environment

from hp_lightning.config import TrainConfig
from hp_lightning.tokenization import learn_tokenizer

TEXTS = ["The fog came in before breakfast, said Wren, and sat down on Corrow Quay.", "The <b>fox</b> & Wren sat down."]
SIZES = ["d_model=16", "num_heads=1", "num_layers=1", "d_ff=24", "max_seq_len=24"]
SETTINGS = [*(f"model.{size}" for size in SIZES), "data.seq_len=24", "tokenizer.min_frequency=1"]


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.loaded: list[str] = []  # what a browser fetches by itself
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags.add(tag)
        self.ids.add(named.get("id") or "")
        self.loaded += [str(value) for key, value in attrs if key == "src" or (key == "href" and tag == "link")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def look_inside(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hp_lightning.roadmap", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=script_environment(), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["tokenizer=word"],
        ["tokenizer=char", "model=roadmap"],
        ["tokenizer=bpe", "model=gpt2", "model.tie_embeddings=false"],
    ],
)
def test_a_checkpoint_alone_gives_the_whole_page(
    overrides: list[str], make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    cfg = make_config(*overrides, *SETTINGS, "model.vocab_size=null", "data.path=gone.csv")
    tokenizer = learn_tokenizer(cfg.tokenizer, TEXTS * 3).tokenizer
    save_untrained(tmp_path / "a.ckpt", cfg, tokenizer)
    passage = "Wren sat down, the <script>alert(1)</script> fox"
    done = look_inside(tmp_path, "ckpt=a.ckpt", f"text={passage}", "to=page.html")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    written = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(written)
    assert {f"step-{step}" for step in range(1, 17)} <= page.ids
    assert "script" not in page.tags
    assert not [link for link in page.loaded if not link.startswith("data:")]
    ids = [str(token_id) for token_id in tokenizer.encode("Wren sat").tolist()]
    assert set(ids) <= set(page.texts)
    assert {path.name for path in tmp_path.iterdir()} == {"a.ckpt", "page.html"}

    if cfg.tokenizer.kind != "char":
        return
    again = look_inside(tmp_path, "ckpt=a.ckpt", f"text={passage}", "to=again.html")
    assert again.returncode == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == written


def test_what_is_no_checkpoint_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_text("no")
    done = look_inside(tmp_path, "ckpt=a.ckpt")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "a.ckpt" in line
