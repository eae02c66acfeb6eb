"""How far the head weights of twins drift apart: component-wise SD and pairwise cosine similarity."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class CosineSummary(NamedTuple):
    """Cosine similarity over all pairs of runs; all three NaN and a reason where it is not defined."""

    mean: float
    minimum: float
    maximum: float
    reason: str = ""


def mean_component_sd(weights: NDArray[np.floating]) -> float:
    """SD of each component over the runs with 1/n, averaged over the components (thesis, Figure 5.10).

    `weights` is (runs, components); NaN without runs or components, 0 for one run.
    """
    if not weights.size:
        return math.nan
    # Runs with the same bits have no spread; the rounding of their mean would show as one.
    if (weights == weights[0]).all():
        return 0.0
    return float(np.std(weights.astype(np.float64), axis=0).mean())


def pairwise_cosine(weights: NDArray[np.floating]) -> CosineSummary:
    """Mean, minimum and maximum cosine similarity of all pairs of rows of (runs, components) (thesis, 5.11-5.12)."""
    runs = len(weights)
    if runs < 2:
        return CosineSummary(math.nan, math.nan, math.nan, "a pair needs two runs")
    wide = weights.astype(np.float64)
    # Scaled by the largest component first, so that squares of tiny weights do not vanish.
    largest = np.abs(wide).max(axis=1, initial=0.0, keepdims=True)
    if not np.isfinite(largest).all():
        return CosineSummary(math.nan, math.nan, math.nan, "a weight is not finite")
    if (largest == 0).any():
        return CosineSummary(math.nan, math.nan, math.nan, "a head is all zeros and has no direction")
    wide = wide / largest
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[np.triu_indices(runs, 1)]
    # Twelve decimals lie above the rounding of these sums, which may depend on the number of cores.
    pairs = np.clip(np.round(pairs, 12), -1.0, 1.0)
    return CosineSummary(float(pairs.mean().round(12)), float(pairs.min()), float(pairs.max()))


def mean_relative_distance(weights: NDArray[np.floating]) -> float:
    """Mean of |w1 - w2| / ((|w1| + |w2|) / 2) over all pairs of rows of (runs, components); 0 for equal bits.

    NaN for fewer than two runs, weights that are not finite, or a pair of zero heads.

    >>> mean_relative_distance(np.array([[3.0, 4.0], [0.0, 5.0]]))  # lengths 5, distance sqrt(10)
    0.632455532034
    """
    wide = weights.astype(np.float64)
    if len(wide) < 2 or not np.isfinite(wide).all():
        return math.nan
    first, second = np.triu_indices(len(wide), 1)
    lengths = np.linalg.norm(wide, axis=1)
    scale = (lengths[first] + lengths[second]) / 2
    if (scale == 0).any():
        return math.nan
    # Seen from the first run, not from the origin: equal bits are at 0, and close heads keep their digits.
    seen = wide - wide[0]
    gram = seen @ seen.T
    squares = np.diag(gram)[first] + np.diag(gram)[second] - 2 * gram[first, second]
    return round(float((np.sqrt(np.maximum(squares, 0.0)) / scale).mean()), 12)


def displacement_cosine(weights: NDArray[np.floating], start: NDArray[np.floating]) -> CosineSummary:
    """`pairwise_cosine` of the ways from each run's initialization, both (runs, components)."""
    moved = weights.astype(np.float64) - start.astype(np.float64)
    if len(moved) and np.isfinite(moved).all() and not moved.any():
        return CosineSummary(math.nan, math.nan, math.nan, "nothing has moved from the initialization")
    found = pairwise_cosine(moved)
    return found if "zeros" not in found.reason else found._replace(reason="a head has not moved")
