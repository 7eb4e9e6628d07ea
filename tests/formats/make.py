"""Write the run folders of the current format: python tests/formats/make.py

One run per preset and tokenizer, with networks as small as they come, packed into tests/formats/<format>.tar.xz: the
checkpoint and the config that a run resumes from, the corpus, and what is expected of them, in expected.json. A file
that was released is never written again: it is how later versions are tested (`test_formats.py`).
"""

import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import torch

import hp_lightning as hp
from hp_lightning.schema.migrations import FORMAT

HERE = Path(__file__).resolve().parent
CASES = {
    **{f"{model}_word": (model, "word") for model in ("tiny", "small", "base", "gpt2", "roadmap")},
    "tiny_char": ("tiny", "char"),
    "tiny_bpe": ("tiny", "bpe"),
}
SIZES = ["d_model=8", "num_heads=2", "num_layers=1", "d_ff=16", "max_seq_len=16"]
SETTINGS = [
    *(f"model.{size}" for size in SIZES),
    "model.vocab_size=null",
    "tokenizer.vocab_size=300",
    "data.batch_size=4",
    "trainer.precision=32-true",
    "trainer.compile=false",
    "trainer.accelerator=cpu",
    "trainer.val_every_steps=10",
    "logger=csv",
    "logger.log_every_steps=1",
]
STEPS, FURTHER = 10, 20
TEXT = "The fox saw the lantern on the quay. It was not lit and nobody had seen the keeper since the fog came in."
CHAPTERS = 12


def main() -> None:
    """Train them, and pack what is needed."""
    target = HERE / f"{FORMAT}.tar.xz"
    if target.exists() and "--again" not in sys.argv:
        sys.exit(f"{target} is there: a released format stays as it is; --again writes one that was not released")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, tarfile.open(target, "w:xz") as archive:
        for name, (model, tokenizer) in CASES.items():
            case = Path(folder) / name
            case.mkdir()
            write_case(case, model, tokenizer)
            archive.add(case, name)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


def write_case(case: Path, model: str, tokenizer: str) -> None:
    """A run of some steps; its logits, and the losses of the steps that would follow."""
    words = TEXT.split()
    rows = [f"chapter {n},{' '.join(words[n:] + words[:n] + words[::-1])}\n" for n in range(CHAPTERS)]
    (case / "corpus.csv").write_text("chapter,text\n" + "".join(rows))
    settings = [f"model={model}", f"tokenizer={tokenizer}", *SETTINGS]
    run = hp.train(case / "corpus.csv", overrides=settings, max_steps=STEPS, run_dir=str(case / "run"))
    logits = run.last.net(torch.arange(12)[None])[0, -1].tolist()
    shutil.copytree(case / "run", case / "further")
    hp.train(resume=str(case / "further"), max_steps=STEPS + FURTHER)
    expected = {"logits": logits, "losses": losses(case / "further")[STEPS:]}
    (case / "expected.json").write_text(json.dumps(expected))
    shutil.rmtree(case / "further")
    for path in (case / "run").rglob("*"):
        kept = path.name == "last.ckpt" or path.parent.name == ".hydra" or path.name == "metrics.csv"
        if path.is_file() and not kept:
            path.unlink()


def losses(folder: Path) -> list[float]:
    """The training loss of every step."""
    return [row["train/loss"] for row in hp.Run(folder).metrics if row["train/loss"] is not None]


if __name__ == "__main__":
    main()
