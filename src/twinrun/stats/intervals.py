"""Intervals of a mean and of an SD, 95 %: by formula for normal data, and by a bootstrap without that."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from twinrun.stats import describe
from twinrun.stats.samples import CONFIDENCE, UNDEFINED, Interval, Sample, fault, sample

# With fewer values, resamples of one value repeated are common enough to reach into the interval's ends.
BOOTSTRAP_LEAST = 5
ENUMERATED_UP_TO = 7  # up to here all n^n resamples are weighed, so that the result has no chance in it
# Normal quantiles are multiplied by this: at the plain level the bootstrap of an SD covers 92.5 % at n = 7 and 10.
CALIBRATION = 1.06
_VANISHING = f"{UNDEFINED}the spread is too small for a floating-point number"


def mean_interval(values: ArrayLike) -> Interval:
    """Student's interval of the mean of a normal distribution: mean +- t s / sqrt(n), t at n - 1.

    >>> result = mean_interval([1.0, 2.0, 3.0])
    >>> print(f"{result.low:.3f} {result.high:.3f}")
    -0.484 4.484
    >>> mean_interval([1.0]).reason
    'not defined: 1 of the 2 values that it needs'
    """
    array = sample(values)
    n, reason = array.size, fault(array, 2)
    mean = describe.mean(array) if n and np.isfinite(array).all() else None
    if reason or mean is None:
        return Interval(mean, None, None, n, "t", reason)
    half = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * describe.sample_sd(array) * (1 / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n, "t")


def sd_chi_square(values: ArrayLike) -> Interval:
    """Interval of the SD of a normal distribution: s sqrt((n-1)/q), q the chi-square quantiles at n - 1.

    Equal values have the SD 0 and no interval: they do not say how small the true SD is.

    >>> result = sd_chi_square([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> print(f"{result.value:.3f} {result.low:.3f} {result.high:.3f}")
    1.581 0.947 4.543
    """
    array = sample(values)
    reason = fault(array, 2, spread=True)
    value = None if fault(array, 2) else describe.sample_sd(array)
    if reason or value is None or value == 0:
        return Interval(value, None, None, array.size, "chi-square", reason or _VANISHING)
    low, high = describe.sd_factors(array.size)
    return Interval(value, value * low, value * high, array.size, "chi-square")


@dataclass(frozen=True)
class PooledSd:
    """The SD within cells, pooled over them: the root of the mean variance, weighted by degrees of freedom.

    `value` is NaN without degrees of freedom.
    """

    value: float
    df: float

    @classmethod
    def of(cls, cells: Iterable[ArrayLike]) -> PooledSd:
        """From the values of each cell; a cell with fewer than two adds nothing.

        >>> PooledSd.of([[1.0, 3.0], [2.0, 3.0, 4.0], [9.0]])
        PooledSd(value=1.1547005383792515, df=3)
        """
        arrays = [sample(cell) for cell in cells]
        return cls.of_sds((describe.sample_sd(array) for array in arrays), (array.size for array in arrays))

    @classmethod
    def of_sds(cls, sds: Iterable[float], sizes: Iterable[int]) -> PooledSd:
        """From the sample SD of each cell and its number of values.

        >>> PooledSd.of_sds([3.0, 4.0], [2, 2])
        PooledSd(value=3.5355339059327378, df=2)
        """
        kept = [(sd, size - 1) for sd, size in zip(sds, sizes, strict=True) if size > 1]
        df = sum(freedom for _, freedom in kept)
        squares = [sd**2 * freedom for sd, freedom in kept]
        total = math.fsum(squares) if np.isfinite(squares).all() else math.nan
        return cls(math.sqrt(total / df) if df else math.nan, df)

    @classmethod
    def together(cls, parts: Iterable[PooledSd]) -> PooledSd:
        """Several pooled SDs as one, each with its degrees of freedom.

        >>> PooledSd.together([PooledSd(3.0, 1), PooledSd(4.0, 1)])
        PooledSd(value=3.5355339059327378, df=2)
        """
        kept = [part for part in parts if part.df]
        df = sum(part.df for part in kept)
        return cls(math.sqrt(math.fsum(part.value**2 * part.df for part in kept) / df) if df else math.nan, df)

    def gap_of_two(self) -> float:
        """What the difference of two further runs stays below 95 % of the time: t sqrt(2) SD, t at `df`.

        With 1.96 for t, pairs of identical runs exceed it in 10.7 % of cases at 5 degrees of freedom.

        >>> round(PooledSd(1.0, 5).gap_of_two(), 2)
        3.64
        """
        if not self.df:
            return math.nan
        return float(special.stdtrit(self.df, (1 + CONFIDENCE) / 2)) * math.sqrt(2) * self.value

    def interval(self) -> Interval:
        """The chi-square interval, which supposes normal values with the same SD in every cell.

        >>> pooled = PooledSd.of([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]).interval()
        >>> print(f"{pooled.value:.3f} {pooled.low:.3f} {pooled.high:.3f}")
        1.000 0.599 2.874
        """
        n, method = math.floor(self.df) + 1, "chi-square, pooled"
        if not self.df or math.isnan(self.value):
            why = "a value is missing" if self.df else "no cell has two values"
            return Interval(None, None, None, n, method, UNDEFINED + why)
        if self.value == 0:
            return Interval(0.0, None, None, n, method, f"{UNDEFINED}no spread within any cell")
        low, high = describe.sd_factors(self.df + 1)
        return Interval(self.value, self.value * low, self.value * high, n, method)

    def ratio(self, other: PooledSd) -> Interval:
        """This SD over another, independent one, with the interval of F at both degrees of freedom.

        >>> ratio = PooledSd(2.0, 10).ratio(PooledSd(1.0, 10))
        >>> print(f"{ratio.value:.2f} {ratio.low:.2f} {ratio.high:.2f}")
        2.00 1.04 3.86
        """
        df, method = (self.df, other.df), "F"
        if not (all(df) and self.value > 0 and other.value > 0):
            why = self.interval().reason or other.interval().reason
            return Interval(None, None, None, math.floor(sum(df)), method, why)
        ratio, tail = self.value / other.value, (1 + CONFIDENCE) / 2
        low, high = (ratio / math.sqrt(float(special.fdtri(*df, share))) for share in (tail, 1 - tail))
        return Interval(ratio, low, high, math.floor(sum(df)), method)


@dataclass(frozen=True)
class RobustSpread:
    """Median absolute deviation times 1.4826 (the SD, if normal) and how many of `n` runs lie beyond 3 of them."""

    value: float | None
    beyond: int | None
    n: int
    reason: str = ""


def robust_spread(values: ArrayLike) -> RobustSpread:
    """A spread that single bad runs do not move, beside the SD, which they make.

    Source: Rousseeuw & Croux (1993), JASA 88, 1273-1283; without a correction for few values, where it is too small:
    by 20 % on average at n = 5. It needs three values.

    >>> robust_spread([0.90, 0.91, 0.92, 0.93, 0.10])
    RobustSpread(value=0.014826022185056034, beyond=1, n=5, reason='')
    """
    array = sample(values)
    if reason := fault(array, 3, spread=True):
        return RobustSpread(None, None, array.size, reason)
    apart = np.abs(array - np.median(array))
    value = 1.482602218505602 * float(np.median(apart))
    if value == 0:
        why = f"{UNDEFINED}half of the {array.size} values or more are equal"
        return RobustSpread(None, None, array.size, why)
    return RobustSpread(value, int((apart > 3 * value).sum()), array.size)


def sd_bootstrap(values: ArrayLike, rng: np.random.Generator, resamples: int = 4999) -> Interval:
    """Interval of the SD without normality: a studentized bootstrap (bootstrap-t) of log s^2.

    The percentile and BCa bootstraps of an SD do not hold their level for a few runs: measured on normal data they
    cover 64 % and 65 % at n = 5, 88 % and 92 % at n = 30 instead of 95 %; this one 94.3 to 95.3 % from n = 5 to 30,
    its tails calibrated on normal data (for 95 % each holds 1.9 %). With heavy tails (t, df 5) it covers about 91 %.
    The log steadies the variance; the standard error of log s^2 is sqrt((k - (n-3)/(n-1)) / n), k the kurtosis with
    1/n moments (Bonett 2006). Source: Davison & Hinkley, Bootstrap Methods and their Application (1997), sec. 5.2. Up
    to n = 7 all n^n resamples are enumerated and `rng` is not used. It needs five values.

    >>> result = sd_bootstrap([1.0, 2.0, 3.0, 4.0, 5.0], np.random.default_rng(0))
    >>> result.low < result.value < result.high
    True
    >>> sd_bootstrap([1.0, 2.0], np.random.default_rng(0)).reason
    'not defined: 2 of the 5 values that it needs'
    """
    array = sample(values)
    n, method = array.size, "studentized bootstrap"
    value = None if fault(array, 2) else describe.sample_sd(array)
    reason = fault(array, BOOTSTRAP_LEAST, spread=True)
    if reason or value is None or value == 0:
        return Interval(value, None, None, n, method, reason or _VANISHING)
    if n <= ENUMERATED_UP_TO:
        counts, weights = _all_counts(n)
    else:
        counts, weights = rng.multinomial(n, [1 / n] * n, resamples).astype(float), np.ones(resamples)
    # Scaled, so that squares and fourth powers neither overflow nor vanish.
    scaled = (array - array.mean()) / value
    center, error = _log_variance(scaled, np.ones((1, n)))
    centers, errors = _log_variance(scaled, counts)
    # The resampled population has the variance with 1/n: that is the true value in the bootstrap world.
    truth = math.log(describe.population_sd(scaled) ** 2)
    tail = float(special.ndtr(CALIBRATION * special.ndtri((1 - CONFIDENCE) / 2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        roots = np.where(np.isfinite(centers), (centers - truth) / errors, -np.inf)
    below, above = (_quantile(roots, weights, share) for share in (tail, 1 - tail))
    if not np.isfinite(below):
        why = f"{UNDEFINED}too many resamples without spread (ties among {n} values)"
        return Interval(value, None, None, n, method, why)
    low, high = (math.exp((center[0] - root * error[0]) / 2) for root in (above, below))
    return Interval(value, value * low, value * high, n, method)


@cache
def _all_counts(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How often each of n values is in each possible resample, and how many of the n^n orders give it."""
    draws = np.array(list(itertools.combinations_with_replacement(range(n), n)))
    counts: NDArray[np.float64] = (draws[:, :, None] == np.arange(n)).sum(axis=1).astype(float)
    return counts, math.factorial(n) / special.factorial(counts).prod(axis=1)


def _quantile(values: Sample, weights: Sample, share: float) -> float:
    """The smallest value that at least this share of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, share * reached[-1] * (1 - 1e-12))])


def _log_variance(scaled: Sample, counts: NDArray[np.float64]) -> tuple[Sample, Sample]:
    """log s^2 of each resample and its standard error; -inf for a resample of equal values."""
    n = scaled.size
    means = counts @ scaled / n
    centered = scaled[None, :] - means[:, None]
    second, fourth = ((counts * centered**power).sum(axis=1) / n for power in (2, 4))
    # A resample of one value repeated, or of equal ones, has no spread but for rounding; the whole sample has 1.
    second = np.where(second < 1e-20, 0.0, second)
    with np.errstate(divide="ignore", invalid="ignore"):
        kurtosis = fourth / second**2
        return np.log(second * n / (n - 1)), np.sqrt((kurtosis - (n - 3) / (n - 1)) / n)
