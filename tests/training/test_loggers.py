"""What a person sees in TensorBoard, asked of TensorBoard itself: its reader and the back ends of its tabs."""

import csv
import html
import io
import json
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.runs import scalars
from omegaconf import OmegaConf
from PIL import Image
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups
from tensorboard.plugins.image.images_plugin import ImagesPlugin
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from tensorboard.plugins.text.text_plugin import TextPlugin
from werkzeug.test import Client

from hp_lightning import checkpoint
from hp_lightning.common import plots
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.schema.train import TrainConfig, from_plain, plain_from_yaml
from hp_lightning.tokenizers import UNK
from hp_lightning.tokenizers.base import labels
from hp_lightning.training.callbacks.metrics_csv import MetricsCSV
from hp_lightning.training.callbacks.samples import first_words, prompts
from hp_lightning.training.fit import train
from hp_lightning.training.loggers import hparams

SETTINGS = (
    "experiment=smoke",
    "model.num_layers=2",
    "max_steps=12",
    "trainer.val_every_steps=4",
    "trainer.precision=32-true",
    "logger.log_every_steps=3",
    "logger.sample_tokens=8",
    "data.batch_size=8",
    "optim.lr=0.01",
)
RUNS = ("runs/resumed", "runs/other", "sweeps/mine/0_failed")

MakeConfig = Callable[..., TrainConfig]


class BreaksOff(Exception):
    """What a test ends a run by."""


def train_in(run_dir: Path, make_config: MakeConfig, *overrides: str) -> None:
    given = [*overrides, f"resume={run_dir}" if run_dir.exists() else f"run_dir={run_dir}"]
    train(make_config(*given), [*overrides], OmegaConf.create({"mode": "RUN"}))


def train_until(validation: int, run_dir: Path, make_config: MakeConfig, *overrides: str) -> None:
    """Until a validation of this session has been logged; it is not saved."""
    original, seen = MetricsCSV.on_validation_end, 0

    def breaking(self: MetricsCSV, *args: Any) -> None:
        nonlocal seen
        original(self, *args)
        seen += 1
        if seen == validation:
            raise BreaksOff

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsCSV, "on_validation_end", breaking)
        with pytest.raises(BreaksOff):
            train_in(run_dir, make_config, *overrides)


@pytest.fixture(scope="module")
def outputs(make_config: MakeConfig, first_book: Path, once: Callable) -> Path:
    """A run of three sessions, of which the last was told to go further; one with other settings; one that failed."""
    return once("outputs", lambda folder: train_runs(folder, make_config, first_book))


def train_runs(folder: Path, make_config: MakeConfig, first_book: Path) -> None:
    settings = [*SETTINGS, f"data.path={first_book}"]
    train_until(2, folder / RUNS[0], make_config, *settings, "checkpoint.every_steps=5")
    train_until(2, folder / RUNS[0], make_config)
    train_in(folder / RUNS[0], make_config, "max_steps=14", "optim.lr=0.005")
    other = ["tokenizer=bpe", "model.position=learned", "model.bias=true", "regularization=none", "model.num_heads=2"]
    more = ["regularization.gradient_clip_norm=null", "max_epochs=1", "max_steps=null", "data.batch_size=40"]
    train_in(folder / RUNS[1], make_config, *settings, *other, *more, "logger.sample_prompts=[Wren said]")
    train_until(2, folder / RUNS[2], make_config, *settings, "regularization.dropout=0.1", "max_steps=1000")


@pytest.fixture(scope="module")
def board(outputs: Path) -> TBContext:
    """What TensorBoard gives its tabs when it is started on the folder."""
    multiplexer = EventMultiplexer(tensor_size_guidance={"scalars": 0})
    multiplexer.AddRunsFromDirectory(str(outputs))
    multiplexer.Reload()
    return TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(outputs)), logdir=str(outputs))


@pytest.fixture(scope="module")
def corpus(make_config: MakeConfig, first_book: Path) -> CorpusDataModule:
    cfg = make_config(*SETTINGS, f"data.path={first_book}")
    return CorpusDataModule(cfg)


def ask(plugin: Any, route: str, **query: Any) -> Any:
    """What the browser is answered."""
    return Client(plugin.get_plugin_apps()[route]).get("/", query_string=query)


def rows(run_dir: Path) -> list[dict[str, float]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


# Curves


def test_the_legend_has_the_names_of_the_folders(board: TBContext) -> None:
    found = {run.run_name for run in board.data_provider.list_runs(context.RequestContext(), experiment_id="")}
    assert found == {name for run in RUNS for name in (run, f"{run}/by_tokens")}


@pytest.mark.parametrize("run", RUNS)
def test_losses_are_there_over_steps_and_over_tokens(run: str, outputs: Path) -> None:
    """Each once, in a run of several sessions, too."""
    by_steps, by_tokens = scalars(outputs / run), scalars(outputs / run / "by_tokens")
    assert by_tokens.keys() == {f"loss_by_tokens/{curve}" for curve in ("train", "val", "kneser_ney")}
    level = json.loads((outputs / run / "summary.json").read_text())["kneser_ney/val_loss"]
    validations = [step for step, _ in by_steps["val/loss"]]
    assert by_steps["kneser_ney/val_loss"] == [(step, pytest.approx(level)) for step in sorted({0, *validations})]
    for part in ("train", "val"):
        written = [row for row in rows(outputs / run) if f"{part}/loss" in row]
        losses = [pytest.approx(row[f"{part}/loss"], rel=1e-6) for row in written]
        assert by_steps[f"{part}/loss"] == list(zip([row["step"] for row in written], losses, strict=True))
        assert by_tokens[f"loss_by_tokens/{part}"] == list(zip([row["tokens"] for row in written], losses, strict=True))


@pytest.mark.parametrize("run", RUNS)
def test_gap_is_to_the_training_losses_since_the_last_validation(run: str, outputs: Path) -> None:
    since: list[float] = []
    latest, validated = math.nan, []
    for row in rows(outputs / run):
        if "train/loss" in row:
            latest = row["train/loss"]
            since.append(latest)
        if "val/loss" in row:
            assert row["val/gap"] == pytest.approx(row["val/loss"] - (statistics.fmean(since) if since else latest))
            validated.append(row)
            since = []
    summary = json.loads((outputs / run / "summary.json").read_text())
    best = min(validated, key=lambda row: row["val/loss"])
    assert summary["val/gap"] == validated[-1]["val/gap"]
    if summary["best/step"] == best["step"]:  # saved, that is
        assert summary["best/val/gap"] == best["val/gap"]
    assert scalars(outputs / run)["best/step"][-1][1] == best["step"]


def test_one_chart_has_training_and_validation_loss(board: TBContext) -> None:
    groups = ask(CustomScalarsPlugin(board), "/layout").json["category"]
    charts = [(chart["title"], chart["multiline"]["tag"]) for group in groups for chart in group["chart"]]
    assert ("training and validation", ["^train/loss$", "^val/loss$", "^kneser_ney/val_loss$"]) in charts
    assert len(charts) == 5, "of several runs each chart stands there once"


# HPARAMS


def session_groups(board: TBContext, *columns: api_pb2.ColParams) -> list[Any]:
    statuses = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=100, allowed_statuses=statuses, col_params=columns
    )
    handler = list_session_groups.Handler(
        context.RequestContext(), backend_context.Context(board), experiment_id="", request=request
    )
    return list(handler.run().session_groups)


def experiment(board: TBContext) -> Any:
    handler = get_experiment.Handler(
        context.RequestContext(), backend_context.Context(board), "", api_pb2.GetExperimentRequest()
    )
    return handler.run()


def plain(value: Any) -> bool | float | str:
    held = value.WhichOneof("kind")
    return getattr(value, held)


def test_every_run_is_a_row_with_all_columns(board: TBContext, outputs: Path) -> None:
    groups = {group.name: group for group in session_groups(board)}
    assert groups.keys() == set(RUNS), "the one that failed, too"
    kinds = [{key: value.WhichOneof("kind") for key, value in group.hparams.items()} for group in groups.values()]
    assert kinds[0] == kinds[1] == kinds[2]
    columns = {info.name: info for info in experiment(board).hparam_infos}
    assert columns.keys() == kinds[0].keys()
    differing = {name for name, info in columns.items() if info.differs}
    assert {"model.position", "model.bias", "tokenizer.kind", "regularization.gradient_clip_norm"} <= differing
    assert "seed" not in differing
    settings = {run: {key: plain(value) for key, value in group.hparams.items()} for run, group in groups.items()}
    assert settings[RUNS[1]]["regularization.gradient_clip_norm"] == 0
    assert settings[RUNS[1]]["regularization.early_stopping_patience"] == 0
    assert settings[RUNS[1]]["model.bias"] is True
    summary = json.loads((outputs / RUNS[1] / "summary.json").read_text())
    assert settings[RUNS[1]]["max_steps"] == summary["steps"]
    assert settings[RUNS[1]]["parameters"] == summary["parameters"]


def test_no_patience_is_not_endless_patience(make_config: MakeConfig, corpus: CorpusDataModule) -> None:
    given = [make_config(f"optim.plateau.patience={patience}") for patience in ("null", 0, 2)]
    shown = [hparams.settings(cfg, corpus, parameters=1, total_steps=1, val_every=1) for cfg in given]
    assert [row["optim.plateau.patience"] for row in shown] == [-1, 0, 2]


def test_settings_told_anew_stand_in_the_row(board: TBContext) -> None:
    [row] = [group for group in session_groups(board) if group.name == RUNS[0]]
    assert (plain(row.hparams["max_steps"]), plain(row.hparams["optim.lr"])) == (14, 0.005)


def test_rows_have_the_best_figures_and_can_be_sorted_by_them(board: TBContext, outputs: Path) -> None:
    metrics = [info.name for info in experiment(board).metric_infos]
    shown = [metric.tag for metric in metrics[:5]]  # before a person chooses others
    names = ("bits_per_char", "gap", "loss", "perplexity")
    assert shown == ["best/step", *(f"best/val/{name}" for name in names)]
    for order in (api_pb2.ORDER_ASC, api_pb2.ORDER_DESC):
        column = api_pb2.ColParams(metric=api_pb2.MetricName(tag="best/val/loss"), order=order)
        groups = session_groups(board, column)
        found = {
            group.name: {value.name.tag: value.value for value in group.metric_values if value.name.group == ""}
            for group in groups
        }
        losses = [found[group.name]["best/val/loss"] for group in groups]
        assert losses == sorted(losses, reverse=order == api_pb2.ORDER_DESC)
    for run in RUNS:
        best = min((row for row in rows(outputs / run) if "val/loss" in row), key=lambda row: row["val/loss"])
        assert found[run]["best/step"] == best["step"]
        for name in names:
            assert found[run][f"best/val/{name}"] == pytest.approx(best[f"val/{name}"], rel=1e-6)
        assert -1 not in found[run].values()


# TEXT


def texts(board: TBContext, run: str, tag: str) -> dict[int, str]:
    """By step, as the tab shows them: in HTML."""
    found = ask(TextPlugin(board), "/text", run=run, tag=f"{tag}/text_summary").json
    return {event["step"]: event["text"] for event in found}


def test_config_is_readable_yaml(board: TBContext, outputs: Path) -> None:
    sessions = texts(board, RUNS[0], "config")
    assert list(sessions) == [0, 6, 11], "one step after what the session went on from"
    for step, lr in ((0, 0.01), (11, 0.005)):
        written = sessions[step].partition("<pre><code>")[2].partition("</code></pre>")[0]
        assert from_plain(plain_from_yaml(html.unescape(written))).optim.lr == lr


def test_corpus_is_a_table(board: TBContext) -> None:
    [shown] = texts(board, RUNS[1], "corpus").values()
    assert "<table>" in shown
    for held in ("validation", "documents", "characters", "longest document"):
        assert held in shown
    [words] = texts(board, RUNS[0], "corpus").values()
    assert "&lt;UNK&gt;" in words


def test_what_it_writes_has_a_tag_for_each_prompt(board: TBContext, corpus: CorpusDataModule) -> None:
    words = first_words(corpus)
    tags = ask(TextPlugin(board), "/tags").json[RUNS[0]]
    beginning, continued = sorted(tag.removesuffix("/text_summary") for tag in tags if tag.startswith("sample/"))
    assert beginning == "sample/1_start_of_a_document"
    assert continued == "sample/2_" + "_".join(re.findall(r"\w+", words[:40]))
    for tag in (beginning, continued):
        shown = texts(board, RUNS[0], tag)
        assert min(shown) == 4, "at the first validation"
        assert max(shown) == 15, "and of the best checkpoint, after the last step"
    assert all(words in html.unescape(text) for text in texts(board, RUNS[0], continued).values())
    assert all("Wren said" in text for text in texts(board, RUNS[1], "sample/1_Wren_said").values())


def test_prompts_are_words_that_are_known_and_were_not_trained_on(
    make_config: MakeConfig, corpus: CorpusDataModule
) -> None:
    words = first_words(corpus)
    assert len(words.split()) == 10
    assert UNK not in words
    part = corpus.tokenizer.decode(corpus.streams["val"][1:].tolist())
    assert any(" ".join(line.split()).startswith(words) for line in part.split("\n"))
    assert prompts(make_config().logger, corpus) == ["", words]
    assert prompts(make_config("logger.sample_prompts=[a,b]").logger, corpus) == ["a", "b"]


# IMAGES


def test_images_are_drawn_first_and_last_and_are_small_enough_to_be_shown_whole(
    board: TBContext, outputs: Path
) -> None:
    tags = {f"attention/layer_{number}" for number in (1, 2)}
    by_run = ask(ImagesPlugin(board), "/tags").json
    for run in RUNS[:2]:
        last = json.loads((outputs / run / "summary.json").read_text())["steps"] + 1
        assert by_run[run].keys() == tags
        for tag in tags:
            images = ask(ImagesPlugin(board), "/images", run=run, tag=tag, sample=0).json
            steps = [image["step"] for image in images]
            assert steps == sorted(set(steps))
            assert steps[0] == 4, "at the first validation"
            if run == RUNS[0]:
                assert steps[1:-1] == [14], "at the fourth, not at the second and third"
            assert steps[-1] == last, "and of the best checkpoint, after the last step"
            content = Client(ImagesPlugin(board).get_plugin_apps()["/individualImage"]).get("/?" + images[-1]["query"])
            image = Image.open(io.BytesIO(content.data))
            assert 250 <= image.width <= 420, tag
            assert len(np.unique(np.asarray(image))) > 10, "there is something in it"


def test_what_no_font_or_formula_can_be_made_of_is_drawn() -> None:
    awkward = ["$x$", "$", "\u3042", "<EOS>", "_^{", "a_very_long_word_indeed", "\U0001f40b"]
    weights = np.tril(np.ones((5, len(awkward), len(awkward)))) / len(awkward)
    pixels = plots.pixels(plots.attention_figure(weights, awkward, "layer $1"))
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3


# PROJECTOR


@pytest.mark.parametrize("run", RUNS[:2])
def test_projector_has_the_embeddings_of_the_best_with_their_words(run: str, board: TBContext, outputs: Path) -> None:
    plugin = ProjectorPlugin(board)
    assert set(ask(plugin, "/runs").json) == set(RUNS[:2])
    [embedding] = ask(plugin, "/info", run=run).json["embeddings"]
    query = {"run": run, "name": embedding["tensorName"]}
    vectors = np.frombuffer(ask(plugin, "/tensor", **query).data, np.float32).reshape(embedding["tensorShape"])
    head, *lines = ask(plugin, "/metadata", **query).text.rstrip("\n").split("\n")
    words = [line.split("\t")[0] for line in lines]
    assert head == "token\trank"
    assert len(words) == len(vectors)
    trained = checkpoint.load(outputs / run / "checkpoints" / "best.ckpt")
    table = trained.net().token_embedding.weight.detach().numpy()
    names = labels(trained.tokenizer, range(len(table)))
    assert len(table) == len(vectors)
    for word, vector in zip(words[:50], vectors[:50], strict=True):
        assert any(names[place] == word for place in np.flatnonzero((table == vector).all(axis=1)))
    assert {"." if run == RUNS[0] else "␣the", "↵"} <= set(words)
    assert all(word.isprintable() and " " not in word and word for word in words)


# What it costs


def test_nothing_that_is_shown_moves_the_training(
    outputs: Path, make_config: MakeConfig, first_book: Path, tmp_path: Path
) -> None:
    settings = [*SETTINGS, f"data.path={first_book}", "regularization.dropout=0.1", "max_steps=5"]
    train_in(tmp_path / "silent", make_config, *settings, "logger=csv")
    train_in(tmp_path / "shown", make_config, *settings)
    silent, shown = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("silent", "shown")
    )
    assert not list((tmp_path / "silent").glob("events.*"))
    assert all(torch.equal(weight, shown["state_dict"][name]) for name, weight in silent["state_dict"].items())
