"""Finished runs as TensorBoard event files: scalars, hyperparameters, tables as text, figures as images."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from twinrun.export.exporting import Analysis, FinishedRun, Shown
from twinrun.study.folders import replaced_folder


class Writer:
    """One folder of events for each run, `out/<run id>`, and `out/study` for the tables and figures."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def add_run(self, run: FinishedRun) -> None:
        """Scalars of each epoch under `curve/`, results at the last epoch, parameters for the HPARAMS page."""
        last = run.curve[-1][0] if run.curve else 0
        events = [
            (epoch, Summary(value=[_scalar(f"curve/{name}", value) for name, value in values.items()]))
            for epoch, values in run.curve
        ]
        events.append((last, Summary(value=[_scalar(name, value) for name, value in run.results.items()])))
        events.append((last, Summary(value=[_text("tags", "\n".join(f"- {k}: `{v}`" for k, v in run.tags.items()))])))
        events.append((0, hparams_pb(dict(run.params), trial_id=run.id, start_time_secs=run.started)))
        _write(self.out / run.id, events, run.finished)

    def add_analysis(self, study: str, analysis: Analysis) -> None:
        """Tables as text and figures as images, each under its name."""
        values = [_text(f"tables/{entry.name}", _table_text(entry)) for entry in analysis.tables]
        values += [_image(entry) for entry in analysis.figures]
        _write(self.out / "study", [(0, Summary(value=[value])) for value in values], None)


def _write(folder: Path, events: Iterable[tuple[int, Any]], wall_time: float | None) -> None:
    with replaced_folder(folder, ("events.out.tfevents.*.twinrun",)) as building:
        at = time.time() if wall_time is None else wall_time
        # Written at once: tensorboard's own writer has a thread, in which a full disk is noticed late or never.
        with (building / f"events.out.tfevents.{int(at)}.twinrun").open("wb") as stream:
            records = RecordWriter(stream)
            records.write(Event(wall_time=at, file_version="brain.Event:2").SerializeToString())
            for step, summary in events:
                records.write(Event(wall_time=at, step=step, summary=summary).SerializeToString())


def _scalar(name: str, value: float) -> Any:
    return Summary.Value(tag=name, simple_value=value)


def _text(name: str, text: str) -> Any:
    metadata = create_summary_metadata(display_name=name, description="")
    return Summary.Value(tag=name, metadata=metadata, tensor=make_tensor_proto(text.encode()))


def _table_text(entry: Shown) -> str:
    page = entry.path.with_suffix(".md")
    return page.read_text(encoding="utf-8") if page.is_file() else f"{entry.title}\n\n{entry.caption}"


def _image(entry: Shown) -> Any:
    with Image.open(entry.path) as picture:
        width, height = picture.size
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=entry.path.read_bytes())
    return Summary.Value(tag=f"figures/{entry.name}", image=image)
