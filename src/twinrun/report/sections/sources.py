"""How much each source of randomness does when it alone is free: SD, churn and distance of heads, with ratios.

All intervals are over runs: of an SD by chi-square, of a ratio of SDs by F; of means over pairs by the jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from twinrun.collect.study import Cell, Study
from twinrun.stats import churn as predictions
from twinrun.stats import describe as statistics
from twinrun.stats.weights import mean_relative_distance

SINGLE = ("init", "shuffle", "augment", "dropout", "ulp")  # arms in which one thing is free
CONFIDENCE = 0.95
_TAIL = (1 + CONFIDENCE) / 2


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where it is not defined."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class PooledSd:
    """The SD within cells, pooled over them: sqrt(sum of squares / df)."""

    variance: float
    df: int

    @classmethod
    def of(cls, cells: Sequence[Sequence[float]]) -> PooledSd:
        """From the values of each cell; cells with fewer than two values add nothing."""
        kept = [cell for cell in cells if len(cell) > 1]
        df = sum(len(cell) - 1 for cell in kept)
        squares = math.fsum(statistics.sample_sd(cell) ** 2 * (len(cell) - 1) for cell in kept)
        return cls(squares / df if df else math.nan, df)

    def estimate(self) -> Estimate:
        """The SD with its chi-square interval, which supposes normal values of one variance.

        >>> found = PooledSd.of([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]).estimate()
        >>> print(f"{found.value:.3f} {found.low:.3f} {found.high:.3f}")
        1.000 0.599 2.874
        """
        if not self.df or not self.variance > 0:
            return Estimate(math.sqrt(self.variance) if self.df else math.nan)
        low, high = statistics.sd_factors(self.df + 1, CONFIDENCE)
        sd = math.sqrt(self.variance)
        return Estimate(sd, sd * low, sd * high)

    def ratio(self, other: PooledSd) -> Estimate:
        """This SD divided by another, with the interval of F at both df."""
        if not (self.df and other.df and self.variance > 0 and other.variance > 0):
            return Estimate(math.nan)
        ratio = self.variance / other.variance
        low, high = (float(stats.f.ppf(share, self.df, other.df)) for share in (_TAIL, 1 - _TAIL))
        return Estimate(*(math.sqrt(value) for value in (ratio, ratio / low, ratio / high)))


@dataclass(frozen=True)
class PairMean:
    """A mean over the pairs of runs within cells, averaged over the cells."""

    value: float
    over_runs: float  # variance of its logarithm: jackknife over the runs of each cell
    df: int
    images: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # share of each test image in it

    def estimate(self) -> Estimate:
        """With the t interval of its logarithm."""
        return self._interval(self.value, self.over_runs, self.df, self.images - 1)

    def ratio(self, other: PairMean) -> Estimate:
        """This mean divided by another over the same test images, which vary in both alike."""
        if not (self.value > 0 and other.value > 0):
            return Estimate(math.nan)
        df = _satterthwaite([(self.over_runs, self.df), (other.over_runs, other.df)])
        return self._interval(
            self.value / other.value, self.over_runs + other.over_runs, df, self.images - other.images
        )

    @staticmethod
    def _interval(value: float, over_runs: float, df: float, images: NDArray[np.float64]) -> Estimate:
        over_images = math.fsum(np.square(images)) / max(len(images) - 1, 1) / len(images) if len(images) else 0.0
        variance = over_runs + over_images
        if not (value > 0 and variance > 0 and math.isfinite(over_runs)):
            return Estimate(value)
        degrees = _satterthwaite([(over_runs, df), (over_images, max(len(images) - 1, 1))])
        half = min(float(special.stdtrit(degrees, _TAIL)) * math.sqrt(variance), 700.0)
        return Estimate(value, value * math.exp(-half), value * math.exp(half))


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / df for variance, df in parts if df > 0)
    return max(total**2 / spread, 1.0) if spread > 0 else 1.0


def pair_mean(
    sizes: Sequence[int], statistic: Callable[[int, list[int]], float], images: NDArray[np.float64] | None = None
) -> PairMean:
    """The mean over cells of `statistic(cell, places of the runs)`; `sizes` is how many runs each cell has.

    The variance of its logarithm is that of the jackknife: in each cell (n - 1)/n times the sum of the squares of what
    leaving one run out changes. It needs three runs in each cell. In 1,500 simulated studies of three cells of five
    runs the interval of a mean distance covers 95.9 %, that of a ratio 95.3 %. `images` are the shares of the test
    images.
    """
    kept = [(cell, size) for cell, size in enumerate(sizes) if size > 1]
    if not kept:
        return PairMean(math.nan, math.nan, 0)
    values = [statistic(cell, list(range(size))) for cell, size in kept]
    value, variance, df = statistics.mean(values), 0.0, 0
    for cell, size in kept:
        if size < 3:
            return PairMean(value, math.nan, 0)
        without = [statistic(cell, [run for run in range(size) if run != left]) for left in range(size)]
        variance += (size - 1) / size * math.fsum(np.square(np.array(without) - statistics.mean(without)))
        df += size - 2  # a pair holds two runs
    log_variance = variance / len(kept) ** 2 / value**2 if value > 0 else math.nan
    if images is None:
        return PairMean(value, log_variance, df)
    return PairMean(value, log_variance, df, images / value if value > 0 else images)


def sd_of(study: Study, cells: Sequence[Cell], arm: str, metric: str) -> PooledSd:
    """SD of a metric over the complete runs of an arm, pooled over the cells."""
    return PooledSd.of([study.runs(cell, arm)[metric].dropna().tolist() for cell in cells])


def churn_of(study: Study, cells: Sequence[Cell], arm: str) -> PairMean:
    """Churn over the complete runs of an arm of some cells of one task."""
    task, classes = cells[0].task, len(study.info["tasks"][cells[0].task]["classes"])
    examples = len(study.labels(task))
    predicted = []
    for cell in cells:
        rows = study.runs(cell, arm)["row"].tolist()
        predicted.append([predictions.predicted_classes(one) for one in study.stream(task, rows)])
    full = [predictions.class_counts(runs, examples, classes) for runs in predicted]

    def churn(cell: int, runs: list[int]) -> float:
        counts = full[cell].copy()
        for left in set(range(len(predicted[cell]))) - set(runs):
            counts[np.arange(examples), predicted[cell][left]] -= 1
        return predictions.mean_churn(counts, len(runs))

    sizes = [len(runs) for runs in predicted]
    shares = [
        (size * size - np.square(counts).sum(axis=1)) / (size * (size - 1))
        for counts, size in zip(full, sizes, strict=True)
        if size > 1
    ]
    return pair_mean(sizes, churn, np.mean(shares, axis=0) if shares else None)


def distance_of(study: Study, cells: Sequence[Cell], arm: str) -> PairMean:
    """Relative distance of the heads at the last checkpoint over the complete runs of an arm of some cells."""
    heads = study.heads(cells[0].task)
    vectors = [np.array(heads[study.runs(cell, arm)["row"].tolist(), -1]) for cell in cells] if heads.shape[1] else []
    sizes = [len(one) for one in vectors]
    return pair_mean(sizes, lambda cell, runs: mean_relative_distance(vectors[cell][runs]))


def source_arms(study: Study) -> list[str]:
    """The arms that can be compared, single sources first; empty where the study has no single source."""
    counts = study.results.groupby("arm")["label"].nunique()
    several = [arm for arm in (*SINGLE, "nd", "all") if counts.get(arm, 0) > 1]
    return several if any(arm in SINGLE for arm in several) else []
