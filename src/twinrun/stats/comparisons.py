"""Tests of one value against a sample and of paired values: the thesis's t-test, and the ones that are valid."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from twinrun.stats import describe as statistics
from twinrun.stats import effects
from twinrun.stats.samples import Outcome, Sample, fault, sample

EXACT_SIGNS_UP_TO = 14  # pairs: 2^14 sign patterns are all tried


def two_sided_t(t: float, df: float) -> float:
    """Two-sided p of Student's t.

    >>> round(two_sided_t(2.776, 4), 4)
    0.05
    """
    return float(2 * special.stdtr(df, -abs(t)))


def _against_one(values: ArrayLike, new: float, method: str, *, draw: bool) -> Outcome:
    array = sample(values)
    n = array.size
    reason = fault(array, 2, spread=True) or fault(sample([new]), 1)
    d = effects.d_against_one(array, new)
    if reason or d.value is None:
        return Outcome.undefined(method, (n,), reason or d.reason)
    t = d.value / math.sqrt((1 if draw else 0) + 1 / n)
    return Outcome(method, t, two_sided_t(t, n - 1), (n,), (n - 1,), d.value)


def one_sample_t(values: ArrayLike, reference: float) -> Outcome:
    """Table 5.5 of the thesis: t = (reference - mean) / (s / sqrt(n)) with n - 1 degrees of freedom.

    It takes `reference` for a known mean. Where it is a single run, use `prediction_test`: see `size_if_a_draw`.
    The effect is Cohen's d. The sign is that of reference - mean.

    >>> found = one_sample_t([1.0, 2.0, 3.0], 4.0)
    >>> print(f"{found.statistic:.3f} {found.p:.4f}")
    3.464 0.0742
    """
    return _against_one(values, reference, "one-sample t", draw=False)


def prediction_test(values: ArrayLike, new: float) -> Outcome:
    """Whether one new value may be a further draw: T = (new - mean) / (s sqrt(1 + 1/n)), df n - 1.

    That is the one-sample t over sqrt(n + 1). Source: Hahn & Meeker, Statistical Intervals (1991), sec. 4.7;
    Crawford & Howell (1998). The effect is Cohen's d.

    >>> found = prediction_test([1.0, 2.0, 3.0], 4.0)
    >>> print(f"{found.statistic:.3f} {found.p:.4f}")
    1.732 0.2254
    >>> prediction_test([1.0, 1.0], 2.0).reason
    'not defined: all 2 values are equal'
    """
    return _against_one(values, new, "prediction interval", draw=True)


def size_if_a_draw(n: int, alpha: float = 0.05) -> float:
    """How often `one_sample_t` rejects when the reference is just another draw: P(|T_{n-1}| > t_crit / sqrt(n + 1)).

    >>> [round(size_if_a_draw(n), 2) for n in (5, 10, 30)]
    [0.32, 0.51, 0.72]
    """
    if n < 2:
        raise ValueError(f"n = {n}: the test needs two values")
    critical = float(special.stdtrit(n - 1, 1 - alpha / 2))
    return two_sided_t(critical / math.sqrt(n + 1), n - 1)


def paired_t(differences: ArrayLike) -> Outcome:
    """Student's t of paired differences against 0; the effect is Cohen's d_z = mean / s.

    >>> found = paired_t([1.0, 2.0, 3.0])
    >>> print(f"{found.statistic:.3f} {found.p:.4f}")
    3.464 0.0742
    """
    array = sample(differences)
    n, method = array.size, "paired t"
    reason = fault(array, 2, spread=True, name="differences")
    sd = statistics.sample_sd(array)
    if reason or sd == 0:
        return Outcome.undefined(method, (n,), reason or "the differences have no spread")
    d = statistics.mean(array) / sd
    return Outcome(method, d * math.sqrt(n), two_sided_t(d * math.sqrt(n), n - 1), (n,), (n - 1,), d)


def signed_rank(differences: ArrayLike) -> Outcome:
    """Wilcoxon's signed-rank test of paired differences; W is the sum of the positive ranks.

    Exact without ties and zeros, which are left out (Wilcoxon 1945); by its normal approximation with ties and more
    than 13 pairs, exact over all sign patterns otherwise. With n pairs no p is below 2^(1-n): 0.0625 at n = 5. The
    effect is the matched-pairs rank-biserial correlation.

    >>> found = signed_rank([1.0, 2.0, 3.0, -0.5, 4.0, 5.0])
    >>> print(f"{found.statistic:.0f} {found.p:.4f}")
    20 0.0625
    """
    array, method = sample(differences), "signed rank"
    n, reason = array.size, fault(array, 1, name="differences")
    array = array[array != 0]
    if reason or not array.size:
        return Outcome.undefined(method, (n,), reason or f"all {n} differences are 0")
    ranks = stats.rankdata(np.abs(array))
    statistic = float(ranks[array > 0].sum())
    effect = effects.matched_rank_biserial(array).value
    if len(np.unique(ranks)) == array.size:
        exact = stats.wilcoxon(array, method="exact") if array.size <= 50 else stats.wilcoxon(array, method="approx")
        p = float(exact.pvalue)
    elif array.size <= EXACT_SIGNS_UP_TO:
        p = _sign_pattern_p(np.sign(array) * ranks)
    else:
        p = float(stats.wilcoxon(array, method="approx").pvalue)
    return Outcome(method, statistic, p, (n,), effect=effect)


def sign_permutation(differences: ArrayLike, rng: np.random.Generator, resamples: int = 9999) -> Outcome:
    """Whether the mean of paired differences is 0, over all changes of their signs (a random sample above 14 pairs).

    Source: Fisher, The Design of Experiments (1935), sec. 21; for the sample, (b + 1) / (m + 1) of Phipson & Smyth
    (2010). With n pairs no p is below 2^(1-n).

    >>> sign_permutation([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], np.random.default_rng(0)).p
    0.03125
    """
    array, method = sample(differences), "sign permutation"
    n, reason = array.size, fault(array, 1, name="differences")
    if reason or not array.any():
        return Outcome.undefined(method, (n,), reason or f"all {n} differences are 0")
    mean = statistics.mean(array)
    if n <= EXACT_SIGNS_UP_TO:
        return Outcome(method, mean, _sign_pattern_p(array), (n,))
    # Scaled and with a hair's breadth, so that rounding does not part a pattern from its equals.
    scaled = array / np.abs(array).max()
    sums = np.abs(rng.choice([-1.0, 1.0], size=(resamples, n)) @ scaled)
    hits = int((sums >= abs(scaled.sum()) * (1 - 1e-12) - 1e-12).sum())
    return Outcome(method, mean, (hits + 1) / (resamples + 1), (n,))


def _sign_pattern_p(array: Sample) -> float:
    scaled = array / np.abs(array).max()
    patterns = np.array(list(itertools.product((-1.0, 1.0), repeat=scaled.size)))
    sums = np.abs(patterns @ np.abs(scaled))
    return float((sums >= abs(scaled.sum()) * (1 - 1e-12) - 1e-12).mean())
