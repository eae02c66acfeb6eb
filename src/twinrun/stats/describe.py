"""Mean and SD of a few numbers, in plain arithmetic: NaN without values, as numpy has it.

Everything that says more than a number (intervals, tests, effects) is a result with a reason where it is not defined.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from twinrun.stats.samples import UNDEFINED, Estimate, one_dimensional


def mean(values: ArrayLike) -> float:
    """Arithmetic mean; NaN without values. Correctly rounded, so that the order of the values does not matter.

    >>> mean([0.25, 0.75])
    0.5
    """
    array = one_dimensional(values)
    return _sum(array) / array.size if array.size else math.nan


def _sum(array: NDArray[np.float64]) -> float:
    # fsum rounds once: the same bits in any order. It raises for a mix of infinities, which has no sum.
    return math.fsum(array) if np.isfinite(array).all() else math.nan


def _sum_of_squares(values: ArrayLike) -> tuple[int, float]:
    array = one_dimensional(values)
    # Equal values have no spread; without this, rounding of their mean would show as one.
    if array.size and np.all(array == array[0]):
        return array.size, 0.0
    return array.size, _sum(np.square(array - mean(array)))


def population_sd(values: ArrayLike) -> float:
    """SD with 1/n, as in the thesis's figures (eq. 5.1); NaN without values, 0 for a single one.

    >>> population_sd([1.0, 3.0])
    1.0
    """
    n, squares = _sum_of_squares(values)
    return math.sqrt(squares / n) if n else math.nan


def sample_sd(values: ArrayLike) -> float:
    """SD with 1/(n - 1), whose square is unbiased; NaN for fewer than two values.

    >>> sample_sd([1.0, 2.0, 3.0])
    1.0
    """
    n, squares = _sum_of_squares(values)
    return math.sqrt(squares / (n - 1)) if n > 1 else math.nan


def sd_factors(n: float, confidence: float = 0.95) -> tuple[float, float]:
    """What to multiply a sample SD of `n` >= 2 values by for its chi-square interval.

    >>> print("{:.2f} {:.2f}".format(*sd_factors(5)))
    0.60 2.87
    """
    tail = (1 - confidence) / 2
    upper, lower = float(stats.chi2.isf(tail, n - 1)), float(stats.chi2.ppf(tail, n - 1))
    return (math.sqrt((n - 1) / upper), math.sqrt((n - 1) / lower))


def difference_percent(deterministic: float, free_mean: float) -> Estimate:
    """100 (det - nd) / nd, as in Tables 5.1-5.3.

    >>> difference_percent(99.0, 100.0).value
    -1.0
    """
    if math.isnan(free_mean) or math.isnan(deterministic):
        return Estimate(None, f"{UNDEFINED}a mean is missing")
    if free_mean == 0:
        return Estimate(None, f"{UNDEFINED}the mean of the free runs is 0")
    return Estimate(100 * (deterministic - free_mean) / free_mean)
