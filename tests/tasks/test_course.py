"""The page of the sixteen steps: whole, self-contained, and true to the model."""

from collections import defaultdict
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers.errors import expect_refusal, refused
from helpers.in_process import run_in_process
from helpers.networks import save_untrained
from helpers.processes import PROJECT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from hp_lightning.data.dataset import tokenize_corpus
from hp_lightning.schema import course
from hp_lightning.schema.train import TrainConfig
from hp_lightning.tasks.course.page import write_page
from hp_lightning.tokenizers import Tokenizer, learn_tokenizer

TEXTS = [
    "The fog came in before breakfast, said Wren, and sat down on Corrow Quay.",
    "The <script>alert(1)</script> fox & Wren sat down.",
] * 3
PASSAGE = "Wren sat down, the <script>alert(1)</script> fox"
SIZES = ["d_model=16", "num_heads=1", "num_layers=1", "d_ff=24", "max_seq_len=24", "vocab_size=null"]
TINY = [*(f"model.{size}" for size in SIZES), "data.seq_len=24", "tokenizer.min_frequency=1"]


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loaded: list[str] = []  # what a browser fetches by itself
        self.links: list[str] = []
        self.sections: list[str] = []
        self.texts: dict[str, str] = defaultdict(str)  # of each section
        self.ids: dict[str, list[str]] = defaultdict(list)  # small print of each section's chips: ids of tokens
        self._tag = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {key: value or "" for key, value in attrs}
        self._tag = tag
        self.tags.add(tag)
        if tag == "section":
            self.sections.append(named["id"])
        if tag == "a":
            self.links.append(named["href"])
        else:
            self.loaded += [value for key, value in named.items() if key in ("src", "href", "xlink:href", "srcset")]

    def handle_data(self, data: str) -> None:
        section = self.sections[-1] if self.sections else "head"
        self.texts[section] += data
        if self._tag == "small" and data.strip():
            self.ids[section].append(data)


def look(**chosen: Any) -> None:
    """What the command does, in this process."""
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("course")
    for key, value in chosen.items():
        cfg[key] = OmegaConf.merge(cfg[key], value) if isinstance(value, dict) else value
    write_page(course.course_config(cfg))


def untrained(path: Path, make_config: Callable[..., TrainConfig], *overrides: str) -> Tokenizer:
    cfg = make_config(*overrides, *TINY, "data.path=gone.csv")
    tokenizer = learn_tokenizer(cfg.tokenizer, TEXTS).tokenizer
    save_untrained(path, cfg, tokenizer)
    return tokenizer


@pytest.mark.parametrize(
    "overrides",
    [
        ["tokenizer=word", "optim=muon", "model.norm=rms"],
        ["tokenizer=char", "model=roadmap", "regularization=none"],
        [
            "tokenizer=bpe",
            "model=gpt2",
            "model.tie_embeddings=false",
            "optim=adam",
            "regularization=light",
            "optim.schedule=cosine",
        ],
    ],
)
def test_a_checkpoint_alone_gives_the_whole_page(
    overrides: list[str], make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    tokenizer = untrained(tmp_path / "a.ckpt", make_config, *overrides)
    look(ckpt=str(tmp_path / "a.ckpt"), text=PASSAGE)
    page = Page(tmp_path / "a.course.html")
    assert page.sections == [f"step-{step}" for step in range(1, 17)]
    assert page.links[:16] == [f"#{section}" for section in page.sections]
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert all(link.startswith(("#", "data:")) for link in page.loaded)
    assert "<script>alert(1)</script>" in page.texts["step-1"].replace(" ", "")
    wanted = [str(token_id) for token_id in tokenizer.encode(PASSAGE).tolist()]
    assert page.ids["step-2"][-len(wanted) :] == wanted
    assert "gone.csv" in page.texts["head"]  # which is no more
    assert "The loss curves are missing" in page.texts["step-12"]
    assert "nan" not in page.texts["step-12"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.ckpt", "a.course.html"}


def test_without_corpus_and_text_the_model_writes_the_passage(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    untrained(tmp_path / "a.ckpt", make_config, "tokenizer=word")
    look(ckpt=str(tmp_path / "a.ckpt"), to=str(tmp_path / "one.html"), names=["Wren", "Gandalf"])
    look(ckpt=str(tmp_path / "a.ckpt"), to=str(tmp_path / "two.html"), names=["Wren", "Gandalf"])
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    page = Page(tmp_path / "one.html")
    assert "the model wrote this one itself" in " ".join(page.texts["step-1"].split())
    assert "is not in the vocabulary" in page.texts["step-3"]
    assert "none of the positive words is in the model's vocabulary" in page.texts["step-15"]


def test_a_run_shows_its_corpus_and_its_curves(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.csv"
    chapters = [f"Chapter {number}. {text} A good day, a bad night." for number, text in enumerate(TEXTS)]
    corpus.write_text(
        "text,chapter\n" + "".join(f'"{text}",<i>{n}</i>\n' for n, text in enumerate(chapters)), encoding="utf-8"
    )
    cfg = make_config(*TINY, "optim=adamw", f"data.path={corpus}", "data.val_fraction=0.3", "data.test_fraction=0")
    encoded = tokenize_corpus(cfg.data, cfg.tokenizer)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    save_untrained(run / "checkpoints" / "best.ckpt", cfg, encoded.tokenizer, encoded.digest)
    (run / "metrics.csv").write_text(
        "step,train/loss,lr,val/loss,val/perplexity\n5,,0.1,4.9,134.3\n10,5.0,0.1,4.5,90.0\n20,4.0,0.05,4.25,70.1\n30,3.5,0.05,4.75,115.6\n"
    )
    look(ckpt=str(run))
    page = Page(run / "course.html")
    begin = encoded.streams["val"][1:].tolist()
    wanted = [str(token_id) for token_id in begin[: begin.index(encoded.tokenizer.vocabulary.eos_id)]]
    assert page.ids["step-2"][-len(wanted) :] == wanted
    assert f"“{encoded.documents['val'][0].name}”" in page.texts["step-1"]  # markup in a name is text
    assert "i" not in page.tags
    assert f"{encoded.facts.splits['val'].words} kept back to validate" in page.texts["head"]
    assert "has not been trained on" in page.texts["step-1"]
    assert "had risen to 4.750" in page.texts["step-13"]
    assert "lowest at step 20: 4.250" in page.texts["step-13"]
    assert not any("nan" in text for text in page.texts.values()), "validated before there was a training loss"
    assert "was lowered 1 time afterwards" in " ".join(page.texts["step-13"].split())
    assert "good" in page.texts["step-15"]


def test_what_is_no_use_is_refused(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    untrained(tmp_path / "a.ckpt", make_config)
    ckpt = str(tmp_path / "a.ckpt")
    for chosen, code, mentioned in (
        ({"text": " "}, "config.empty", ['text=" " ']),
        ({"names": [""]}, "config.empty", ['names=[""] ']),
        ({"to": str(tmp_path)}, "output.is_folder", [f"to={tmp_path} "]),
        ({"course": {"d_model": -1}}, "config.out_of_range", ["course.d_model=-1 "]),
        (
            {"course": {"vocab_size": None, "num_heads": 3}},
            "config.null",
            ["course.vocab_size ", "course.num_heads=3 "],
        ),
        ({"to": str(tmp_path / "no" / "page.html")}, "output.no_folder", [f"to={tmp_path}/no/page.html "]),
    ):
        with refused(code, *mentioned):
            look(ckpt=ckpt, **chosen)


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_text("no")
    done = run_in_process(tmp_path, "course", "ckpt=a.ckpt")
    assert expect_refusal(done, "checkpoint.damaged", "a.ckpt ").startswith("hp-lightning course: ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
