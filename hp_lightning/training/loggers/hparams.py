"""A run's row in TensorBoard's HPARAMS tab."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.summary.writer.record_writer import RecordWriter

from hp_lightning.common.files import atomic_write
from hp_lightning.common.run_dir import RunDir
from hp_lightning.data.datamodule import CorpusDataModule
from hp_lightning.schema.regularization import DROPOUT_PLACES
from hp_lightning.schema.train import TrainConfig, to_plain

Setting = bool | int | float | str


def settings(
    cfg: TrainConfig, data: CorpusDataModule, parameters: int, total_steps: int, val_every: int
) -> dict[str, Setting]:
    """The settings that runs are compared by: those that a person may sweep, and what follows from them on this corpus.

    Every run has the same keys, each with values of one type, or TensorBoard would lose columns: what is null stands
    as the number that says the same.

    Args:
        cfg: the run's config, in which nothing is `auto`
        data: its corpus
        parameters: of the network
        total_steps: after which the run ends
        val_every: optimizer steps between two validations
    """
    plain = to_plain(cfg)
    del plain["model"]["vocab_size"]  # as many as the tokenizer's, seldom more
    groups = dict(_flat({group: plain[group] for group in ("model", "regularization", "optim")}))
    for place in DROPOUT_PLACES:
        groups[f"regularization.{place}_dropout"] = cfg.regularization.rate(place)
    groups["regularization.gradient_clip_norm"] = cfg.regularization.gradient_clip_norm or 0.0  # none
    groups["regularization.early_stopping_patience"] = cfg.regularization.early_stopping_patience or 0  # never
    patience = cfg.optim.plateau.patience
    groups["optim.plateau.patience"] = -1 if patience is None else patience  # endless
    return {
        **groups,
        "data.path": _names(cfg.data.path),
        "data.seq_len": cfg.data.seq_len,
        "data.batch_tokens": data.tokens_per_step,
        "tokenizer.kind": cfg.tokenizer.kind,
        "tokenizer.vocab_size": len(data.tokenizer.vocabulary),
        "tokenizer.min_frequency": cfg.tokenizer.min_frequency,
        "tokenizer.lowercase": cfg.tokenizer.lowercase,
        "trainer.precision": cfg.trainer.precision,
        "trainer.val_every_steps": val_every,
        "max_steps": total_steps,
        "seed": cfg.seed,
        "parameters": parameters,
    }


def write_settings(run_dir: RunDir, settings: dict[str, Setting]) -> None:
    """Write the row into its own file, over that of an earlier session.

    Of a run's rows TensorBoard takes the first and ignores the others: a resumed run whose settings have changed cannot
    add one. A TensorBoard that is running shows the new row when it is started again.

    There is no list of all columns, as torch's writer makes it: TensorBoard would take that of one run for all. It
    makes up its own from the rows, and puts first what differs; the metrics are the run's scalars, in alphabetical
    order, of which it shows five: those named `best/…`.
    """
    row = SessionStartInfo(start_time_secs=time.time())
    for key, value in settings.items():
        if isinstance(value, bool):
            row.hparams[key].bool_value = value
        elif isinstance(value, str):
            row.hparams[key].string_value = value
        else:
            row.hparams[key].number_value = value
    plugin_data = metadata.create_summary_metadata(HParamsPluginData(session_start_info=row))
    value = Summary.Value(tag=metadata.SESSION_START_INFO_TAG, metadata=plugin_data, tensor=metadata.NULL_TENSOR)
    events = (
        Event(wall_time=time.time(), file_version="brain.Event:2"),
        Event(wall_time=time.time(), step=0, summary=Summary(value=[value])),
    )
    with atomic_write(run_dir.hparams) as file:
        for event in events:
            RecordWriter(file).write(event.SerializeToString())


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested dicts by their keys, lists by their indices, from 1 on."""
    if isinstance(settings, list):
        settings = {str(number): value for number, value in enumerate(settings, start=1)}
    for key, value in settings.items():
        if isinstance(value, (dict, list)):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _names(path: Any) -> str:
    """The names of a file or several, without their folders."""
    return ", ".join(Path(one).name for one in (path if isinstance(path, list) else [path]))
