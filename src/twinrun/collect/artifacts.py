"""The files that one run leaves beside its record: curve, predictions with features, weights."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from twinrun.study.errors import MismatchError, TwinrunError
from twinrun.study.files import DAMAGED_ARRAY, explain_os_error
from twinrun.study.layout import CURVE, CURVE_COLUMNS, PREDICTIONS, WEIGHTS

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """What one run recorded of its weights at its checkpoints."""

    epochs: tuple[int, ...]
    heads: Floats  # (checkpoints, parameters): the last layer whole, weight before bias, flattened
    head_shapes: dict[str, list[int]]  # of weight and bias, as they were in the network
    layers: dict[str, Layer]  # every other tensor, in the network's order
    samples: Floats  # (checkpoints, coordinates): their recorded coordinates, one layer after the other


class Layer(TypedDict):
    """A tensor outside the head."""

    shape: list[int]
    recorded: int  # coordinates; all of them, or a sample


def unreadable(path: Path, error: Exception, damaged: TwinrunError) -> TwinrunError:
    """The error of a file that could not be read: `damaged`, unless the machine is at fault and not the file.

    An offset that no file can have, as a damaged archive names it, is EINVAL. safetensors puts the number into words.
    """
    said = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) and error.errno else int(said[1]) if said else None
    if number in (None, errno.ENOENT, errno.EINVAL):
        return damaged
    return explain_os_error(OSError(number, os.strerror(number)), path)


def read_curve(folder: Path) -> list[list[str]]:
    """The rows of curve.csv as text, so that numbers pass through unchanged.

    Raises MismatchError for another header, a missing epoch or a cell that is no number.
    """
    path = folder / CURVE
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            header, *rows = csv.reader(stream)
    except (OSError, ValueError) as error:
        raise unreadable(path, error, MismatchError(f"{path}: cannot be read ({error})")) from error
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
    except (OSError, *DAMAGED_ARRAY) as error:
        damaged = MismatchError(f"{path}: not the arrays probabilities and labels ({error})")
        raise unreadable(path, error, damaged) from error
    if probabilities.dtype != np.float32 or probabilities.ndim != 2 or labels.dtype != np.int64:
        raise MismatchError(f"{path}: probabilities are float32 (n, classes), labels int64 (n,)")
    if labels.shape != probabilities.shape[:1]:
        raise MismatchError(f"{path}: {len(probabilities)} predictions for {labels.size} labels")
    if probabilities.size and not (probabilities.min() >= 0 and probabilities.max() <= 1 + 1e-5):  # nor NaN
        raise MismatchError(f"{path}: probabilities that are no numbers from 0 to 1")
    if labels.size and not (labels.min() >= 0 and labels.max() < probabilities.shape[1]):
        raise MismatchError(f"{path}: labels that are none of the {probabilities.shape[1]} classes")
    return probabilities, labels


def read_features(folder: Path) -> Floats | None:
    """Features (images, features) of the recorded test images; None where none were recorded."""
    path = folder / PREDICTIONS
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features: Floats | None = arrays.get("features")
    except (OSError, *DAMAGED_ARRAY) as error:
        raise unreadable(path, error, MismatchError(f"{path}: cannot be read ({error})")) from error
    if features is not None and (features.dtype != np.float32 or features.ndim != 2):
        raise MismatchError(f"{path}: features are float32 (images, features)")
    return features


def read_weights(folder: Path) -> Weights:
    """The head and the samples of the other layers at every checkpoint that the run reached."""
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="numpy") as file:
            described = json.loads((file.metadata() or {})["parameters"])
            tensors: dict[str, Floats] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        head, shapes = list(described["head"]), dict(described["shapes"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        damaged = MismatchError(f"{path}: not the recorded weights of a run ({error})")
        raise unreadable(path, error, damaged) from error
    checkpoints: dict[int, dict[str, Floats]] = {}
    for key, tensor in tensors.items():
        epoch, _, name = key.partition("/")
        if not epoch.isdecimal() or name not in shapes or tensor.dtype != np.float32:
            raise MismatchError(f"{path}: {key!r} is not <epoch>/<parameter> in float32")
        checkpoints.setdefault(int(epoch), {})[name] = tensor
    epochs, others = tuple(sorted(checkpoints)), [name for name in shapes if name not in head]
    sizes = {name: tensor.size for name, tensor in checkpoints[epochs[0]].items()} if epochs else {}
    for number, checkpoint in checkpoints.items():
        if set(checkpoint) != set(shapes) or any(checkpoint[name].size != sizes[name] for name in checkpoint):
            raise MismatchError(f"{path}: epoch {number} has not every parameter, or one of another size")
        if any(list(checkpoint[name].shape) != shapes[name] for name in head):
            raise MismatchError(f"{path}: the head has another shape in epoch {number}")
    return Weights(
        epochs=epochs,
        heads=_flat([[checkpoints[epoch][name] for name in head] for epoch in epochs]),
        head_shapes={name.rpartition(".")[2]: shapes[name] for name in head},
        layers={name: Layer(shape=shapes[name], recorded=sizes.get(name, 0)) for name in others},
        samples=_flat([[checkpoints[epoch][name] for name in others] for epoch in epochs]),
    )


def _flat(checkpoints: list[list[Floats]]) -> Floats:
    rows = [np.concatenate([np.empty(0, np.float32), *map(np.ravel, tensors)]) for tensors in checkpoints]
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)
