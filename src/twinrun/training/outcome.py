"""What a run leaves behind: its files written beside the target and put there in one step."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from twinrun.study.files import sha256_file, write_bytes, write_text
from twinrun.study.folders import replaced_folder
from twinrun.study.layout import COMPUTED_FILES, CURVE, CURVE_COLUMNS, MEASURED, MODEL, PREDICTIONS, RECORD, WEIGHTS
from twinrun.study.records import Measured, Record, write_record
from twinrun.training.environment import environment_variables, host_facts, versions


class Predictions(NamedTuple):
    """Of every test example: class probabilities (n, classes) float32, label (n,) int64, log-probabilities in float64.

    The last keep the order of confident predictions, whose float32 probabilities are all 1.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    log_probabilities: NDArray[np.float64]


def no_predictions(classes: int) -> Predictions:
    """What a diverged run predicts."""
    return Predictions(np.zeros((0, classes), np.float32), np.zeros(0, np.int64), np.zeros((0, classes)))


@dataclass(frozen=True)
class Outcome:
    """A finished run, before it is written."""

    record: Record  # its `files` are filled in when they are written
    curve: list[dict[str, Any]]
    predictions: Predictions
    weights: dict[str, torch.Tensor]
    shapes: str  # of all parameters, as JSON
    features: NDArray[np.float32] | None  # (images, features); None: not wanted, or the run diverged
    model: bytes | None  # the trained network as a file; None: not wanted
    seconds: dict[str, float] | None
    energy: tuple[float | None, str]
    idle_watts: float | None
    started: datetime
    attempts: int
    shared: bool
    device: torch.device


def publish(folder: Path, result: Outcome) -> Record:
    """Write the record folder whole or not at all, in place of an older one; return the record as written."""
    with replaced_folder(folder, (RECORD, MEASURED, *COMPUTED_FILES, MODEL), locked=True) as temporary:
        write_text(temporary / CURVE, _curve_text(result.curve))
        arrays: dict[str, NDArray[Any]] = {
            "probabilities": result.predictions.probabilities,
            "labels": result.predictions.labels,
        }
        if result.features is not None:
            arrays["features"] = result.features
        write_bytes(temporary / PREDICTIONS, npz(arrays))
        # One entry of metadata: safetensors writes several in any order.
        write_bytes(temporary / WEIGHTS, save(result.weights, metadata={"parameters": result.shapes}))
        names = [*COMPUTED_FILES]
        if result.model is not None:
            write_bytes(temporary / MODEL, result.model)
            names.append(MODEL)
        files = {name: sha256_file(temporary / name) for name in names}
        record = result.record.model_copy(update={"files": files})
        seconds = result.seconds or {}
        measured = Measured(
            run=record.run,
            record_sha256="0" * 64,
            started=result.started.isoformat(timespec="milliseconds"),
            finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
            train_seconds=seconds.get("train"),
            eval_seconds=seconds.get("eval"),
            total_seconds=seconds.get("total"),
            energy_joules=result.energy[0],
            energy_note=result.energy[1],
            idle_watts=result.idle_watts,
            resumed=result.seconds is None,
            attempts=result.attempts,
            shared=result.shared,
            host=host_facts(result.device),
            versions=versions(result.device),
            environment=environment_variables(),
        )
        write_record(temporary, record, measured)
    return record


def npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    """What numpy.savez writes, in bytes that depend on the arrays alone.

    numpy asks zipfile for 64-bit headers, which Python 3.11.4 and newer write in another way than older ones (measured:
    3.11.2 and 3.11.7). Uncompressed, for zlib's output differs between its versions; every date is the same.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as members:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            members.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue())
    return archive.getvalue()


def _curve_text(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CURVE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:  # repr round-trips every float
        writer.writerow({key: repr(v) if isinstance(v, float) else v for key, v in row.items()})
    return buffer.getvalue()
