"""The images that flip most, as a small array beside the collected numbers: only where the licence allows pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinrun.collect.load import read_array
from twinrun.stats import churn as predictions
from twinrun.study.errors import MismatchError

TOP_IMAGES = 10  # of each task
LARGEST = 128  # pixels: larger images are made smaller by averaging whole blocks


def write_pictures(
    folder: Path, prepared: Path, first: int, probabilities: NDArray[np.float32], cells: list[list[int]]
) -> list[int]:
    """Write flipping.npy, the images that flip most, into `folder`; returns their places among the test images.

    `first` is where the test images begin in the prepared task; the rest is that of `flipping_places`.
    """
    places = flipping_places(probabilities, cells)
    np.save(folder / "flipping.npy", pictures(prepared / "images.npy", first, places))
    return places


def flipping_places(probabilities: NDArray[np.float32], cells: list[list[int]], most: int = TOP_IMAGES) -> list[int]:
    """Places of the test images on which the nd runs of a cell disagree most, mean over the cells.

    `cells` lists, for each cell, the rows of its complete nd runs in `probabilities` (runs, examples, classes).

    >>> classes = np.array([[0, 0, 1], [0, 1, 1]])
    >>> flipping_places(np.eye(2, dtype=np.float32)[classes], [[0, 1]])
    [1]
    """
    shares, (_, examples, classes) = [], probabilities.shape
    for rows in cells:
        if len(rows) > 1:
            predicted = (predictions.predicted_classes(probabilities[row]) for row in rows)
            counts = predictions.class_counts(predicted, examples, classes)
            shares.append(predictions.flip_shares(counts, len(rows)))
    return predictions.most_flipping(shares, most)[0] if shares else []


def pictures(images: Path, first: int, places: list[int]) -> NDArray[np.uint8]:
    """The packed images at `first` + `places`, (images, channels, side, side), at most `LARGEST` pixels a side.

    Raises InputError when the packed images are missing, MismatchError when they are damaged or too few.
    """
    again = "run `twinrun prepare` again"
    packed = read_array(images, again)
    if packed.ndim != 4 or packed.dtype != np.uint8 or len(packed) < first + max(places, default=-1) + 1:
        raise MismatchError(f"{images}: not the packed images of this task", again)
    chosen: NDArray[np.uint8] = np.array([packed[first + place] for place in places], np.uint8)
    chosen = chosen.reshape(len(places), *packed.shape[1:])
    block = -(-chosen.shape[-1] // LARGEST)
    if block == 1:
        return chosen
    side = chosen.shape[-1] // block
    kept = chosen[:, :, : side * block, : side * block]
    blocks = kept.reshape(*kept.shape[:2], side, block, side, block)
    smaller: NDArray[np.uint8] = np.rint(blocks.mean(axis=(3, 5))).astype(np.uint8)
    return smaller
