"""Tests of a value against a sample, of pairs and of groups: the thesis's tests, and the ones that are valid.

t, Welch and F are written out: their sums are rounded once (`math.fsum`), so that the bits of a p value depend neither
on the order of the values nor on the machine; scipy's last digit differs in two of three published values.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from twinrun.stats import describe, effects
from twinrun.stats.samples import Outcome, Sample, fault, group_fault, sample

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

    >>> result = one_sample_t([1.0, 2.0, 3.0], 4.0)
    >>> print(f"{result.statistic:.3f} {result.p:.4f}")
    3.464 0.0742
    """
    return _against_one(values, reference, "one-sample t", draw=False)


def prediction_test(values: ArrayLike, new: float) -> Outcome:
    """Whether one new value may be a further draw: T = (new - mean) / (s sqrt(1 + 1/n)), df n - 1.

    That is the one-sample t over sqrt(n + 1). Source: Hahn & Meeker, Statistical Intervals (1991), sec. 4.7;
    Crawford & Howell (1998). The effect is Cohen's d.

    >>> result = prediction_test([1.0, 2.0, 3.0], 4.0)
    >>> print(f"{result.statistic:.3f} {result.p:.4f}")
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

    >>> result = paired_t([1.0, 2.0, 3.0])
    >>> print(f"{result.statistic:.3f} {result.p:.4f}")
    3.464 0.0742
    """
    array = sample(differences)
    n, method = array.size, "paired t"
    reason = fault(array, 2, spread=True, name="differences")
    sd = describe.sample_sd(array)
    if reason or sd == 0:
        return Outcome.undefined(method, (n,), reason or "the differences have no spread")
    d = describe.mean(array) / sd
    return Outcome(method, d * math.sqrt(n), two_sided_t(d * math.sqrt(n), n - 1), (n,), (n - 1,), d)


def signed_rank(differences: ArrayLike) -> Outcome:
    """Wilcoxon's signed-rank test of paired differences; W is the sum of the positive ranks.

    Exact without ties and zeros, which are left out (Wilcoxon 1945); by its normal approximation with ties and more
    than 13 pairs, exact over all sign patterns otherwise. With n pairs no p is below 2^(1-n): 0.0625 at n = 5. The
    effect is the matched-pairs rank-biserial correlation.

    >>> result = signed_rank([1.0, 2.0, 3.0, -0.5, 4.0, 5.0])
    >>> print(f"{result.statistic:.0f} {result.p:.4f}")
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
    mean = describe.mean(array)
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


def welch_t(first: ArrayLike, second: ArrayLike) -> Outcome:
    """Welch's t for two means with unequal variances (first - second); the effect is Hedges' g.

    Source: Welch (1947); degrees of freedom of Satterthwaite (1946).

    >>> result = welch_t([3.0, 4.0, 5.0], [1.0, 2.0, 3.0])
    >>> print(f"{result.statistic:.3f} {result.p:.4f}")
    2.449 0.0705
    """
    a, b, method = sample(first), sample(second), "Welch t"
    sizes, reason = (a.size, b.size), fault(a, 2) or fault(b, 2)
    if reason:
        return Outcome.undefined(method, sizes, reason)
    parts = [describe.sample_sd(x) ** 2 / x.size for x in (a, b)]
    if sum(parts) == 0:
        return Outcome.undefined(method, sizes, "no spread within either group")
    t = (describe.mean(a) - describe.mean(b)) / math.sqrt(sum(parts))
    shares = [part / sum(parts) for part in parts]
    df = 1 / sum(share**2 / (size - 1) for share, size in zip(shares, sizes, strict=True))
    return Outcome(method, t, two_sided_t(t, df), sizes, (df,), effects.hedges_g(a, b).value)


def anova(groups: Sequence[ArrayLike]) -> Outcome:
    """One-way analysis of variance, F with k - 1 and N - k degrees of freedom; the effect is eta squared.

    F = (SSB / (k-1)) / (SSW / (N-k)), eta squared = SSB / (SSB + SSW). Source: Fisher (1925); the thesis's Table 5.6.

    >>> result = anova([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])
    >>> print(f"{result.statistic:.2f} {result.p:.4f} {result.effect:.4f}")
    1.50 0.2879 0.2727
    """
    samples, method = [sample(group) for group in groups], "ANOVA"
    sizes = tuple(group.size for group in samples)
    reason = group_fault(samples, 1)
    if reason:
        return Outcome.undefined(method, sizes, reason)
    total, count = sum(sizes), len(samples)
    if total == count:
        return Outcome.undefined(method, sizes, "one value per group")
    # Centred first: sums of squares of values near 1 would lose the digits in which twins differ.
    middle = describe.mean(np.concatenate(samples))
    means = [describe.mean(group - middle) for group in samples]
    grand = sum(size * mean for size, mean in zip(sizes, means, strict=True)) / total
    between = math.fsum(size * (mean - grand) ** 2 for size, mean in zip(sizes, means, strict=True))
    within = math.fsum((group.size - 1) * describe.sample_sd(group) ** 2 for group in samples if group.size > 1)
    if within == 0:
        return Outcome.undefined(method, sizes, "no spread within any group")
    df = (count - 1, total - count)
    f = (between / df[0]) / (within / df[1])
    return Outcome(method, f, float(special.fdtrc(*df, f)), sizes, df, between / (between + within))


def kruskal_wallis(groups: Sequence[ArrayLike]) -> Outcome:
    """Kruskal-Wallis test on ranks with correction for ties, chi-square with k - 1; the effect is epsilon squared.

    epsilon squared = H / (N - 1). Source: Kruskal & Wallis (1952); Tomczak & Tomczak (2014). The thesis's Table 5.6.

    >>> result = kruskal_wallis([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> print(f"{result.statistic:.3f} {result.p:.4f} {result.effect:.3f}")
    3.857 0.0495 0.771
    """
    samples, method = [sample(group) for group in groups], "Kruskal-Wallis"
    sizes = tuple(group.size for group in samples)
    reason = group_fault(samples, 1) or fault(np.concatenate(samples), 3, spread=True)
    if reason:
        return Outcome.undefined(method, sizes, reason)
    h = float(stats.kruskal(*samples).statistic)
    df = len(samples) - 1
    return Outcome(method, h, float(special.chdtrc(df, h)), sizes, (df,), h / (sum(sizes) - 1))


def mann_whitney(first: ArrayLike, second: ArrayLike) -> Outcome:
    """Mann-Whitney's U of `second` over `first`: pairs in which its value is higher, ties counted half.

    p is exact for up to eight values in one of the groups without ties, else by the normal approximation with the
    correction for ties. The effect is P(second > first) = U / (n1 n2), whose interval `effects.superiority` has.
    Source: Mann & Whitney (1947).

    >>> result = mann_whitney([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    >>> print(result.statistic, result.p, result.effect)
    9.0 0.1 1.0
    """
    a, b, method = sample(first), sample(second), "Mann-Whitney"
    sizes, reason = (a.size, b.size), fault(a, 1) or fault(b, 1)
    if not reason:
        reason = fault(sample(np.concatenate([a, b])), 2, spread=True)
    if reason:
        return Outcome.undefined(method, sizes, reason)
    result = stats.mannwhitneyu(b, a)
    u = float(result.statistic)
    return Outcome(method, u, float(result.pvalue), sizes, effect=u / (a.size * b.size))


def brown_forsythe(groups: Sequence[Sequence[ArrayLike]], *, classic: bool = False) -> Outcome:
    """Whether groups are equally noisy: ANOVA of the absolute deviations from the median of each cell.

    A group is a list of cells, each with its own median; with one cell per group it is Brown & Forsythe's test (1974).
    A cell with an odd number of values has a deviation that is 0 by construction; it is left out, and of an even
    number's two equal smallest ones one is (Hines & Hines 2000). `classic` keeps them, as scipy's `levene` does; then
    the test rejects equally noisy groups of five in 0.2 to 0.8 % of cases instead of 5 % (measured; without them in
    3 to 4 %), so it hardly ever finds anything. With four values both forms reject in 6 to 7 %. The effect
    is eta squared.

    >>> result = brown_forsythe([[[1.0, 2.0, 3.0, 4.0]], [[2.0, 4.0, 7.0, 9.0]]])
    >>> print(f"{result.statistic:.2f} {result.p:.2f}")
    11.59 0.03
    """
    cells = [[sample(cell) for cell in group] for group in groups]
    sizes, method = tuple(sum(cell.size for cell in group) for group in cells), "Brown-Forsythe"
    reason = group_fault([cell for group in cells for cell in group], 3, count=1)
    if reason:
        return Outcome.undefined(method, sizes, reason)
    apart = [[deviations(cell[None], classic=classic)[0] for cell in group] for group in cells if group]
    result = anova([np.concatenate(group) for group in apart])
    return Outcome(method, result.statistic, result.p, sizes, result.df, result.effect, result.reason)


def deviations(rows: Sample, *, classic: bool = False) -> Sample:
    """Absolute deviations of each row, (cells, values), from its median, without the structural zero unless `classic`.

    >>> deviations(np.array([[1.0, 2.0, 4.0]])).tolist()
    [[1.0, 2.0]]
    """
    absolute: Sample = np.sort(np.abs(rows - np.median(rows, axis=1, keepdims=True)), axis=1)
    if classic:
        return absolute
    if rows.shape[1] % 2 == 0:
        # The two smallest are one number twice: sqrt(2) keeps their sum of squares (Hines & Hines 2000).
        absolute[:, 1] *= math.sqrt(2)
    return absolute[:, 1:]
