"""What accuracy hides: churn, the share of test examples on which two runs disagree."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.intp]


def predicted_classes(probabilities: NDArray[np.floating]) -> Classes:
    """The class of the highest probability, (examples, classes) -> (examples,); the first of equals on a tie."""
    classes: Classes = np.argmax(probabilities, axis=-1)
    return classes


def churn(first: NDArray[np.integer], second: NDArray[np.integer]) -> float:
    """Share of examples whose predicted class differs between two runs; NaN without examples."""
    if first.shape != second.shape:
        raise ValueError(f"predictions of shapes {first.shape} and {second.shape}")
    return float(np.mean(first != second)) if first.size else math.nan


def error(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Share of examples whose predicted class is not the label: churn against the truth."""
    return churn(predicted, labels)


def class_counts(predictions: Iterable[NDArray[np.integer]], examples: int, classes: int) -> NDArray[np.int64]:
    """How many runs predict each class for each example, (examples, classes); one run in memory at a time."""
    counts = np.zeros((examples, classes), np.int64)
    rows = np.arange(examples)
    for predicted in predictions:
        counts[rows, predicted] += 1
    return counts


def mean_churn(counts: NDArray[np.int64], runs: int) -> float:
    """Churn averaged over all pairs of `runs` runs, from `class_counts`; NaN for fewer than two runs or no examples.

    Of R runs, (R^2 - sum_c counts_c^2) / 2 pairs disagree on an example: O(R) where pairs would be O(R^2), and exact,
    because everything before the division is a whole number.
    """
    if runs < 2 or not len(counts):
        return math.nan
    disagreeing = (len(counts) * runs * runs - int(np.square(counts).sum())) // 2
    return disagreeing / (len(counts) * runs * (runs - 1) // 2)


def churn_over_error(churn_value: float, error_value: float) -> float:
    """Churn divided by test error, about 1 when twins differ as much as they err; NaN when there is no error."""
    return churn_value / error_value if error_value > 0 else math.nan
