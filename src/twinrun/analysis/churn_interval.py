"""The interval of churn: a bootstrap over both the test images and the runs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
DIRECT_RUNS = 30  # of more runs the linear part of churn is drawn: pairs would be too many
SCHEME = (
    f"95 % percentile interval of {DRAWS} draws, each of which takes the test images and, apart from them, the runs "
    "anew with replacement; a pair of a run with itself does not count (of two runs only the images vary)"
)

Interval = tuple[float, float]


def churn_interval(predicted: NDArray[np.integer], classes: int, rng: np.random.Generator) -> Interval:
    """95 % interval of the mean pairwise churn of `predicted` (runs, examples); (NaN, NaN) where churn is not defined.

    Images and runs are drawn independently (the pigeonhole bootstrap of Owen 2007). It errs on the wide side (it
    covered 94 to 99 % in simulation) unless few runs differ strongly from each other in many images (89 % at n = 5).

    >>> same = np.zeros((3, 50), np.int64)
    >>> churn_interval(same, 2, np.random.default_rng(0))
    (0.0, 0.0)
    """
    runs, examples = predicted.shape
    if runs < 2 or not examples:
        return (math.nan, math.nan)
    values = _direct(predicted, rng) if runs <= DIRECT_RUNS else _linear(predicted, classes, rng)
    low, high = np.quantile(values, [0.025, 0.975])
    return (float(low), float(high))


def _direct(predicted: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.float64]:
    runs, examples = predicted.shape
    first, second = np.triu_indices(runs, 1)
    differs = (predicted[first] != predicted[second]).T
    # Images on which the same pairs disagree are alike: what is drawn is how often each pattern comes.
    packed = np.packbits(differs, axis=1)
    _, chosen, counts = np.unique(packed, axis=0, return_index=True, return_counts=True)
    of_image = rng.multinomial(examples, counts / examples, size=DRAWS).astype(np.float64)
    of_run = rng.multinomial(runs, np.full(runs, 1 / runs), size=DRAWS)
    weights = (of_run[:, first] * of_run[:, second]).astype(np.float64)
    # Whole numbers below 2^53 throughout: the same bits in any order of summation.
    disagreeing = (of_image @ differs[chosen].astype(np.float64) * weights).sum(axis=1)
    pairs = weights.sum(axis=1)
    values: NDArray[np.float64] = disagreeing[pairs > 0] / (examples * pairs[pairs > 0])
    return values


def _linear(predicted: NDArray[np.integer], classes: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws of churn's projection on images and on runs: mean of g_i plus twice the mean of h_r, less twice churn."""
    runs, examples = predicted.shape
    columns = np.arange(examples)
    counts = np.zeros((examples, classes), np.int64)
    for row in predicted:
        counts[columns, row] += 1
    disagreeing = runs * runs - np.square(counts).sum(axis=1)
    of_run = np.array([int((runs - counts[columns, row]).sum()) for row in predicted])
    values, times = np.unique(disagreeing, return_counts=True)
    images = rng.multinomial(examples, times / examples, size=DRAWS) @ values / (examples * runs * (runs - 1))
    drawn = rng.multinomial(runs, np.full(runs, 1 / runs), size=DRAWS) @ of_run / (runs * examples * (runs - 1))
    churn = int(disagreeing.sum()) / (examples * runs * (runs - 1))
    linear: NDArray[np.float64] = np.maximum(images + 2 * (drawn - churn), 0.0)
    return linear
