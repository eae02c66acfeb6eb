"""Churn: the share of test examples on which two runs disagree, over many runs, with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from twinrun.stats.samples import CONFIDENCE, UNDEFINED, Estimate, Interval

Classes = NDArray[np.intp]

FEW_RUNS = 5  # below, whether runs differ as a whole cannot be told: the interval always allows for it,
# with one degree of freedom more, for a t with one has no use


def predicted_classes(probabilities: NDArray[np.floating]) -> Classes:
    """The class of the highest probability, (examples, classes) -> (examples,); the first of equals on a tie.

    >>> predicted_classes(np.array([[0.2, 0.8], [0.5, 0.5]])).tolist()
    [1, 0]
    """
    classes: Classes = np.argmax(probabilities, axis=-1)
    return classes


def churn(first: NDArray[np.integer], second: NDArray[np.integer]) -> float:
    """Share of examples whose predicted class differs between two runs; raises ValueError without examples.

    >>> churn(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]))
    0.25
    """
    if first.shape != second.shape:
        raise ValueError(f"predictions of shapes {first.shape} and {second.shape}")
    if not first.size:
        raise ValueError("predictions of no examples")
    return float(np.mean(first != second))


def error(predicted: NDArray[np.integer], labels: NDArray[np.integer]) -> float:
    """Share of examples whose predicted class is not the label: churn against the truth.

    >>> error(np.array([0, 1]), np.array([0, 0]))
    0.5
    """
    return churn(predicted, labels)


def class_counts(predictions: Iterable[NDArray[np.integer]], examples: int, classes: int) -> NDArray[np.int64]:
    """How many runs predict each class for each example, (examples, classes); one run in memory at a time.

    >>> class_counts([np.array([0, 1]), np.array([0, 0])], 2, 2).tolist()
    [[2, 0], [1, 1]]
    """
    counts = np.zeros((examples, classes), np.int64)
    rows = np.arange(examples)
    for predicted in predictions:
        counts[rows, predicted] += 1
    return counts


def mean_churn(counts: NDArray[np.int64], runs: int) -> Estimate:
    """Churn averaged over all pairs of `runs` runs, from `class_counts`; it takes two runs and an example.

    Of R runs, (R^2 - sum_c counts_c^2) / 2 pairs disagree on an example: O(R) where pairs would be O(R^2), and exact,
    because everything before the division is a whole number.

    >>> mean_churn(np.array([[2, 0], [1, 1]]), 2).value
    0.5
    """
    if runs < 2 or not len(counts):
        few = f"{runs} of the 2 runs that it needs" if runs < 2 else "no examples"
        return Estimate(None, f"{UNDEFINED}{few}")
    disagreeing = (len(counts) * runs * runs - int(np.square(counts).sum())) // 2
    return Estimate(disagreeing / (len(counts) * runs * (runs - 1) // 2))


def churn_between(counts: Sequence[NDArray[np.int64]], runs: Sequence[int]) -> Estimate:
    """Churn averaged over all pairs of runs of two different groups, from each group's `class_counts` and its size.

    >>> churn_between([np.array([[2, 0], [1, 1]]), np.array([[1, 0], [0, 1]])], [2, 1]).value
    0.25
    """
    groups = [(part, size) for part, size in zip(counts, runs, strict=True) if size]
    if len(groups) < 2 or not len(groups[0][0]):
        few = f"{len(groups)} of the 2 groups that it needs" if len(groups) < 2 else "no examples"
        return Estimate(None, f"{UNDEFINED}{few}")

    def disagreeing(part: NDArray[np.int64], size: int) -> int:
        return (len(part) * size * size - int(np.square(part).sum())) // 2

    together, total = np.sum([part for part, _ in groups], axis=0), sum(size for _, size in groups)
    apart = disagreeing(together, total) - sum(disagreeing(part, size) for part, size in groups)
    return Estimate(apart / (len(together) * pairs_between(runs)))


def pairs_between(runs: Sequence[int]) -> int:
    """How many pairs there are of runs of two different groups of these sizes."""
    return (sum(runs) ** 2 - sum(size**2 for size in runs)) // 2


def flip_shares(counts: NDArray[np.int64], runs: int) -> NDArray[np.float64]:
    """Share of the pairs of runs that disagree on each example, (examples,), from `class_counts` of two runs or more.

    >>> flip_shares(np.array([[2, 0], [1, 1]]), 2).tolist()
    [0.0, 1.0]
    """
    shares: NDArray[np.float64] = (runs * runs - np.square(counts).sum(axis=1)) / (runs * (runs - 1))
    return shares


def most_flipping(shares: list[NDArray[np.float64]], most: int) -> tuple[list[int], NDArray[np.float64]]:
    """Places of the up to `most` examples that flip most, mean over groups of runs, and that mean of every example.

    Examples that never flip are left out; of equals the first is first.

    >>> most_flipping([np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.5, 0.0])], 3)[0]
    [1, 2]
    """
    # fsum: the same bits whatever the order of the groups.
    means = np.array([math.fsum(column) / len(shares) for column in zip(*shares, strict=True)])
    order = np.lexsort((np.arange(len(means)), -means))[:most]
    return [int(place) for place in order if means[place] > 0], means


def churn_ratio(churn_value: float | None, by: float | None) -> Estimate:
    """Churn divided by the test error, about 1 when twins differ as much as they err, or by another churn.

    >>> churn_ratio(0.1, 0.05).value
    2.0
    >>> churn_ratio(0.1, 0.0).reason
    'not defined: there is nothing to divide by'
    """
    if churn_value is None or by is None:
        return Estimate(None, f"{UNDEFINED}a churn or error is missing")
    return Estimate(churn_value / by) if by > 0 else Estimate(None, f"{UNDEFINED}there is nothing to divide by")


def churn_interval(predicted: NDArray[np.integer], counts: NDArray[np.int64]) -> Interval:
    """95 % interval of the mean pairwise churn U of `predicted` (runs, examples), for other images and other runs.

    `counts` is `class_counts` of the same predictions. With g_i the share of pairs that disagree on image i, of N,
    Var U = Var(g) / N + (R + 3) / (R - 1) max(J(U) - sum J(g_i) / N^2, 0), J being the jackknife variance over the
    runs: what images and runs make together is in the first two terms and is taken off once (two-way clustering:
    Cameron, Gelbach & Miller 2011; Owen 2007). The factor is for few runs that differ as a whole: churn is then the
    scale of few values, whose logarithm is skewed; without it such runs are covered in 91 to 92 % at R = 3 to 10.
    Student's t of log U has Satterthwaite's degrees of freedom, N - 1 for the images and, because a pair holds two
    runs, R - 2 for J(U) (R - 1 below five runs). Two runs are one pair, which says nothing of how runs differ, so they
    have no interval; `pairs.churn_over_seeds` has one over several seeds. What it covers: `coverage.table()`.

    >>> three = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]])
    >>> result = churn_interval(three, np.array([[3, 0], [3, 0], [2, 1], [0, 3]]))
    >>> result.low < result.value < result.high
    True
    >>> churn_interval(three[:2], np.array([[2, 0], [2, 0], [1, 1], [0, 2]])).reason
    'not defined: 2 of the 3 runs that it needs; one pair says nothing of how runs differ'
    """
    runs, images = predicted.shape
    method = "two-way t"
    if runs < 3 or images < 2:
        few = f"{runs} of the 3 runs" if runs < 3 else f"{images} of the 2 images"
        pair = "; one pair says nothing of how runs differ" if runs == 2 else ""
        known = mean_churn(counts, runs)
        return Interval(known.value, None, None, runs, method, f"{UNDEFINED}{few} that it needs{pair}")
    pairs = runs * (runs - 1) / 2
    # Sums by fsum: the same bits in any order of images and runs.
    disagreeing = (runs * runs - np.square(counts).sum(axis=1)) / 2
    churn = math.fsum(disagreeing) / (images * pairs)
    if churn == 0:
        return Interval(0.0, None, None, runs, method, f"{UNDEFINED}no two runs disagree on any image")
    over_images = math.fsum(np.square(disagreeing / pairs - churn)) / (images - 1) / images
    scale = (runs + 3) / (runs - 1)
    jackknife, over_runs = (scale * part for part in _over_runs(predicted, counts))
    variance = over_images + over_runs
    if variance == 0:
        why = f"{UNDEFINED}all images flip alike"
        return Interval(churn, None, None, runs, method, why)
    allowed = jackknife if over_runs > 0 or runs < FEW_RUNS else 0.0
    freedom = runs - 1 if runs < FEW_RUNS else runs - 2
    df = variance**2 / (over_images**2 / (images - 1) + allowed**2 / freedom)
    half = float(special.stdtrit(max(df, 1.0), (1 + CONFIDENCE) / 2)) * math.sqrt(variance) / churn
    half = min(half, 700.0)  # of an exponential that neither vanishes nor overflows
    low, high = churn * math.exp(-half), min(churn * math.exp(half), 1.0)
    return Interval(churn, low, high, runs, method)


def _over_runs(predicted: NDArray[np.integer], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Jackknife variance of churn over the runs, and what of it the runs make apart from single images; not below 0."""
    runs, images = predicted.shape
    kept = (runs - 1) * (runs - 2) / 2  # pairs without one run
    places = np.arange(images)
    # Run r disagrees on image i with runs - counts[i, predicted[r, i]] others.
    of_run = np.array([float((runs - counts[places, row]).sum()) for row in predicted]) / (images * kept)
    middle = math.fsum(of_run) / runs
    whole = (runs - 1) / runs * math.fsum(np.square(of_run - middle))
    others = (runs - counts).astype(float)
    squares = (counts * others**2).sum(axis=1) - (counts * others).sum(axis=1) ** 2 / runs
    single = (runs - 1) / runs * math.fsum(squares / kept**2) / images**2
    return whole, max(whole - single, 0.0)
