"""How much of the spread over runs the finite test set makes: the runs of an endless one would differ less."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from twinrun.stats.samples import UNDEFINED, Interval

WIDEST = 0.9  # an interval of a share that is wider says nothing


def finite_test_share(cells: Sequence[NDArray[np.bool_]], confidence: float = 0.95) -> Interval:
    """Share of the variance of accuracy over runs that comes from the finite test set, pooled over cells.

    `cells` holds what each run got right, (runs, images) of each cell. With V the variance of the accuracies and v_i
    that of image i being right, over N images, independent errors make q = sum(v_i) / N^2 of V, and the share is
    1 - N / (N - 1) (1 - q / V) (Jordan 2023, theorem on variance). Both are summed over the cells, weighted by degrees
    of freedom: a mean or median of the cells' ratios reads 0.64, 0.87 and 1.99 at 5, 3 and 2 runs where 0.51 is true.
    The interval is the chi-square one of V, q taken as known; cut at 0 and 1, and none where it is wider than 0.9.

    >>> right = np.arange(10) < np.array([[6], [9], [7], [8]])
    >>> print(f"{finite_test_share([right]).value:.2f}")
    0.44
    """
    kept = [cell for cell in cells if len(cell) > 1 and cell.shape[1] > 1]
    df = sum(len(cell) - 1 for cell in kept)
    method = "pooled, chi-square"
    if not kept:
        return Interval(None, None, None, 0, confidence, method, f"{UNDEFINED}no cell with two runs and two images")
    spread, own, rest = [], [], []
    for cell in kept:
        runs, images = cell.shape
        right, counts = cell.sum(axis=1, dtype=np.int64), cell.sum(axis=0, dtype=np.int64)
        # Whole numbers up to one division each: no rounding that depends on the order of the runs.
        squares = runs * int(np.square(right).sum()) - int(right.sum()) ** 2
        single = int((counts * (runs - counts)).sum())
        spread.append(squares / (runs * images**2))
        own.append(single / (runs * images**2))
        rest.append((squares - single) / (runs * images * (images - 1)))
    total = math.fsum(spread)
    if total == 0:
        return Interval(None, None, None, df, confidence, method, f"{UNDEFINED}all runs are equally accurate")
    value, ratio = 1 - math.fsum(rest) / total, math.fsum(own) / total
    tail = (1 - confidence) / 2
    low, high = (ratio * float(special.chdtri(df, share)) / df for share in (1 - tail, tail))
    low, high = min(low, 1.0), min(high, 1.0)
    if high - low > WIDEST:
        why = f"{UNDEFINED}{df} degrees of freedom leave anything from {low:.2f} to {high:.2f}"
        return Interval(value, None, None, df, confidence, method, why)
    return Interval(value, low, high, df, confidence, method)
