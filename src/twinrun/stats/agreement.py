"""What accuracy hides: how far the predictions of some runs of one model agree, measured in one pass over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from twinrun.stats import describe
from twinrun.stats.churn import (
    churn_interval,
    churn_ratio,
    class_counts,
    error,
    flip_shares,
    mean_churn,
    predicted_classes,
)
from twinrun.stats.finite_test_set import TestSetPart, test_set_part
from twinrun.stats.samples import Interval

JS_PAIRS = 45  # all pairs of ten runs; of more runs so many are drawn
Stream = Callable[[list[int]], Iterator[NDArray[np.floating]]]  # of class probabilities (examples, classes) of runs


@dataclass(frozen=True)
class Agreement:
    """Of some runs that should agree; None or NaN is what they are too few for."""

    n: int
    churn: float | None
    interval: Interval  # of churn, over images and runs
    error: float
    js_distance: float  # mean over pairs and images
    js_pairs: int
    ensemble_gain: float
    test_set: TestSetPart
    flips: NDArray[np.float64]  # (examples,): share of the pairs that disagree on the example; empty below two runs
    wrong: NDArray[np.float64]  # (examples,): share of the runs that err on the example
    recalls: NDArray[np.float64]  # (runs, classes); NaN for a class without examples

    @property
    def churn_over_error(self) -> float | None:
        """None when there is no error."""
        return churn_ratio(self.churn, self.error).value


def agreement(
    stream: Stream, rows: list[int], labels: NDArray[np.int64], classes: int, rng: np.random.Generator
) -> Agreement:
    """Measure the runs at `rows`, whose probabilities `stream` gives one after the other."""
    n, examples = len(rows), len(labels)
    predicted = np.empty((n, examples), np.min_scalar_type(max(classes - 1, 0)))
    total = np.zeros((examples, classes))
    for place, probabilities in enumerate(stream(rows)):
        predicted[place] = predicted_classes(probabilities)
        total += probabilities
    counts = class_counts(predicted, examples, classes)
    mean_error, several = describe.mean([error(row, labels) for row in predicted]), n > 1
    js_distance, js_pairs = mean_js_distance(stream, rows, examples, rng)
    return Agreement(
        n=n,
        churn=mean_churn(counts, n).value,
        interval=churn_interval(predicted, counts),
        error=mean_error,
        js_distance=js_distance,
        js_pairs=js_pairs,
        ensemble_gain=mean_error - (error(predicted_classes(total), labels) if several else math.nan),
        test_set=test_set_part(predicted == labels),
        flips=flip_shares(counts, n) if several else np.empty(0),
        wrong=1 - counts[np.arange(examples), labels] / n if n else np.full(examples, math.nan),
        recalls=np.array([recall_by_class(row, labels, classes) for row in predicted]).reshape(n, classes),
    )


def recall_by_class(predicted: NDArray[np.integer], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Share of the examples of each class that are predicted as it, (classes,); NaN for a class without examples.

    >>> recall_by_class(np.array([0, 1, 1]), np.array([0, 0, 1]), 3).tolist()
    [0.5, 1.0, nan]
    """
    right = np.bincount(labels[predicted == labels], minlength=classes)
    total = np.bincount(labels, minlength=classes)
    recall: NDArray[np.float64] = np.divide(right, total, out=np.full(classes, math.nan), where=total > 0)
    return recall


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


def mean_js_distance(stream: Stream, rows: list[int], examples: int, rng: np.random.Generator) -> tuple[float, int]:
    """Mean Jensen-Shannon distance over images and at most `JS_PAIRS` pairs of runs, and the number of pairs."""
    pairs = chosen_pairs(len(rows), JS_PAIRS, rng)
    if not pairs or not examples:
        return math.nan, 0
    means = [float(js_distance(*stream([rows[first], rows[second]])).mean()) for first, second in pairs]
    # Twelve decimals lie above the rounding of these sums.
    return round(math.fsum(means) / len(means), 12), len(pairs)
