"""Test-set metrics from predictions, in exact arithmetic, so that equal predictions give equal metrics anywhere."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from twinrun.study.records import Metrics


def evaluate_metrics(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], log_probabilities: NDArray[np.float64]
) -> Metrics:
    """Metrics of predictions (n, classes) against `labels` (n,).

    F1 of two classes is that of class 1, null where the test set has none of it; of more the mean over the classes
    that the test set has.
    AUC ranks by log-probability, in the binary case by the difference of the two (the logit): as probabilities,
    confident predictions would all be 1 and tie.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    if classes == 2:
        f1 = f1_score(predicted == 1, labels == 1) if (labels == 1).any() else None
        auc = auc_score(log_probabilities[:, 1] - log_probabilities[:, 0], labels == 1)
    else:
        present = [c for c in range(classes) if (labels == c).any()]
        f1 = math.fsum(f1_score(predicted == c, labels == c) for c in present) / len(present) if present else None
        parts = [auc_score(log_probabilities[:, c], labels == c) for c in range(classes)]
        auc = None if None in parts else math.fsum(part for part in parts if part is not None) / classes
    return Metrics(
        accuracy=int((predicted == labels).sum()) / len(labels),
        f1=f1,
        auc=auc,
        loss=-math.fsum(log_probabilities[np.arange(len(labels)), labels].tolist()) / len(labels),
    )


def f1_score(predicted: NDArray[np.bool_], actual: NDArray[np.bool_]) -> float:
    """2 TP / (2 TP + FP + FN), where something is positive."""
    return 2 * int((predicted & actual).sum()) / (int(predicted.sum()) + int(actual.sum()))


def auc_score(scores: NDArray[np.float64], actual: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve (Mann-Whitney U over n1 n0, ties count half); None when one class is absent."""
    positive, negative = int(actual.sum()), int((~actual).sum())
    if not positive or not negative:
        return None
    _, group = np.unique(scores, return_inverse=True)
    positives = np.bincount(group, weights=actual).astype(np.int64)
    negatives = np.bincount(group, weights=~actual).astype(np.int64)
    below = np.cumsum(negatives) - negatives
    doubled = int((positives * (2 * below + negatives)).sum())
    return float(Fraction(doubled, 2 * positive * negative))
