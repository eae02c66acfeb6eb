"""Whether runs look normal: a test that can hardly say so for a few runs, and the points of a plot that shows it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from twinrun.stats import describe
from twinrun.stats.samples import UNDEFINED, Outcome, Sample, fault, sample

FEW = 20


def shapiro_wilk(values: ArrayLike) -> Outcome:
    """Shapiro-Wilk test of normality; W is near 1 for normal data. It needs three values that are not all equal.

    With ties among few values it is not defined. At n = 3 to 5 it says next to nothing: of samples of five values of
    an exponential distribution it rejects one in six.
    Source: Shapiro & Wilk (1965), p by Royston (1995).

    >>> result = shapiro_wilk([1.0, 2.0, 3.0, 4.0, 9.0])
    >>> print(f"{result.statistic:.3f} {result.p:.3f}")
    0.867 0.254
    """
    array = sample(values)
    n, method = (array.size,), "Shapiro-Wilk"
    reason = fault(array, 3, spread=True)
    if not reason and array.size < FEW and len(np.unique(array)) < array.size:
        # Three runs of which two agree, as accuracies on a small test set do, would have p = 0.
        reason = f"{UNDEFINED}ties among {array.size} values, the test assumes a continuous metric"
    sd = describe.sample_sd(array) if not reason else 0.0
    if reason or sd == 0:
        return Outcome.undefined(method, n, reason or "the SD is 0")
    result = stats.shapiro((array - describe.mean(array)) / sd)
    return Outcome(method, float(result.statistic), float(result.pvalue), n)


def normal_scores(values: ArrayLike) -> tuple[Sample, str]:
    """Each value as a standard normal score that takes the unknown mean and SD into account, and why there are none.

    The externally studentized residual of a normal sample has Student's t with n - 2 degrees of freedom, exactly; its
    probability is turned into a score. So scores of many small cells may be pooled in one Q-Q plot, which standardized
    residuals may not: those of five values never exceed 1.79. Source: Cook & Weisberg, Residuals and Influence in
    Regression (1982), sec. 2.2. It needs three values.

    >>> scores, _ = normal_scores([1.0, 2.0, 3.0, 4.0, 9.0])
    >>> [round(float(score), 2) for score in scores]
    [-0.86, -0.53, -0.23, 0.06, 2.32]
    """
    array = sample(values)
    reason = fault(array, 3, spread=True)
    sd = describe.sample_sd(array) if not reason else 0.0
    if reason or sd == 0:
        return np.empty(0), reason or f"{UNDEFINED}the SD is 0"
    n = array.size
    inner = (array - describe.mean(array)) / (sd * math.sqrt((n - 1) / n))
    # n - 1 is reached only when all other values are equal: an infinite residual, kept finite.
    rest = np.maximum(n - 1 - inner**2, 1e-12)
    return special.ndtri(special.stdtr(n - 2, inner * np.sqrt((n - 2) / rest))), ""


def plot_positions(n: int) -> Sample:
    """Where the ordered scores of n normal values are expected (Blom 1958): the horizontal places of a Q-Q plot.

    >>> [round(float(place), 2) for place in plot_positions(3)]
    [-0.87, 0.0, 0.87]
    """
    places: Sample = special.ndtri((np.arange(1, n + 1) - 0.375) / (n + 0.25))
    return places
