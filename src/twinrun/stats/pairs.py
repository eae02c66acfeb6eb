"""Means over the pairs of runs within cells, such as churn and the distance of heads, with intervals and ratios."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from twinrun.stats import describe
from twinrun.stats.churn import class_counts, flip_shares, mean_churn
from twinrun.stats.samples import UNDEFINED, Interval
from twinrun.stats.weights import mean_relative_distance

CONFIDENCE = 0.95
METHOD = "t of the logarithm"


@dataclass(frozen=True)
class PairMean:
    """A mean over the pairs of runs within cells, averaged over the cells; NaN where no cell has a pair."""

    value: float
    over_runs: float  # variance of its logarithm: jackknife over the runs of each cell
    df: int
    images: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))  # share of each test image in it

    def interval(self) -> Interval:
        """The 95 % t interval of its logarithm."""
        return _interval(self.value, self.over_runs, self.df, self.images - 1)

    def ratio(self, other: PairMean) -> Interval:
        """This mean divided by another over the same test images, which vary in both alike."""
        if not (self.value > 0 and other.value > 0):
            return Interval(None, None, None, 0, CONFIDENCE, METHOD, f"{UNDEFINED}a mean is 0 or missing")
        df = _satterthwaite([(self.over_runs, self.df), (other.over_runs, other.df)])
        return _interval(self.value / other.value, self.over_runs + other.over_runs, df, self.images - other.images)


def _interval(value: float, over_runs: float, df: float, images: NDArray[np.float64]) -> Interval:
    over_images = math.fsum(np.square(images)) / max(len(images) - 1, 1) / len(images) if len(images) else 0.0
    variance = over_runs + over_images
    if math.isnan(value):
        return Interval(None, None, None, 0, CONFIDENCE, METHOD, f"{UNDEFINED}no cell has two runs")
    if not (value > 0 and variance > 0 and math.isfinite(over_runs)):
        why = "three runs in each cell that differ are needed"
        return Interval(value, None, None, 0, CONFIDENCE, METHOD, UNDEFINED + why)
    degrees = _satterthwaite([(over_runs, df), (over_images, max(len(images) - 1, 1))])
    half = min(float(special.stdtrit(degrees, (1 + CONFIDENCE) / 2)) * math.sqrt(variance), 700.0)
    return Interval(value, value * math.exp(-half), value * math.exp(half), 0, CONFIDENCE, METHOD)


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
    value = describe.mean([statistic(cell, list(range(size))) for cell, size in kept])
    variance, df = 0.0, 0
    for cell, size in kept:
        if size < 3:
            return PairMean(value, math.nan, 0)
        without = [statistic(cell, [run for run in range(size) if run != left]) for left in range(size)]
        variance += (size - 1) / size * math.fsum(np.square(np.array(without) - describe.mean(without)))
        df += size - 2  # a pair holds two runs
    log_variance = variance / len(kept) ** 2 / value**2 if value > 0 else math.nan
    if images is None:
        return PairMean(value, log_variance, df)
    return PairMean(value, log_variance, df, images / value if value > 0 else images)


def churn_of_cells(predicted: Sequence[Sequence[NDArray[np.integer]]], examples: int, classes: int) -> PairMean:
    """Churn from the predicted classes (examples,) of the runs of each cell."""
    full = [class_counts(runs, examples, classes) for runs in predicted]
    sizes = [len(runs) for runs in predicted]

    def churn(cell: int, runs: list[int]) -> float:
        counts = full[cell].copy()
        for left in set(range(sizes[cell])) - set(runs):
            counts[np.arange(examples), predicted[cell][left]] -= 1
        return mean_churn(counts, len(runs))

    shares = [flip_shares(counts, size) for counts, size in zip(full, sizes, strict=True) if size > 1]
    return pair_mean(sizes, churn, np.mean(shares, axis=0) if shares else None)


def distance_of_cells(vectors: Sequence[NDArray[np.floating]]) -> PairMean:
    """Relative distance of the weights (runs, components) of each cell."""
    return pair_mean([len(cell) for cell in vectors], lambda cell, runs: mean_relative_distance(vectors[cell][runs]))
