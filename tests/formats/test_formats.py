"""Run folders that earlier versions wrote: they load, and resume as they would have then."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.errors import refused

import hp_lightning as hp
from hp_lightning import checkpoint
from hp_lightning.api import Run
from hp_lightning.schema import migrations, train

HERE = Path(__file__).resolve().parent
FORMATS = sorted(HERE.glob("*.tar.xz"))
STEPS = 20  # that follow


def cases() -> list[Any]:
    members = []
    for archive in FORMATS:
        with tarfile.open(archive) as packed:
            members += [(archive, member.name) for member in packed if member.isdir() and "/" not in member.name]
    return [pytest.param(archive, name, id=f"{archive.name.partition('.')[0]}-{name}") for archive, name in members]


@pytest.mark.parametrize(("archive", "name"), cases())
def test_a_run_of_an_earlier_version_resumes_as_it_would_have(archive: Path, name: str, tmp_path: Path) -> None:
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, [member for member in packed if member.name.startswith(name)], filter="data")
    case = tmp_path / name
    expected = json.loads((case / "expected.json").read_text())
    model = hp.load(case / "run" / "checkpoints" / "last.ckpt")
    # Another processor adds up in another order.
    assert model.net(torch.arange(12)[None])[0, -1].tolist() == pytest.approx(expected["logits"], rel=1e-4, abs=1e-5)

    run = hp.train(case / "corpus.csv", resume=str(case / "run"), max_steps=model.step + STEPS)
    losses = [row["train/loss"] for row in run.metrics if row["train/loss"] is not None]
    assert losses[model.step :] == pytest.approx(expected["losses"], rel=1e-4)


def test_every_preset_and_tokenizer_has_a_file_of_the_current_format() -> None:
    with tarfile.open(HERE / f"{migrations.FORMAT}.tar.xz") as packed:
        names = {member.name.partition("/")[0] for member in packed}
    presets = {path.stem for path in (HERE.parents[1] / "conf" / "model").glob("*.yaml")}
    tokenizers = {path.stem for path in (HERE.parents[1] / "conf" / "tokenizer").glob("*.yaml")}
    assert names == {f"{preset}_word" for preset in presets} | {f"tiny_{tokenizer}" for tokenizer in tokenizers}
    assert sum(path.stat().st_size for path in FORMATS) < 300_000


def test_a_step_between_formats_is_taken_once_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a later version, in which a key has another name and a checkpoint one more entry."""
    with tarfile.open(FORMATS[-1]) as packed:
        packed.extractall(tmp_path, filter="data")
    folder = tmp_path / "tiny_word" / "run"
    later = migrations.FORMAT + 2
    for module in (migrations, checkpoint):
        monkeypatch.setattr(module, "FORMAT", later)

    def renamed(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "seed": config["seed"] + 41}

    def with_note(contents: dict[str, Any]) -> dict[str, Any]:
        return {**contents, "note": "new"}

    config_steps, contents_steps = {later - 2: renamed}, {later - 1: with_note}
    for module in (checkpoint, train):
        monkeypatch.setattr(module, "CONFIG_MIGRATIONS", config_steps)
    monkeypatch.setattr(checkpoint, "CONTENTS_MIGRATIONS", contents_steps)
    loaded = checkpoint.load(folder / "checkpoints" / "last.ckpt")
    assert loaded.cfg.seed == 42
    assert loaded.contents["note"] == "new"
    assert train.saved_config(checkpoint.RunDir(folder)).seed == 42


def test_files_from_before_the_first_kept_format_are_refused(tmp_path: Path) -> None:
    with tarfile.open(FORMATS[-1]) as packed:
        packed.extractall(tmp_path, filter="data")
    path = tmp_path / "tiny_word" / "run" / "checkpoints" / "last.ckpt"
    contents = torch.load(path, weights_only=True)
    contents[checkpoint.CHECKPOINT_KEY]["format"] = migrations.FIRST_FORMAT - 1
    torch.save(contents, path)
    with refused("checkpoint.other_version", f"reads {migrations.FIRST_FORMAT} to "):
        checkpoint.load(path)


def test_a_run_folder_tells_its_versions() -> None:
    with tarfile.open(FORMATS[-1]) as packed:
        file = packed.extractfile("tiny_word/run/.hydra/versions.json")
        assert file is not None
        known = json.load(file)
    assert known["format"] == migrations.FORMAT
    assert {"hp_lightning", "torch", "lightning", "python", "git"} <= known.keys()
    assert isinstance(Run(HERE).status, type(None))
