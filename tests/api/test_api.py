"""The project from Python, as a notebook or another program uses it."""

import gc
import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.errors import refused
from helpers.processes import PROJECT, environment
from hydra.core.global_hydra import GlobalHydra
from lightning.pytorch.loggers import CSVLogger
from torch.nn import functional as F

import hp_lightning as hp

SMALL = ["experiment=smoke", "logger=csv", "trainer.compile=false", "trainer.accelerator=cpu"]
LOGGERS = ("", "hp_lightning", "lightning", "lightning.pytorch", "lightning.fabric", "py.warnings")


@pytest.fixture(scope="module")
def run(once: Callable, first_book: Path) -> hp.Run:
    def train(folder: Path) -> None:
        hp.train(first_book, overrides=SMALL, max_steps=20, run_dir=str(folder / "run"), seed=3)

    return hp.Run(once("api_run", train) / "run")


def test_importing_is_light() -> None:
    code = """
        import sys
        import hp_lightning as hp
        heavy = {"torch", "lightning", "hydra", "omegaconf", "numpy", "matplotlib", "nltk"} & set(sys.modules)
        assert not heavy, heavy
        assert set(hp.__all__) <= set(dir(hp))
        hp.InputError
        assert "torch" not in sys.modules
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment(), check=True)


def test_every_name_is_there() -> None:
    assert all(getattr(hp, name) is not None for name in hp.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        hp.nothing  # noqa: B018


def test_a_run_and_its_model(run: hp.Run) -> None:
    assert run.status == "completed"
    assert run.summary["steps"] == 20
    rows = run.metrics
    assert [row["step"] for row in rows if row["val/loss"] is not None] == [10, 20]
    assert {type(value) for row in rows for value in row.values()} == {float, type(None)}
    best = run.best
    assert best.step == run.summary["best/step"]
    texts = best.generate("The lantern", num_samples=3, max_new_tokens=5, seed=1)
    assert len(texts) == 3
    assert all(text.startswith("The lantern") for text in texts)
    assert texts == hp.load(run.folder).generate("The lantern", num_samples=3, max_new_tokens=5, seed=1)
    assert repr(run) == f"Run({str(run.folder)!r}, status='completed')"
    assert f"parameters={best.net.num_parameters():,}" in repr(best)


def test_scores_are_the_networks_log_probabilities(run: hp.Run) -> None:
    model, text = run.best, "The lantern was not lit, she said, and nobody had seen it."
    scores = model.score(text)
    assert [score.token for score in scores] == model.tokenizer.tokens(text)
    ids = [model.tokenizer.vocabulary.eos_id, *model.tokenizer.encode(text).tolist()]
    assert len(ids) <= model.context
    losses = F.cross_entropy(model.net(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:]), reduction="none")
    assert [score.log_prob for score in scores] == pytest.approx((-losses).tolist(), rel=1e-5)
    long = " ".join([text] * 20)
    assert len(model.score(long)) == len(model.tokenizer.tokens(long)) > model.context
    assert model.score("") == []


def test_runs_are_compared(run: hp.Run, first_book: Path, tmp_path: Path) -> None:
    other = hp.train(first_book, overrides=[*SMALL, "optim.lr=1e-5", "optim.muon_lr=1e-5"], max_steps=20,
                     run_dir=str(tmp_path / "other"), seed=3)  # fmt: skip
    comparison = hp.compare([run.folder, other.folder])
    best, second = comparison.rows
    assert best["best_val_loss_mean"] == pytest.approx(run.summary["best/val/loss"])
    assert second["optim.lr"] == "1e-05"
    assert second["runs"] == str(other.folder)
    assert any(line.startswith("Best: ") for line in comparison.verdict)
    assert not (tmp_path / "summary.csv").exists()


def test_callbacks_and_loggers_are_lightnings(first_book: Path, tmp_path: Path) -> None:
    class Counted(L.Callback):
        steps = 0

        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            self.steps += 1

    counted, logger = Counted(), CSVLogger(tmp_path / "csv")
    run = hp.train(first_book, overrides=SMALL, max_steps=10, run_dir=str(tmp_path / "run"), callbacks=[counted],
                   logger=[logger])  # fmt: skip
    assert counted.steps == 10
    logged = [line for file in (tmp_path / "csv").rglob("metrics.csv") for line in file.read_text().splitlines()]
    assert len(logged) == 1 + len(run.metrics)
    assert {"train/loss", "val/loss"} <= set(logged[0].split(","))


@pytest.mark.parametrize(
    ("call", "code", "named"),
    [
        (lambda: hp.train(model="tinyy"), "config.unknown_choice", ["model=tinyy", "tiny"]),
        (lambda: hp.train(max_step=3), "config.unknown_key", ["max_step", "max_steps"]),
        (lambda: hp.train("nowhere.csv"), "data.not_found", ["nowhere.csv"]),
        (lambda: hp.train(overrides=["trainer.devices=2"]), "config.conflict", ["trainer.devices=2"]),
        (lambda: hp.config(overrides=["optim.lr=fast"]), "config.wrong_type", ["optim.lr"]),
        (lambda: hp.load("nowhere"), "checkpoint.not_found", ["nowhere"]),
        (lambda: hp.compare("nowhere"), "run.not_found", ["nowhere"]),
        (lambda: hp.train(from_run="nowhere"), "run.not_found", ["from=nowhere"]),
        (lambda: hp.config(overrides=["from=nowhere"]), "run.not_found", ["from=nowhere"]),
        (lambda: hp.config(model=5), "config.unknown_choice", ["model=tiny"]),
        (lambda: hp.config(overrides=["data=csv"]), "config.missing", ["data.path"]),
        (lambda: hp.config(overrides=["+foo=1"]), "config.unknown_key", ["foo"]),
        (lambda: hp.config(overrides=["seed=${nope}"]), "config.interpolation", ["nope"]),
        (lambda: hp.config(overrides=["seed=1,2"]), "sweep.without_multirun", ["-m"]),
        (lambda: hp.config(overrides="optim.lr=1"), "config.wrong_type", ["overrides"]),
        (lambda: hp.config(resume="nowhere"), "config.conflict", ["resume="]),
        (lambda: hp.train(logger=True), "config.wrong_type", ["logger"]),
        (lambda: hp.train(logger="csv"), "config.wrong_type", ["logger=csv"]),
        (lambda: hp.train(callbacks=[L.Callback]), "config.wrong_type", ["callbacks"]),
        (lambda: hp.compare([]), "config.empty", ["folder"]),
        (lambda: hp.Run("nowhere"), "run.not_found", ["nowhere"]),
    ],
)
def test_a_refusal_is_the_commands(
    call: Callable[[], object], code: str, named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with refused(code, *named):
        call()
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_settings_of_generate_are_checked(run: hp.Run) -> None:
    with refused("config.unknown_key", "temperatur", "temperature"):
        run.best.generate("x", temperatur=1)
    with refused("config.out_of_range", "temperature=-1"):
        run.best.generate("x", temperature=-1)
    with refused("config.unknown_key", "ckpt"):
        run.best.generate("x", ckpt="other")


@pytest.mark.parametrize("name", ["a, b.csv", "it's [1].csv", "größe=1.csv", "null", "2024", "1e3", "true"])
def test_a_path_is_taken_as_it_is(name: str, first_book: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(first_book.read_bytes())
    assert hp.config(path).data.path == str(path)
    assert hp.config([path, first_book]).data.path == [str(path), str(first_book)]


def state() -> dict[str, Any]:
    return {
        "hydra": GlobalHydra.instance().hydra,
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "logging": {
            name: (logger.level, list(logger.handlers), logger.propagate)
            for name, logger in ((name, logging.getLogger(name)) for name in LOGGERS)
        },
        "environment": dict(os.environ),
        "gc": (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()),
        "torch": (torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision()),
        "hooks": (sys.excepthook, sys.stdout, sys.stderr),
    }


def test_the_program_around_it_is_left_as_it_was(first_book: Path, tmp_path: Path) -> None:
    handler = logging.NullHandler()
    logging.getLogger("hp_lightning").addHandler(handler)
    before = state()
    for number in (1, 2):
        hp.train(first_book, overrides=SMALL, max_steps=5, run_dir=str(tmp_path / f"run_{number}"))
        after = state()
        for name, value in before.items():
            assert after[name] == value, name
    with pytest.raises(hp.InputError):
        hp.train(first_book, max_step=1)
    assert state() == before
    logging.getLogger("hp_lightning").removeHandler(handler)
    first, second = (hp.Run(tmp_path / f"run_{number}").metrics for number in (1, 2))
    assert [row["train/loss"] for row in first] == [row["train/loss"] for row in second]


def test_within_a_program_of_hydra(first_book: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        textwrap.dedent(f"""
        import hydra
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        import hp_lightning as hp

        @hydra.main(version_base="1.3", config_path=None)
        def main(cfg):
            before = OmegaConf.to_yaml(HydraConfig.get(), resolve=False)
            run = hp.train({str(first_book)!r}, overrides={SMALL!r}, max_steps=5, run_dir=cfg.run_dir)
            assert OmegaConf.to_yaml(HydraConfig.get(), resolve=False) == before
            print(run.status, cfg.mine)

        main()
        """)
    )
    command = [sys.executable, "program.py", "+run_dir=run", "+mine=kept"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "completed kept"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 5


def test_ctrl_c_returns_an_interrupted_run_that_resumes(first_book: Path, tmp_path: Path) -> None:
    class CtrlC(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
            if trainer.global_step == 4:
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    folder = str(tmp_path / "run")
    run = hp.train(first_book, overrides=SMALL, max_steps=12, run_dir=folder, callbacks=[CtrlC()])
    assert run.status == "interrupted"
    assert run.last.step < 12
    assert signal.getsignal(signal.SIGINT) == before
    resumed = hp.train(resume=folder)
    assert resumed.status == "completed"
    whole = hp.train(first_book, overrides=SMALL, max_steps=12, run_dir=str(tmp_path / "whole"))
    weights, other = (each.last.net.state_dict() for each in (resumed, whole))
    assert all(torch.equal(weights[name], other[name]) for name in weights)


def test_a_run_starts_from_anothers_settings(run: hp.Run, tmp_path: Path) -> None:
    again = hp.train(from_run=str(run.folder), run_dir=str(tmp_path / "again"))
    assert [row["train/loss"] for row in again.metrics] == [row["train/loss"] for row in run.metrics]
    other = hp.train(from_run=str(run.folder), run_dir=str(tmp_path / "other"), seed=4, overrides=["tokenizer=char"])
    cfg, before = other.best.cfg, run.best.cfg
    assert (cfg.seed, cfg.tokenizer.kind, cfg.model.d_model) == (4, "char", before.model.d_model)
    assert cfg.model.vocab_size == len(other.best.tokenizer.vocabulary) != before.model.vocab_size
    with refused("config.conflict", "from=", "resume="):
        hp.train(from_run=str(run.folder), resume=str(run.folder))


def test_a_preset_of_several_groups_changes_anothers_settings(run: hp.Run) -> None:
    cfg = hp.config(from_run=run, overrides=["debug=overfit"], seed=7)
    assert (cfg.debug, cfg.max_steps, cfg.regularization.dropout, cfg.seed) == ("overfit", 200, 0.0, 7)
    assert cfg.model.d_model == run.best.cfg.model.d_model
    assert hp.config(from_run=run, overrides=["experiment=roadmap"]).model.d_model == 512


def test_a_run_can_be_named_by_itself(run: hp.Run) -> None:
    assert hp.load(run).step == run.best.step
    assert hp.compare(run).rows == hp.compare([run]).rows == hp.compare(run.folder).rows


# A plain Trainer


def trainer(folder: Path, **settings: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(**{"default_root_dir": folder, "logger": CSVLogger(folder), **quiet, **settings})


def test_modules_in_a_plain_trainer(first_book: Path, tmp_path: Path) -> None:
    cfg = hp.config(first_book, overrides=[*SMALL, "optim.schedule=plateau"])  # the same however long the run
    L.seed_everything(1, verbose=False)
    module, data = hp.GPTModule(cfg), hp.CorpusDataModule(cfg)
    first = trainer(tmp_path, max_steps=50, log_every_n_steps=1)
    first.fit(module, datamodule=data)
    assert first.global_step == 50
    written = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()
    assert {"train/loss", "val/loss", "val/bits_per_char"} <= set(written[0].split(","))
    [measured] = first.validate(module, datamodule=data, verbose=False)
    assert measured["val/loss"] < math.log(len(data.tokenizer.vocabulary)), "better than guessing"

    path = first.checkpoint_callback.best_model_path
    loaded = hp.GPTModule.load_from_checkpoint(path)
    weights = module.net.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.net.state_dict().items())
    assert hp.load(path).generate("The", max_new_tokens=3, seed=1), "it is a checkpoint of the commands, too"

    resumed = hp.GPTModule(cfg)
    trainer(tmp_path / "resumed", max_steps=60).fit(resumed, datamodule=hp.CorpusDataModule(cfg), ckpt_path=path)
    L.seed_everything(1, verbose=False)
    whole = hp.GPTModule(cfg)
    trainer(tmp_path / "whole", max_steps=60).fit(whole, datamodule=hp.CorpusDataModule(cfg))
    assert all(torch.equal(value, resumed.net.state_dict()[name]) for name, value in whole.net.state_dict().items())


def test_epochs_and_limits_of_a_plain_trainer(first_book: Path, tmp_path: Path) -> None:
    cfg = hp.config(first_book, overrides=[*SMALL, "optim.schedule=wsd"])
    some = trainer(tmp_path, max_epochs=2, limit_train_batches=4, limit_val_batches=1, accumulate_grad_batches=2)
    some.fit(hp.GPTModule(cfg), datamodule=hp.CorpusDataModule(cfg))
    assert some.global_step == 4


def test_what_does_not_fit_together_is_refused(first_book: Path, tmp_path: Path) -> None:
    cfg = hp.config(first_book, overrides=SMALL)
    other = hp.config(first_book, overrides=[*SMALL, "data.seq_len=8"])
    quiet = {"max_steps": 1, "enable_checkpointing": False, "logger": False}
    with refused("config.conflict", "data.seq_len=64", "data.seq_len=8"):
        trainer(tmp_path, **quiet).fit(hp.GPTModule(cfg), datamodule=hp.CorpusDataModule(other))
    with refused("data.no_module", "model.vocab_size"):
        trainer(tmp_path, **quiet).fit(hp.GPTModule(cfg))
    first = trainer(tmp_path, **quiet)
    first.fit(hp.GPTModule(cfg), datamodule=hp.CorpusDataModule(cfg))
    first.save_checkpoint(path := tmp_path / "one.ckpt")
    loaded = hp.GPTModule.load_from_checkpoint(path, map_location="cpu")
    [measured] = trainer(tmp_path, **quiet).validate(loaded, datamodule=hp.CorpusDataModule(cfg), verbose=False)
    assert measured["val/loss"] > 0
    smaller = hp.config(first_book, overrides=[*SMALL, "model.num_layers=1"])
    with refused("config.cannot_change", "model.num_layers=1"):
        trainer(tmp_path, **quiet | {"max_steps": 2}).fit(
            hp.GPTModule(smaller), datamodule=hp.CorpusDataModule(smaller), ckpt_path=path
        )


def test_a_checkpoint_of_a_run_opens_as_a_module(run: hp.Run) -> None:
    module = hp.GPTModule.load_from_checkpoint(run.folder / "checkpoints" / "best.ckpt")
    token_ids = torch.arange(8)[None]
    assert torch.equal(module.net.eval()(token_ids), run.best.net(token_ids))


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    for key, value in environment().items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(PROJECT / "docs" / "notebooks" / "first_model.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert (tmp_path / "outputs" / "runs").is_dir()
