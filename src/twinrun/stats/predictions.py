"""What accuracy hides: churn, the share of test examples on which two runs disagree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.intp]


def predicted_classes(probabilities: NDArray[np.floating]) -> Classes:
    """The class of the highest probability, (examples, classes) -> (examples,); the first of equals on a tie.

    >>> predicted_classes(np.array([[0.2, 0.8], [0.5, 0.5]])).tolist()
    [1, 0]
    """
    classes: Classes = np.argmax(probabilities, axis=-1)
    return classes


def churn(first: NDArray[np.integer], second: NDArray[np.integer]) -> float:
    """Share of examples whose predicted class differs between two runs; NaN without examples.

    >>> churn(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    0.25
    """
    if first.shape != second.shape:
        raise ValueError(f"predictions of shapes {first.shape} and {second.shape}")
    return float(np.mean(first != second)) if first.size else math.nan


def error(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Share of examples whose predicted class is not the label: churn against the truth.

    >>> error(np.array([0, 1]), np.array([0, 0]))
    0.5
    """
    return churn(predicted, labels)


def class_counts(predictions: Iterable[NDArray[np.integer]], examples: int, classes: int) -> NDArray[np.int64]:
    """How many runs predict each class for each example, (examples, classes); one run in memory at a time.

    >>> class_counts([np.array([0, 1]), np.array([0, 0])], 2, 2).tolist()
    [[2, 0], [1, 1]]
    """
    counts = np.zeros((examples, classes), np.int64)
    rows = np.arange(examples)
    for predicted in predictions:
        counts[rows, predicted] += 1
    return counts


def mean_churn(counts: NDArray[np.int64], runs: int) -> float:
    """Churn averaged over all pairs of `runs` runs, from `class_counts`; NaN for fewer than two runs or no examples.

    Of R runs, (R^2 - sum_c counts_c^2) / 2 pairs disagree on an example: O(R) where pairs would be O(R^2), and exact,
    because everything before the division is a whole number.

    >>> mean_churn(np.array([[2, 0], [1, 1]]), 2)
    0.5
    """
    if runs < 2 or not len(counts):
        return math.nan
    disagreeing = (len(counts) * runs * runs - int(np.square(counts).sum())) // 2
    return disagreeing / (len(counts) * runs * (runs - 1) // 2)


def churn_between(counts: Sequence[NDArray[np.int64]], runs: Sequence[int]) -> float:
    """Churn averaged over all pairs of runs of two different groups, from each group's `class_counts` and its size.

    >>> churn_between([np.array([[2, 0], [1, 1]]), np.array([[1, 0], [0, 1]])], [2, 1])
    0.25
    """
    groups = [(part, size) for part, size in zip(counts, runs, strict=True) if size]
    if len(groups) < 2 or not len(groups[0][0]):
        return math.nan

    def disagreeing(part: NDArray[np.int64], size: int) -> int:
        return (len(part) * size * size - int(np.square(part).sum())) // 2

    together, total = np.sum([part for part, _ in groups], axis=0), sum(size for _, size in groups)
    apart = disagreeing(together, total) - sum(disagreeing(part, size) for part, size in groups)
    return apart / (len(together) * pairs_between(runs))


def pairs_between(runs: Sequence[int]) -> int:
    """How many pairs there are of runs of two different groups of these sizes."""
    return (sum(runs) ** 2 - sum(size**2 for size in runs)) // 2


def flip_shares(counts: NDArray[np.int64], runs: int) -> NDArray[np.float64]:
    """Share of the pairs of runs that disagree on each example, (examples,), from `class_counts` of two runs or more.

    >>> flip_shares(np.array([[2, 0], [1, 1]]), 2).tolist()
    [0.0, 1.0]
    """
    shares: NDArray[np.float64] = (runs * runs - np.square(counts).sum(axis=1)) / (runs * (runs - 1))
    return shares


def most_flipping(shares: list[NDArray[np.float64]], most: int) -> tuple[list[int], NDArray[np.float64]]:
    """Places of the up to `most` examples that flip most, mean over groups of runs, and that mean of every example.

    Examples that never flip are left out; of equals the first is first.

    >>> most_flipping([np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 0.0])], 3)[0]
    [1, 2]
    """
    # fsum: the same bits whatever the order of the groups.
    means = np.array([math.fsum(column) / len(shares) for column in zip(*shares, strict=True)])
    order = np.lexsort((np.arange(len(means)), -means))[:most]
    return [int(place) for place in order if means[place] > 0], means


def churn_over_error(churn_value: float, error_value: float) -> float:
    """Churn divided by test error, about 1 when twins differ as much as they err; NaN when there is no error.

    >>> churn_over_error(0.1, 0.05)
    2.0
    """
    return churn_value / error_value if error_value > 0 else math.nan
