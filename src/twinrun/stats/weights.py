"""How far the weights of twins drift apart: heads, and layers from sampled coordinates with the sampling error."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from twinrun.stats.samples import UNDEFINED, Estimate

PARTS = 32  # of the coordinates, left out one after the other for the sampling error


class CosineSummary(NamedTuple):
    """Cosine similarity over all pairs of runs; all three None and a reason where it is not defined."""

    mean: float | None
    minimum: float | None
    maximum: float | None
    reason: str = ""

    @classmethod
    def undefined(cls, reason: str) -> CosineSummary:
        """No result."""
        return cls(None, None, None, reason)


def mean_component_sd(weights: NDArray[np.floating]) -> Estimate:
    """SD of each component over the runs with 1/n, averaged over the components (thesis, Figure 5.10).

    `weights` is (runs, components); 0 for one run.
    """
    if not weights.size:
        return Estimate(None, f"{UNDEFINED}no runs or no components")
    # Runs with the same bits have no spread; the rounding of their mean would show as one.
    if (weights == weights[0]).all():
        return Estimate(0.0)
    value = float(np.std(weights.astype(np.float64), axis=0).mean())
    return Estimate(value) if math.isfinite(value) else Estimate(None, f"{UNDEFINED}a weight is not finite")


def pairwise_cosine(weights: NDArray[np.floating]) -> CosineSummary:
    """Mean, minimum and maximum cosine similarity of all pairs of rows of (runs, components) (thesis, 5.11-5.12)."""
    runs = len(weights)
    if runs < 2:
        return CosineSummary.undefined("a pair needs two runs")
    wide = weights.astype(np.float64)
    # Scaled by the largest component first, so that squares of tiny weights do not vanish.
    largest = np.abs(wide).max(axis=1, initial=0.0, keepdims=True)
    if not np.isfinite(largest).all():
        return CosineSummary.undefined("a weight is not finite")
    if (largest == 0).any():
        return CosineSummary.undefined("a head is all zeros and has no direction")
    wide = wide / largest
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[np.triu_indices(runs, 1)]
    # Twelve decimals lie above the rounding of these sums, which may depend on the number of cores.
    pairs = np.clip(np.round(pairs, 12), -1.0, 1.0)
    return CosineSummary(float(pairs.mean().round(12)), float(pairs.min()), float(pairs.max()))


def mean_relative_distance(weights: NDArray[np.floating]) -> Estimate:
    """Mean of |w1 - w2| / ((|w1| + |w2|) / 2) over all pairs of rows of (runs, components); 0 for equal bits.

    It takes two runs, finite weights, and no pair of zero heads.

    >>> mean_relative_distance(np.array([[3.0, 4.0], [0.0, 5.0]])).value  # lengths 5, distance sqrt(10)
    0.632455532034
    """
    wide = weights.astype(np.float64)
    if len(wide) < 2 or not np.isfinite(wide).all():
        why = "a pair needs two runs" if len(wide) < 2 else "a weight is not finite"
        return Estimate(None, f"{UNDEFINED}{why}")
    first, second = np.triu_indices(len(wide), 1)
    lengths = np.linalg.norm(wide, axis=1)
    scale = (lengths[first] + lengths[second]) / 2
    if (scale == 0).any():
        return Estimate(None, f"{UNDEFINED}two heads are all zeros")
    # Seen from the first run, not from the origin: equal bits are at 0, and close heads keep their digits.
    seen = wide - wide[0]
    gram = seen @ seen.T
    squares = np.diag(gram)[first] + np.diag(gram)[second] - 2 * gram[first, second]
    return Estimate(round(float((np.sqrt(np.maximum(squares, 0.0)) / scale).mean()), 12))


def displacement_cosine(weights: NDArray[np.floating], start: NDArray[np.floating]) -> CosineSummary:
    """`pairwise_cosine` of the ways from each run's initialization, both (runs, components)."""
    moved = weights.astype(np.float64) - start.astype(np.float64)
    if len(moved) and np.isfinite(moved).all() and not moved.any():
        return CosineSummary.undefined("nothing has moved from the initialization")
    summary = pairwise_cosine(moved)
    return summary if "zeros" not in summary.reason else CosineSummary.undefined("a head has not moved")


class Measures(NamedTuple):
    """Of each layer the mean over all pairs of runs, (layers, 1 + parts); NaN where a pair has no value.

    The first column is from all coordinates, the others with one part of them left out.
    """

    distance: NDArray[np.float64]  # |w1 - w2| / ((|w1| + |w2|) / 2)
    cosine: NDArray[np.float64]
    displacement: NDArray[np.float64]  # cosine of the ways from the initialization


def measures(values: NDArray[np.floating], start: NDArray[np.floating] | None, parts: int = 0) -> Measures:
    """Compare the rows of `values` (runs, layers, coordinates) with one another, layer by layer.

    `start` holds the initializations in the same shape. A layer with fewer coordinates is filled up with zeros, which
    changes none of the measures. `parts` divides the coordinates; 0 leaves none out.

    >>> result = measures(np.array([[[3.0, 4.0]], [[0.0, 5.0]]]), None)
    >>> print(round(result.distance[0, 0], 4), result.cosine[0, 0])
    0.6325 0.8
    """
    wide = values.astype(np.float64).transpose(1, 0, 2)
    runs = wide.shape[1]
    if runs < 2:
        nothing = np.full((len(wide), 1 + parts), math.nan)
        return Measures(nothing, nothing, nothing)
    first, second = np.triu_indices(runs, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = _grams(wide, parts)
        length = _lengths(own)
        # Seen from the first run, not from the origin: equal bits are at 0, and close layers keep their digits.
        seen = _grams(wide - wide[:, :1], parts)
        corner = np.diagonal(seen, axis1=2, axis2=3)
        squares = corner[..., first] + corner[..., second] - 2 * seen[..., first, second]
        distances = np.sqrt(np.maximum(squares, 0.0)) / ((length[..., first] + length[..., second]) / 2)
        cosines = own[..., first, second] / (length[..., first] * length[..., second])
        moved = np.full_like(cosines, math.nan)
        if start is not None:
            ways = _grams(wide - start.astype(np.float64).transpose(1, 0, 2), parts)
            moved = ways[..., first, second] / (_lengths(ways)[..., first] * _lengths(ways)[..., second])
    return Measures(_mean(distances), _mean(np.clip(cosines, -1, 1)), _mean(np.clip(moved, -1, 1)))


def _grams(wide: NDArray[np.float64], parts: int) -> NDArray[np.float64]:
    """Inner products of the runs of each layer, (layers, 1 + parts, runs, runs)."""
    total = (wide @ wide.transpose(0, 2, 1))[:, None]
    if not parts:
        return total
    layers, runs, count = wide.shape
    filled = np.zeros((layers, runs, -(-count // parts) * parts))
    filled[..., :count] = wide
    # Neighbours go to different parts: each part sees the whole layer.
    split = filled.reshape(layers, runs, -1, parts).transpose(0, 3, 1, 2)
    return np.concatenate([total, total - split @ split.swapaxes(2, 3)], axis=1)


def _lengths(grams: NDArray[np.float64]) -> NDArray[np.float64]:
    # What is left of a length when all of it was in the part left out is rounding, on either side of 0.
    return np.sqrt(np.maximum(np.diagonal(grams, axis1=2, axis2=3), 0.0))


def _mean(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    # Twelve decimals lie above the rounding of these sums, which may depend on the number of cores.
    mean: NDArray[np.float64] = np.round(pairs, 12).mean(axis=-1).round(12)
    return np.where(np.isfinite(mean), mean, math.nan)


def sampling_error(values: NDArray[np.float64], recorded: int, size: int) -> float:
    """Standard error of the first of `values` from the others, each with one part of the coordinates left out.

    The delete-a-group jackknife (Kott 2001) with the factor of a finite population: 0 when all `size` coordinates of
    the layer were recorded. NaN where a value is missing.
    """
    if recorded >= size:
        return 0.0
    left_out = values[1:]
    spread = float(np.square(left_out - left_out.mean()).sum())
    return round(math.sqrt((1 - recorded / size) * (len(left_out) - 1) / len(left_out) * spread), 12)


def u_centered(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """The U-centered linear kernel of (examples, features): rows and columns sum to 0, and the diagonal is 0.

    Székely and Rizzo 2014, eq. 2.3; it takes four examples.
    """
    wide = features.astype(np.float64)
    wide = wide - wide.mean(axis=0)  # changes no result; smaller numbers, less rounding
    count = len(wide)
    kernel = wide @ wide.T
    np.fill_diagonal(kernel, 0.0)
    rows = kernel.sum(axis=0) / (count - 2)
    centered: NDArray[np.float64] = kernel - rows[:, None] - rows[None, :] + rows.sum() / (count - 1)
    np.fill_diagonal(centered, 0.0)
    return centered


def debiased_cka(features: NDArray[np.floating]) -> CosineSummary:
    """Mean, minimum and maximum debiased linear CKA over all pairs of runs of (runs, examples, features).

    CKA (Kornblith et al. 2019) with the unbiased estimator of HSIC (Song et al. 2012) in numerator and denominator,
    as in Murphy et al. 2024: about 0 for independent features even where these are more than the examples, and may be
    negative. It is the cosine of two U-centered kernels.
    """
    if len(features) < 2:
        return CosineSummary.undefined("a pair needs two runs")
    if features.shape[1] < 4:
        return CosineSummary.undefined("CKA without bias needs four images")
    if not np.isfinite(features).all():
        return CosineSummary.undefined("a feature is not finite")
    if any((run == run[0]).all() for run in features):
        return CosineSummary.undefined("the features of a run are the same for all images")
    return pairwise_cosine(np.stack([u_centered(run).ravel() for run in features]))
