"""Jensen-Shannon distance between the prediction probabilities of two runs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from twinrun.collect.study import Study


def js_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Jensen-Shannon distance of each row of two (examples, classes) arrays: 0 for equal rows, 1 for disjoint ones.

    The square root of H((p + q) / 2) - (H(p) + H(q)) / 2 with the entropy H in bits (Endres and Schindelin 2003).

    >>> js_distance(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]])).tolist()
    [1.0, 0.0]
    """
    p, q = first.astype(np.float64), second.astype(np.float64)
    nats = entr((p + q) / 2).sum(axis=1) - (entr(p).sum(axis=1) + entr(q).sum(axis=1)) / 2
    # Float32 probabilities do not sum to 1 exactly: neither end may be crossed by their rounding.
    distances: NDArray[np.float64] = np.sqrt(np.clip(nats / math.log(2), 0.0, 1.0))
    return distances


def chosen_pairs(runs: int, limit: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """All pairs of `runs` runs, or `limit` different ones drawn at random where there are more."""
    total = runs * (runs - 1) // 2
    if total <= limit:
        return [(first, second) for first in range(runs) for second in range(first + 1, runs)]
    pairs: set[tuple[int, int]] = set()
    while len(pairs) < limit:
        first, second = sorted(rng.choice(runs, 2, replace=False).tolist())
        pairs.add((first, second))
    return sorted(pairs)


def js_distances(study: Study, task: str, rows: list[int], limit: int, rng: np.random.Generator) -> tuple[float, int]:
    """Mean Jensen-Shannon distance over images and at most `limit` pairs of runs, and the number of pairs."""
    pairs = chosen_pairs(len(rows), limit, rng)
    if not pairs or not len(study.labels(task)):
        return math.nan, 0
    means = []
    for first, second in pairs:
        one, other = study.stream(task, [rows[first], rows[second]])
        means.append(float(js_distance(one, other).mean()))
    # Twelve decimals lie above the rounding of these sums.
    return round(math.fsum(means) / len(means), 12), len(pairs)
