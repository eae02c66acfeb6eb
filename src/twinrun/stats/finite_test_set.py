"""How much of the spread over runs the finite test set makes: the runs of an endless one would differ less."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from twinrun.stats.samples import CONFIDENCE, UNDEFINED, Interval

WIDEST = 0.9  # an interval of a share that is wider says nothing


@dataclass(frozen=True)
class TestSetPart:
    """The variance of accuracy over runs, split into that of the finite test set and the rest."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    n: int  # runs
    sd: float  # of the accuracies, 1/(n - 1)
    sd_independent: float  # what independent errors would give: sqrt(sum of the examples' variances) / examples
    variance_rest: float  # unbiased estimate for an endless test set; may be negative


def test_set_part(correct: NDArray[np.bool_]) -> TestSetPart:
    """Split the variance of accuracy over runs, from `correct` (runs, examples) (Jordan 2023, theorem on variance).

    With V the sample variance of the accuracies, v_i that of example i being right and N examples, the variance over an
    endless test set is estimated without bias by N / (N - 1) (V - sum(v_i) / N^2), which is the mean covariance of two
    different examples. Defined for means over examples, such as accuracy: not for F1 and AUC.

    >>> test_set_part(np.array([[True, False], [False, True]])).variance_rest  # examples that err in turn
    -0.5
    """
    runs, examples = correct.shape
    if runs < 2 or examples < 2:
        return TestSetPart(runs, math.nan, math.nan, math.nan)
    right = correct.sum(axis=1, dtype=np.int64)
    counts = correct.sum(axis=0, dtype=np.int64)
    # Whole numbers up to one division each: no rounding that depends on the order of the runs.
    squares = runs * int(np.square(right).sum()) - int(right.sum()) ** 2
    own = int((counts * (runs - counts)).sum())
    variance = squares / (runs * (runs - 1) * examples**2)
    rest = (squares - own) / (runs * (runs - 1) * examples * (examples - 1))
    independent = math.sqrt(own / (runs * (runs - 1))) / examples
    return TestSetPart(runs, math.sqrt(variance), independent, rest)


def finite_test_share(cells: Iterable[TestSetPart]) -> Interval:
    """Share of the variance of accuracy over runs that comes from the finite test set, pooled over cells.

    With V the variance of the accuracies and q what independent errors make of it, the share is 1 - N / (N - 1)
    (1 - q / V) (Jordan 2023, theorem on variance). Both are summed over the cells, weighted by degrees of freedom: a
    mean or median of the cells' ratios reads 0.64, 0.87 and 1.99 at 5, 3 and 2 runs where 0.51 is true. The interval
    is the 95 % chi-square one of V, q taken as known, and none where it is wider than 0.9. All are cut at 0 and 1.

    >>> right = np.arange(10) < np.array([[6], [9], [7], [8]])
    >>> print(f"{finite_test_share([test_set_part(right)]).value:.2f}")
    0.44
    """
    kept = [cell for cell in cells if not math.isnan(cell.sd)]
    df = sum(cell.n - 1 for cell in kept)
    method = "pooled, chi-square"
    if not kept:
        return Interval(None, None, None, 0, method, f"{UNDEFINED}no cell with two runs and two images")
    total, own, rest = (
        math.fsum((cell.n - 1) * value for cell, value in zip(kept, values, strict=True))
        for values in (
            [cell.sd**2 for cell in kept],
            [cell.sd_independent**2 for cell in kept],
            [cell.variance_rest for cell in kept],
        )
    )
    if total == 0:
        return Interval(None, None, None, df, method, f"{UNDEFINED}all runs are equally accurate")
    value, ratio = min(max(1 - rest / total, 0.0), 1.0), own / total
    tail = (1 - CONFIDENCE) / 2
    low, high = (ratio * float(special.chdtri(df, share)) / df for share in (1 - tail, tail))
    low, high = min(low, 1.0), min(high, 1.0)
    if high - low > WIDEST:
        why = f"{UNDEFINED}{df} degrees of freedom leave anything from {low:.2f} to {high:.2f}"
        return Interval(value, None, None, df, method, why)
    return Interval(value, low, high, df, method)
