"""The arrays of a collected study, written a run at a time and read back, held against what the tables say of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.typing import ArrayLike, DTypeLike, NDArray

from twinrun.collect.load import AGAIN, check_labels, read_array, read_frame
from twinrun.collect.schema import RECORDED
from twinrun.study.errors import MismatchError

MAPPED_RUNS = 32  # whose probabilities are mapped at a time
ROUNDING = 1e-5  # of probabilities in float32


@dataclass(frozen=True, eq=False)
class StudyArrays:
    """The folder, study.json and results.csv of a study, and the arrays that belong to their rows."""

    folder: Path
    info: dict[str, Any]
    results: pd.DataFrame

    @property
    def imported(self) -> dict[str, Any] | None:
        """What is known of results that were made elsewhere; None for a study collected from records."""
        imported: dict[str, Any] | None = self.info.get("imported")
        return imported

    def records(self, what: str) -> bool:
        """Whether `predictions`, `probabilities`, `weights`, `measurements` or `deterministic` runs were recorded."""
        if what == "deterministic":
            return self.imported is None or bool((self.results["arm"] == "det").any())
        return what in (RECORDED if self.imported is None else self.imported["recorded"])

    def classes(self, task: str) -> list[str]:
        """The names of a task's classes."""
        return [str(name) for name in self.info["tasks"][task]["classes"]]

    def column(self, name: str) -> NDArray[Any]:
        """A column of `results` as an array, made once: a study may have thousands of cells."""
        if name not in self._columns:
            self._columns[name] = self.results[name].to_numpy()
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return {}

    def stream(self, task: str, rows: list[int]) -> Iterator[NDArray[np.float32]]:
        """Class probabilities (test examples, classes) of some runs of a task, one after the other.

        Where classes alone were recorded, theirs is 1. Raises MismatchError for a complete run whose probabilities are
        none.
        """
        classes = np.arange(len(self.classes(task)))
        for start in range(0, len(rows), MAPPED_RUNS):
            # Mapped anew every few runs: the pages that were read are given back.
            mapped = self.probabilities(task) if self.records("probabilities") else self.predictions(task)
            for row in rows[start : start + MAPPED_RUNS]:
                values = np.array(mapped[row])
                if values.ndim == 1:
                    values = (values[:, None] == classes).astype(np.float32)
                low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
                if not (low >= 0 and high <= 1 + ROUNDING):  # nor NaN
                    run = self.results.loc[(self.results["task"] == task) & (self.results["row"] == row), "id"].iloc[0]
                    path, what = self.folder / task / "probabilities.npy", "outside of 0 to 1"
                    what = what if math.isfinite(low) and math.isfinite(high) else "that are no numbers"
                    raise MismatchError(f"{path}: {run} is complete, but has probabilities {what}", AGAIN)
                yield values

    def _hold_predictions(self, task: str) -> None:
        """Hold the accuracies of results.csv against the predictions: MismatchError."""
        runs = self.results[(self.results["task"] == task) & (self.results["status"] == "complete")]
        labels = self.labels(task)
        if len(runs) and (labels < 0).any():
            path = self.folder / task / "labels.npy"
            raise MismatchError(f"{path}: no labels, though {runs['id'].iloc[0]} is complete", AGAIN)
        predicted = self.stream(task, runs["row"].tolist())
        for run, accuracy, values in zip(runs["id"], runs["accuracy"], predicted, strict=True):
            right = int((values.argmax(axis=1) == labels).sum()) / len(labels) if len(labels) else math.nan
            if not (right == accuracy or math.isnan(accuracy) or math.isnan(right)):
                said = f"{run} has accuracy {accuracy}, and {right} by its predictions"
                raise MismatchError(f"{self.folder / 'results.csv'}: {said}", AGAIN)

    def labels(self, task: str) -> NDArray[np.int64]:
        """True classes (test examples,)."""
        return read_array(self.folder / task / "labels.npy")

    def probabilities(self, task: str) -> NDArray[np.float32]:
        """Class probabilities (runs, test examples, classes), memory-mapped; NaN for a diverged run."""
        return read_array(self.folder / task / "probabilities.npy")

    def predictions(self, task: str) -> NDArray[np.integer]:
        """Predicted classes (runs, test examples) of an import without probabilities, memory-mapped."""
        return read_array(self.folder / task / "predictions.npy")

    def heads(self, task: str) -> NDArray[np.float32]:
        """Head weights (runs, checkpoints, parameters), memory-mapped; NaN where a run diverged."""
        return read_array(self.folder / task / "heads.npy")

    def layers_of(self, task: str) -> list[dict[str, Any]]:
        """Name, shape and number of recorded coordinates of every tensor outside the head, in the network's order."""
        return list(self.info["tasks"][task].get("layers", []))

    def layer_rows(self, task: str) -> list[int]:
        """The rows of the task's arrays whose layers and features were collected, as the two arrays have them."""
        return list(self.info["tasks"][task].get("layer_rows", []))

    def layers(self, task: str) -> NDArray[np.float32]:
        """Recorded coordinates (kept runs, checkpoints, coordinates of all layers), memory-mapped."""
        return read_array(self.folder / task / "layers.npy")

    def features_shape(self, task: str) -> tuple[int, int] | None:
        """Test images and features that were recorded of each run; None where none were."""
        shape = self.info["tasks"][task].get("features_shape")
        return (int(shape[0]), int(shape[1])) if shape else None

    def features(self, task: str) -> NDArray[np.float32]:
        """Features after the last epoch (kept runs, test images, features), memory-mapped."""
        return read_array(self.folder / task / "features.npy")

    def image_ids(self, task: str) -> list[str]:
        """The test images' ids in the data; `test image 7` where they were not collected."""
        path = self.folder / task / "ids.csv"
        if not os.path.lexists(path):
            return [f"test image {index}" for index in range(self.info["tasks"][task]["n_test"])]
        ids = list(map(str, read_frame(path, ("id",), ("id",))["id"]))
        if len(ids) != self.info["tasks"][task]["n_test"]:
            raise MismatchError(f"{path}: {len(ids)} ids for the test images of study.json", AGAIN)
        return ids

    def head_epochs(self, task: str) -> list[int]:
        """The epochs of the checkpoints; 0 is the initialization."""
        return list(self.info["tasks"][task].get("head_epochs", []))

    def check_arrays(self) -> None:
        """Raise MismatchError for an array of another shape than the tables say, and labels that are no classes."""
        for task in self.info["grid"]["tasks"]:
            described, runs = self.info["tasks"][task], int((self.results["task"] == task).sum())
            n_test, classes = described["n_test"], len(described["classes"])
            wanted: dict[str, tuple[int, ...]] = {"labels.npy": (n_test,)}
            if self.records("probabilities"):
                wanted["probabilities.npy"] = (runs, n_test, classes)
            else:
                wanted["predictions.npy"] = (runs, n_test)
            if self.records("weights"):
                wanted["heads.npy"] = (runs, len(described["head_epochs"]), described["head_size"])
            kept = len(self.layer_rows(task))
            if layers := self.layers_of(task):
                wanted["layers.npy"] = (kept, len(described["head_epochs"]), sum(layer["recorded"] for layer in layers))
            if features := self.features_shape(task):
                wanted["features.npy"] = (kept, *features)
            for name, shape in wanted.items():
                path = self.folder / task / name
                actual = read_array(path).shape
                if actual != shape:
                    raise MismatchError(f"{path}: shape {actual}, but results.csv and self.json say {shape}", AGAIN)
            check_labels(self.labels(task), classes, self.folder / task / "labels.npy")
            self._hold_predictions(task)


class RowWriter:
    """Takes the rows of an array one after the other.

    Written plainly, for a mapped file on a full disk ends the process without a word.
    """

    def __init__(self, stream: BinaryIO, dtype: np.dtype[Any], row: tuple[int, ...]) -> None:
        self._stream, self._dtype, self._row = stream, dtype, row

    def add(self, row: ArrayLike | None) -> None:
        """Write a row; a single number fills it."""
        whole = np.broadcast_to(np.asarray(row, self._dtype), self._row)
        self._stream.write(np.ascontiguousarray(whole).data)


@contextmanager
def written_rows(path: Path, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Iterator[RowWriter]:
    """A .npy file of this shape, whose rows are then added; OSError when there is no room."""
    kind = np.dtype(dtype)
    with path.open("wb") as stream:
        header = {"descr": npy.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(stream, header)
        yield RowWriter(stream, kind, shape[1:])
