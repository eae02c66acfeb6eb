"""Equivalence: two one-sided tests (TOST) of whether a difference is smaller than a margin that matters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike
from scipy import special

from twinrun.stats import describe
from twinrun.stats.samples import UNDEFINED, fault, sample


@dataclass(frozen=True)
class Equivalence:
    """A difference, its 1 - 2 alpha interval and the p of TOST; None when they are not defined: see `reason`.

    Equivalent at alpha when p < alpha, which is when the interval lies within (-margin, margin).
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    margin: float
    df: float
    n: tuple[int, ...]
    reason: str = ""

    @classmethod
    def undefined(cls, margin: float, n: tuple[int, ...], reason: str) -> Equivalence:
        """No result."""
        text = reason if reason.startswith(UNDEFINED) else UNDEFINED + reason
        return cls(None, None, None, None, margin, math.nan, n, text)


def tost(
    difference: float, standard_error: float, df: float, margin: float, n: tuple[int, ...], alpha: float = 0.05
) -> Equivalence:
    """TOST from a difference with a t-distributed error: p = max of P(T > (d + m) / se) and P(T < (d - m) / se).

    Source: Schuirmann (1987), J. Pharmacokinetics and Biopharmaceutics 15, 657-680.

    >>> round(tost(0.1, 0.2, 10, 0.5, (6, 6)).p, 4)
    0.0367
    """
    if not margin > 0:
        raise ValueError(f"margin {margin}: an equivalence margin is above 0")
    if not standard_error > 0:
        return Equivalence.undefined(margin, n, "the standard error is 0")
    lower = float(special.stdtr(df, -(difference + margin) / standard_error))
    upper = float(special.stdtr(df, (difference - margin) / standard_error))
    half = float(special.stdtrit(df, 1 - alpha)) * standard_error
    return Equivalence(difference, difference - half, difference + half, max(lower, upper), margin, df, n)


def tost_against_one(values: ArrayLike, new: float, margin: float, alpha: float = 0.05) -> Equivalence:
    """Whether the arm that one new value comes from has the mean of `values` to within the margin (new - mean).

    The new value is taken for a draw with the same SD, so se = s sqrt(1 + 1/n) with n - 1 degrees of freedom: the
    prediction-interval test turned round. No number of values makes the interval narrower than a single draw is.

    >>> round(tost_against_one([1.0, 2.0, 3.0], 2.0, 5.0).p, 4)
    0.0247
    """
    array = sample(values)
    n = (array.size, 1)
    reason = fault(array, 2, spread=True) or fault(sample([new]), 1)
    if reason:
        return Equivalence.undefined(margin, n, reason)
    error = describe.sample_sd(array) * math.sqrt(1 + 1 / array.size)
    return tost(new - describe.mean(array), error, array.size - 1, margin, n, alpha)


def tost_paired(differences: ArrayLike, margin: float, alpha: float = 0.05) -> Equivalence:
    """Whether the mean of paired differences lies within the margin: se = s / sqrt(n), df n - 1.

    >>> round(tost_paired([-0.1, 0.0, 0.1], 0.5).p, 4)
    0.0065
    """
    array = sample(differences)
    reason = fault(array, 2, spread=True, name="differences")
    if reason:
        return Equivalence.undefined(margin, (array.size,), reason)
    error = describe.sample_sd(array) / math.sqrt(array.size)
    return tost(describe.mean(array), error, array.size - 1, margin, (array.size,), alpha)
