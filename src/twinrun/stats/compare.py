"""Is B better than A? Difference, tests, equivalence and what these n could have shown, ending in one verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from twinrun.stats import describe, effects
from twinrun.stats.equivalence import Equivalence, tost
from twinrun.stats.hypothesis import EXACT_SIGNS_UP_TO, sign_permutation
from twinrun.stats.permutation import EXACT_SPLITS_UP_TO, enough, permutation_test
from twinrun.stats.power import Needed, power_of_t, power_of_tost, smallest, smallest_detectable
from twinrun.stats.samples import UNDEFINED, Interval, Outcome, Sample, fault, sample
from twinrun.stats.sequential import confidence_sequence

ALPHA, POWER = 0.05, 0.8


class Verdict(StrEnum):
    """What the runs say about B beside A."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Error:
    """The estimated difference B - A and its standard error, which has a t distribution with `df`."""

    difference: float
    standard_error: float
    df: float
    method: str


@dataclass(frozen=True)
class Comparison:
    """Everything that is said about two groups of runs; differences are B - A in the unit of the values.

    `interval` is the one that the verdict rests on.
    `permutation_floor` is the smallest p that so few runs can have. `superiority` is P(B > A), None for pairs.
    `detectable` is the true difference that a t-test of so many runs finds with a power of 80 %. `more` is how many
    more runs each, or pairs, would decide if the observed difference and SDs are the true ones. `correlation` of pairs
    and `width_unpaired`, the width of the interval without pairing, say what pairing gained.
    """

    n: tuple[int, int]
    means: tuple[float | None, float | None]
    sds: tuple[float | None, float | None]
    paired: bool
    higher_is_better: bool
    interval: Interval
    test: Outcome
    permutation: Outcome
    permutation_floor: float
    superiority: Interval | None
    equivalence: Equivalence | None
    detectable: float | None
    more: Needed | None
    correlation: float | None
    width_unpaired: float | None
    verdict: Verdict
    sequential: bool

    @property
    def within_margin(self) -> bool:
        """Whether the difference is shown to be smaller than the margin, whether or not one is better."""
        return _within(self.interval, self.equivalence, sequential=self.sequential)

    @property
    def not_worse(self) -> bool:
        """Whether B is no worse than A by the margin or, without one, at all: by the same interval, one-sided 2.5 %."""
        if self.interval.low is None or self.interval.high is None:
            return False
        margin = self.equivalence.margin if self.equivalence else 0.0
        return self.interval.low > -margin if self.higher_is_better else self.interval.high < margin


def unpaired_error(a: Sample, b: Sample) -> Error | str:
    """Welch's error of two independent means; with a single value in one group, that of a further draw of the other."""
    if min(a.size, b.size) == 1 < max(a.size, b.size):
        many, few = (a, b) if a.size > 1 else (b, a)
        if why := fault(many, 2, spread=True, name="runs") or fault(few, 1):
            return why
        spread = describe.sample_sd(many) * math.sqrt(1 + 1 / many.size)
        return Error(describe.mean(b) - describe.mean(a), spread, many.size - 1, "one new run, t")
    if why := fault(a, 2, name="runs of A") or fault(b, 2, name="runs of B"):
        return why
    parts = [describe.sample_sd(x) ** 2 / x.size for x in (a, b)]
    if sum(parts) == 0:
        return f"{UNDEFINED}all runs of A are equal, and all of B: what was free changed nothing"
    df = sum(parts) ** 2 / sum(part**2 / (x.size - 1) for part, x in zip(parts, (a, b), strict=True))
    return Error(describe.mean(b) - describe.mean(a), math.sqrt(sum(parts)), df, "Welch t")


def paired_error(differences: Sample) -> Error | str:
    """The error of the mean of paired differences."""
    if why := fault(differences, 2, spread=True, name="differences of pairs"):
        return why
    n = differences.size
    return Error(describe.mean(differences), describe.sample_sd(differences) / math.sqrt(n), n - 1, "paired t")


def two_way_error(a: Sample, b: Sample, *, paired: bool = False) -> Error | str:
    """The error of a mean difference B - A for other runs and other test images; `a` and `b` are (runs, images).

    They hold what is averaged over the images, such as whether each is right. The variance is that over the runs plus
    that over the images, less what single images of single runs make of both (two-way clustering: Owen 2007; Cameron,
    Gelbach & Miller 2011), with Satterthwaite's degrees of freedom. With `paired`, a[i] and b[i] belong together.
    """
    images = a.shape[1]
    parts = [b - a] if paired else [a, b]
    if images < 2 or min(len(part) for part in parts) < 2:
        return f"{UNDEFINED}two runs of each and two images are needed"
    over_runs = [float(np.var(part.mean(axis=1), ddof=1)) / len(part) for part in parts]
    single = sum(float(np.var(part, axis=0, ddof=1).sum()) / len(part) for part in parts) / images**2
    over_images = float(np.var(b.mean(axis=0) - a.mean(axis=0), ddof=1)) / images
    runs = sum(over_runs)
    variance = max(runs + over_images - single, runs, over_images)
    if variance == 0:
        return f"{UNDEFINED}no run differs from another on any image"
    freedom = sum(part**2 / (len(rows) - 1) for part, rows in zip(over_runs, parts, strict=True))
    df = variance**2 / (freedom + over_images**2 / (images - 1))
    # Twelve decimals lie above the rounding of numpy's sums.
    return Error(round(float((b.mean(axis=0) - a.mean(axis=0)).mean()), 12), math.sqrt(variance), df, "two-way t")


def compare(
    a: ArrayLike,
    b: ArrayLike,
    rng: np.random.Generator,
    *,
    paired: bool = False,
    margin: float | None = None,
    higher_is_better: bool = True,
    sequential: bool = False,
    alpha: float = ALPHA,
) -> Comparison:
    """Compare two groups of runs; with `paired` (or `sequential`), a[i] and b[i] belong together.

    The interval is Welch's, that of paired t, or an anytime-valid one of the pairs (`sequential`). Better and worse:
    it lies on one side of 0; equivalent: TOST shows the difference to be within the margin (`sequential`: the interval
    is within it); else one cannot tell. Raises ValueError for pairs of two lengths.

    >>> runs = compare([0.90, 0.91, 0.92], [0.95, 0.96, 0.97], np.random.default_rng(0))
    >>> print(runs.verdict, f"{runs.interval.low:.3f} {runs.interval.high:.3f}", f"{runs.permutation.p:.1f}")
    better 0.027 0.073 0.1
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    in_pairs = paired or sequential
    if in_pairs and first.shape != second.shape:
        raise ValueError(f"{first.size} and {second.size} values are no pairs")
    low_to_high = sample(first), sample(second)
    gaps = sample(second - first) if in_pairs else sample([])
    error = paired_error(gaps) if in_pairs else unpaired_error(*low_to_high)
    alone = unpaired_error(*low_to_high) if in_pairs else error
    interval = confidence_sequence(gaps, 1 - alpha) if sequential else t_interval(error, *low_to_high, alpha)
    equivalence = _equivalence(error, margin, (first.size, second.size), alpha)
    verdict = judge(interval, equivalence, higher_is_better=higher_is_better, sequential=sequential)
    permutation, floor = _permutation(low_to_high, gaps if in_pairs else None, rng)
    several = in_pairs and min(map(_varied, low_to_high)) and first.size > 2
    return Comparison(
        n=(first.size, second.size),
        means=(_number(describe.mean(first)), _number(describe.mean(second))),
        sds=(_number(describe.sample_sd(first)), _number(describe.sample_sd(second))),
        paired=in_pairs,
        higher_is_better=higher_is_better,
        interval=interval,
        test=_test(error, low_to_high, in_pairs=in_pairs),
        permutation=permutation,
        permutation_floor=floor,
        superiority=None if in_pairs else effects.superiority(second, first, 1 - alpha),
        equivalence=equivalence,
        detectable=None
        if isinstance(error, str)
        else smallest_detectable(error.standard_error, error.df, alpha, POWER),
        more=more_runs(error, (first.size, second.size), low_to_high, margin, in_pairs=in_pairs, alpha=alpha)
        if not isinstance(error, str) and verdict is Verdict.CANNOT_TELL and not sequential
        else None,
        correlation=float(np.corrcoef(first, second)[0, 1]) if several else None,
        width_unpaired=_width(t_interval(alone, *low_to_high, alpha)) if in_pairs else None,
        verdict=verdict,
        sequential=sequential,
    )


def t_interval(error: Error | str, a: Sample, b: Sample, alpha: float) -> Interval:
    """The interval difference +- t standard error, or why there is none."""
    n = a.size + b.size
    if isinstance(error, str):
        value = _number(describe.mean(b) - describe.mean(a)) if a.size and b.size else None
        return Interval(value, None, None, n, "t", error, 1 - alpha)
    half = float(special.stdtrit(error.df, 1 - alpha / 2)) * error.standard_error
    low, high = error.difference - half, error.difference + half
    return Interval(error.difference, low, high, n, error.method, confidence=1 - alpha)


def judge(
    interval: Interval, equivalence: Equivalence | None, *, higher_is_better: bool = True, sequential: bool = False
) -> Verdict:
    """The verdict of an interval of B - A and a test of equivalence."""
    if interval.low is None or interval.high is None:
        return Verdict.CANNOT_TELL
    if interval.low > 0 or interval.high < 0:
        return Verdict.BETTER if (interval.low > 0) == higher_is_better else Verdict.WORSE
    return Verdict.EQUIVALENT if _within(interval, equivalence, sequential=sequential) else Verdict.CANNOT_TELL


def _within(interval: Interval, equivalence: Equivalence | None, *, sequential: bool) -> bool:
    if equivalence is None or interval.low is None or interval.high is None:
        return False
    if sequential:
        return max(-interval.low, interval.high) < equivalence.margin
    return equivalence.p is not None and equivalence.p < 1 - interval.confidence


def more_runs(
    error: Error, n: tuple[int, int], groups: tuple[Sample, Sample], margin: float | None, *, in_pairs: bool,
    alpha: float = ALPHA,
) -> Needed:  # fmt: skip
    """How many more runs of each group (or pairs) would decide, if observed difference and SDs are the true ones.

    The smaller of two numbers: to find the difference, or to show that it is within the margin, with a power of 80 %.
    """
    if in_pairs:
        variances, sizes = [error.standard_error**2 * n[0]], [n[0]]
    else:
        sds = [describe.sample_sd(group) if group.size > 1 else None for group in groups]
        # A single run has the SD of the others.
        others = max(sd for sd in sds if sd is not None)
        variances, sizes = [(others if sd is None else sd) ** 2 for sd in sds], list(n)

    def of(k: int) -> tuple[float, int]:
        spread = math.sqrt(sum(variance / (size + k) for variance, size in zip(variances, sizes, strict=True)))
        return spread, sum(size + k - 1 for size in sizes)

    def tells(k: int) -> bool:
        spread, df = of(k)
        return power_of_t(abs(error.difference), spread, df, alpha) >= POWER

    def equal(k: int) -> bool:
        spread, df = of(k)
        return margin is not None and power_of_tost(margin, spread, df, alpha, abs(error.difference)) >= POWER

    answers = [smallest(tells, 1)] if error.difference else []
    if margin is not None and abs(error.difference) < margin:
        answers.append(smallest(equal, 1))
    counts = [answer.n for answer in answers if answer.n is not None]
    return Needed(min(counts)) if counts else Needed(None, "no practical number of runs would: state a margin")


def all_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Every pair of groups, (A, B) in their order.

    >>> all_pairs(["x", "y", "z"])
    [('x', 'y'), ('x', 'z'), ('y', 'z')]
    """
    return [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]


def _equivalence(error: Error | str, margin: float | None, n: tuple[int, int], alpha: float) -> Equivalence | None:
    if margin is None:
        return None
    if isinstance(error, str):
        return Equivalence.undefined(margin, n, error)
    return tost(error.difference, error.standard_error, error.df, margin, n, alpha)


def _permutation(groups: tuple[Sample, Sample], gaps: Sample | None, rng: np.random.Generator) -> tuple[Outcome, float]:
    if gaps is not None:
        exact = gaps.size <= EXACT_SIGNS_UP_TO
        resamples = enough(max(gaps.size, 1))
        floor = 2.0 ** (1 - max(gaps.size, 1)) if exact else 1 / (resamples + 1)
        return sign_permutation(gaps, rng, resamples), min(floor, 1.0)
    sizes = tuple(group.size for group in groups)
    ways, resamples = math.comb(sum(sizes), min(sizes)), enough(max(sum(sizes), 1))
    # With equal groups each split has a mirror image, as far off on the other side.
    floor = (1 + (sizes[0] == sizes[1])) / ways if ways <= EXACT_SPLITS_UP_TO else 1 / (resamples + 1)
    return permutation_test(groups[1], groups[0], rng, resamples), min(floor, 1.0)


def _test(error: Error | str, groups: tuple[Sample, Sample], *, in_pairs: bool) -> Outcome:
    sizes = (groups[0].size,) if in_pairs else (groups[0].size, groups[1].size)
    if isinstance(error, str):
        return Outcome.undefined("paired t" if in_pairs else "Welch t", sizes, error)
    t = error.difference / error.standard_error
    return Outcome(error.method, t, float(2 * special.stdtr(error.df, -abs(t))), sizes, (error.df,))


def _varied(values: Sample) -> bool:
    return not fault(values, 2, spread=True)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _width(interval: Interval) -> float | None:
    return None if interval.low is None or interval.high is None else interval.high - interval.low
