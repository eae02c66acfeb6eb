"""The files that one run leaves beside its record: curve, predictions, head weights."""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from twinrun.study.errors import MismatchError
from twinrun.study.layout import CURVE, CURVE_COLUMNS, HEADS, PREDICTIONS

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Heads:
    """The last layer of one run at its checkpoints."""

    epochs: tuple[int, ...]
    vectors: Floats  # (checkpoints, parameters): weight, then bias, flattened
    shapes: dict[str, list[int]]  # of weight and bias, as they were in the network


def read_curve(folder: Path) -> list[list[str]]:
    """The rows of curve.csv as text, so that numbers pass through unchanged.

    Raises MismatchError for another header, a missing epoch or a cell that is no number.
    """
    path = folder / CURVE
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            header, *rows = csv.reader(stream)
    except (OSError, ValueError) as error:
        raise MismatchError(f"{path}: cannot be read ({error})") from error
    if tuple(header) != CURVE_COLUMNS:
        raise MismatchError(f"{path}: its header is not {','.join(CURVE_COLUMNS)}")
    for number, row in enumerate(rows, 1):
        if len(row) != len(CURVE_COLUMNS) or row[0] != str(number):
            raise MismatchError(f"{path}: row {number} is not that of epoch {number}")
        if not all(_is_number(cell) for cell in row[1:-1]):
            raise MismatchError(f"{path}: epoch {number} holds something that is no number")
    return rows


def _is_number(cell: str) -> bool:
    # An empty cell is a metric that is not defined; nan and inf are how a diverging run looks.
    try:
        float(cell or 0)
    except ValueError:
        return False
    return True


def read_predictions(folder: Path) -> tuple[Floats, NDArray[np.int64]]:
    """Class probabilities (test examples, classes) and true labels (test examples,).

    A run that diverged has zero rows. Raises MismatchError for other arrays, types or shapes.
    """
    path = folder / PREDICTIONS
    try:
        with np.load(path, allow_pickle=False) as arrays:
            probabilities, labels = arrays["probabilities"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise MismatchError(f"{path}: not the arrays probabilities and labels ({error})") from error
    if probabilities.dtype != np.float32 or probabilities.ndim != 2 or labels.dtype != np.int64:
        raise MismatchError(f"{path}: probabilities are float32 (n, classes), labels int64 (n,)")
    if labels.shape != probabilities.shape[:1]:
        raise MismatchError(f"{path}: {len(probabilities)} predictions for {labels.size} labels")
    return probabilities, labels


def read_heads(folder: Path) -> Heads:
    """The head at every checkpoint that the run reached."""
    path = folder / HEADS
    try:
        tensors: dict[str, Any] = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise MismatchError(f"{path}: not a safetensors file ({error})") from error
    checkpoints: dict[int, dict[str, Floats]] = {}
    for key, tensor in tensors.items():
        epoch, _, part = key.partition("/")
        if not epoch.isdecimal() or part not in ("weight", "bias") or tensor.dtype != np.float32:
            raise MismatchError(f"{path}: {key!r} is not <epoch>/weight or <epoch>/bias in float32")
        checkpoints.setdefault(int(epoch), {})[part] = tensor
    epochs = tuple(sorted(checkpoints))
    shapes: list[dict[str, list[int]]] = [
        {part: list(checkpoints[epoch][part].shape) for part in ("weight", "bias") if part in checkpoints[epoch]}
        for epoch in epochs
    ]
    if any(shape != shapes[0] for shape in shapes) or (shapes and "weight" not in shapes[0]):
        raise MismatchError(f"{path}: the head has another shape at some checkpoint")
    vectors = [np.concatenate([checkpoints[epoch][part].ravel() for part in shapes[0]]) for epoch in epochs]
    return Heads(epochs, np.stack(vectors) if vectors else np.empty((0, 0), np.float32), shapes[0] if shapes else {})
