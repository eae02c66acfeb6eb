"""How many replicates: for a wanted precision of an SD, a detectable difference, an equivalence margin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from twinrun.stats import describe
from twinrun.stats.intervals import PooledSd
from twinrun.stats.samples import CONFIDENCE
from twinrun.study.errors import InputError

MOST = 1_000_000  # replicates: no one runs more


@dataclass(frozen=True)
class Needed:
    """The smallest number of replicates, or None and the reason."""

    n: int | None
    reason: str = ""


def replicates_for_sd(precision: float, confidence: float = 0.95) -> Needed:
    """Replicates so that the chi-square interval of an SD ends at most `precision` above it (0.25: 25 %).

    The upper end is the farther one, so both lie within. Replicates of several cells with the same SD count
    together, with one more per further cell: only n - 1 of each is information.

    >>> replicates_for_sd(0.25).n
    49
    """
    positive("precision", precision)
    return smallest(lambda n: describe.sd_factors(n, confidence)[1] - 1 <= precision, 2)


def replicates_for_mean(precision: float, sd: float) -> Needed:
    """Replicates so that the 95 % interval of their mean, t s / sqrt(n) either way, is at most `precision` for s = sd.

    >>> replicates_for_mean(0.5, 0.42).n
    6
    """
    positive("precision", precision)
    positive("the SD", sd)

    def half(n: int) -> float:
        return float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(n)

    return smallest(lambda n: half(n) <= precision, 2)


def power_of_t(difference: float, standard_error: float, df: float, alpha: float = 0.05) -> float:
    """Power of any two-sided t-test: noncentral t with ncp = difference / standard error.

    Source: Cohen, Statistical Power Analysis (1988), ch. 2.

    >>> round(power_of_t(3.0, 1.0, 10), 3)
    0.771
    """
    shift, critical = difference / standard_error, float(special.stdtrit(df, 1 - alpha / 2))
    below, above = special.nctdtr(df, shift, -critical), special.nctdtr(df, -shift, -critical)
    # By symmetry P(T > c | shift) = P(T < -c | -shift); far out the library gives NaN, where the normal will do.
    if math.isnan(below) or math.isnan(above):
        below, above = special.ndtr(-critical - shift), special.ndtr(-critical + shift)
    return float(below + above)


def smallest_detectable(standard_error: float, df: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The true difference that a two-sided t-test with this standard error finds with that power.

    >>> round(smallest_detectable(1.0, 10), 2)
    3.11
    """
    low, high = 0.0, 1.0
    while power_of_t(high, 1.0, df, alpha) < power:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if power_of_t(middle, 1.0, df, alpha) >= power else (middle, high)
    return high * standard_error


def power_of_tost(margin: float, error: float, df: int, alpha: float = 0.05, difference: float = 0.0) -> float:
    """Power of TOST at a true difference, for an estimate with this true standard error and a t with `df`: exact.

    Given s, the estimate must lie within margin - t s of 0, which is a normal probability; it is averaged over s, whose
    square is chi-square with `df`. Source: Phillips (1990), J. Pharmacokinetics and Biopharmaceutics 18.

    >>> round(power_of_tost(1.0, 0.3, 20), 2)
    0.88
    """
    room = margin - float(special.stdtrit(df, 1 - alpha)) * error * _chi(df)
    inside = special.ndtr((room - difference) / error) - special.ndtr((-room - difference) / error)
    return float(np.where(room > 0, inside, 0.0).mean())


@cache
def _chi(df: int) -> NDArray[np.float64]:
    """s / sigma at the middles of 4000 equally likely strips."""
    shares = (np.arange(4000) + 0.5) / 4000
    ratios: NDArray[np.float64] = np.sqrt(special.chdtri(df, 1 - shares) / df)
    return ratios


def replicates_for_difference(difference: float, sd: float, alpha: float = 0.05, power: float = 0.8) -> Needed:
    """Runs per arm so that the t-test of two arms finds a true difference with that power.

    >>> replicates_for_difference(1.0, 1.0).n
    17
    """
    _check(difference, sd, alpha, power)
    return smallest(lambda n: power_of_t(difference, sd * math.sqrt(2 / n), 2 * n - 2, alpha) >= power, 2)


def replicates_against_one(difference: float, sd: float, alpha: float = 0.05, power: float = 0.8) -> Needed:
    """Free runs so that one new run that lies `difference` off is found with that power.

    However many there are, the new run is a single draw: below (z_{1-alpha/2} + z_power) SDs none suffice.

    >>> replicates_against_one(4.0, 1.0).n
    6
    >>> print(replicates_against_one(2.0, 1.0).reason)
    no number suffices: a single new run shows only differences above 2.80 SDs
    """
    _check(difference, sd, alpha, power)
    limit = float(special.ndtri(1 - alpha / 2) + special.ndtri(power))
    if difference / sd <= limit:
        return Needed(None, f"no number suffices: a single new run shows only differences above {limit:.2f} SDs")
    return smallest(lambda n: power_of_t(difference, sd * math.sqrt(1 + 1 / n), n - 1, alpha) >= power, 2)


def replicates_for_equivalence(
    margin: float, sd: float, alpha: float = 0.05, power: float = 0.8, difference: float = 0.0
) -> Needed:
    """Runs per arm so that TOST shows two arms to be within the margin, with that power, at a true difference.

    >>> replicates_for_equivalence(1.0, 1.0).n
    18
    """
    _check(margin, sd, alpha, power)
    if abs(difference) >= margin:
        return Needed(None, f"no number suffices: the true difference {difference:g} is not within {margin:g}")
    at = abs(difference)
    return smallest(lambda n: power_of_tost(margin, sd * math.sqrt(2 / n), 2 * n - 2, alpha, at) >= power, 2)


def replicates_of_pairs(difference: float, sd: float, alpha: float = 0.05, power: float = 0.8) -> Needed:
    """Pairs so that the paired t-test finds a true difference; `sd` is that of the differences.

    >>> replicates_of_pairs(1.0, 1.0).n
    10
    """
    _check(difference, sd, alpha, power)
    return smallest(lambda n: power_of_t(difference, sd / math.sqrt(n), n - 1, alpha) >= power, 2)


def replicates_for_sd_ratio(ratio: float, alpha: float = 0.05, power: float = 0.8) -> Needed:
    """Runs per arm so that the two-sided F test finds that one SD is `ratio` times the other, if normal.

    >>> replicates_for_sd_ratio(1.5).n, replicates_for_sd_ratio(2.0).n
    (50, 19)
    """
    positive("the ratio of SDs", ratio)
    if ratio == 1:
        return Needed(None, "no number suffices: the SDs are equal")
    square = min(max(ratio, 1 / ratio), 1e100) ** 2  # which a float still holds

    def power_at(n: int) -> float:
        low, high = (float(special.fdtri(n - 1, n - 1, share)) for share in (alpha / 2, 1 - alpha / 2))
        return float(special.fdtrc(n - 1, n - 1, high / square) + special.fdtr(n - 1, n - 1, low / square))

    return smallest(lambda n: power_at(n) >= power, 2)


@dataclass(frozen=True)
class Planned:
    """Replicates for a pooled SD and for both ends of its interval, within which the true number lies.

    `kind` says which SD it is: "total" (everything free, for two models) or "same-seed" (for two runs of one model).
    """

    kind: str
    sd: float
    sd_low: float | None
    sd_high: float | None
    needed: Needed
    needed_low: Needed
    needed_high: Needed

    @property
    def at_the_ends(self) -> str:
        """`(9 to 50 at the ends of the SD's interval)`; empty where it has none."""
        low, high = self.needed_low.n, self.needed_high.n
        return f"({low:,} to {high:,} at the ends of the SD's interval)" if low and high else ""


def plan(pooled: PooledSd, kind: str, needed: Callable[[float], Needed]) -> Planned:
    """What `needed`, a function of an SD, gives for a pooled SD and at the ends of its interval.

    An SD of 0 has no plan, with the reason. Raises ValueError for another kind than "total" and "same-seed".

    >>> few = plan(PooledSd(1.0, 10), "total", lambda sd: replicates_for_difference(1.0, sd))
    >>> few.needed.n, few.needed_low.n, few.needed_high.n
    (17, 9, 50)
    >>> plan(PooledSd(0.0, 10), "total", replicates_for_sd).needed.reason
    'not planned: the total SD is 0, no two runs differ'
    """
    if kind not in ("total", "same-seed"):
        raise ValueError(f"an SD is total or same-seed, not {kind!r}")
    interval = pooled.interval()
    if interval.value is None or interval.value == 0:
        why = (
            f"the {kind} SD is 0, no two runs differ" if interval.value == 0 else f"the {kind} SD is {interval.reason}"
        )
        nothing = Needed(None, f"not planned: {why}")
        return Planned(kind, pooled.value, None, None, nothing, nothing, nothing)
    ends = interval.low or 0.0, interval.high or math.inf
    return Planned(kind, pooled.value, *ends, needed(pooled.value), needed(ends[0]), needed(ends[1]))


def smallest(enough: Callable[[int], bool], least: int) -> Needed:
    """The smallest n from `least` on that is enough; being enough must not end with growing n."""
    high = least
    while not enough(high):
        if high >= MOST:
            return Needed(None, f"more than {MOST:,} replicates")
        high = min(2 * high, MOST)
    low = max(least, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return Needed(high)


def _check(size: float, sd: float, alpha: float, power: float) -> None:
    positive("the difference or margin", size)
    positive("the SD", sd)
    if not 0 < alpha < power < 1:
        raise InputError(f"alpha {alpha}, power {power}: not possible", "0 < alpha < power < 1")


def positive(name: str, value: float) -> None:
    """Raise InputError unless the value is a number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} is {value:g}", "give a number above 0")
