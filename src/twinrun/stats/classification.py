"""Test-set metrics of predictions that were made elsewhere: accuracy, F1, AUC and loss, or why one is not defined."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Metrics(NamedTuple):
    """Shares in [0, 1], the loss in nats; None is not defined for this test set, or takes probabilities."""

    accuracy: float
    f1: float | None  # binary: of the second class; else mean over the classes that the test set has
    auc: float | None  # binary: of the second class; else mean of one class against the rest
    loss: float | None


def classification_metrics(
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    classes: int,
    probabilities: NDArray[np.floating] | None = None,
) -> Metrics:
    """Of labels and predicted classes (n,), and probabilities (n, classes) where there are any."""
    right = predicted == labels
    hits = np.bincount(labels[right], minlength=classes)
    actual, named = (np.bincount(values, minlength=classes) for values in (labels, predicted))
    of_class = [2 * int(h) / int(a + p) for h, a, p in zip(hits, actual, named, strict=True) if a]
    f1 = (of_class[-1] if actual[1] else None) if classes == 2 else math.fsum(of_class) / len(of_class)
    auc = loss = None
    if probabilities is not None:
        with np.errstate(divide="ignore"):
            true = np.log(probabilities[np.arange(len(labels)), labels].astype(np.float64))
            if classes == 2:  # by the logit, for confident probabilities are all 1
                logs = np.log(probabilities.astype(np.float64))
                scores: dict[int, NDArray[np.floating]] = {1: logs[:, 1] - logs[:, 0]}
            else:
                scores = dict(enumerate(np.ascontiguousarray(probabilities.T)))
        parts = [auc_score(score, labels == c) for c, score in scores.items()]
        auc = None if None in parts else math.fsum(part for part in parts if part is not None) / len(parts)
        mean = -float(true.mean())
        loss = mean if math.isfinite(mean) else None  # the true class had a probability of 0
    return Metrics(int(right.sum()) / len(labels), f1, auc, loss)


def auc_score(scores: NDArray[np.floating], actual: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve, Mann-Whitney's U over n1 n0, ties half; None when one class is absent.

    >>> auc_score(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))
    0.875
    """
    positive, negative = scores[actual], np.sort(scores[~actual])
    if not len(positive) or not len(negative):
        return None
    positive.sort()  # in order, they are found several times as fast
    doubled = sum(int(np.searchsorted(negative, positive, side).sum()) for side in ("left", "right"))
    return doubled / (2 * len(positive) * len(negative))
