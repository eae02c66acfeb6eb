"""What accuracy hides, for one group of runs: measured in one pass over their predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinrun.collect.study import Cell, Study
from twinrun.report.sections.divergence import js_distances
from twinrun.stats import churn as predictions
from twinrun.stats import describe as statistics
from twinrun.stats.churn import churn_interval
from twinrun.stats.samples import Interval, Progress, silent

JS_PAIRS = 45  # all pairs of ten runs; of more runs so many are drawn


@dataclass(frozen=True)
class Agreement:
    """One arm of one cell; NaN is what its runs are too few for."""

    cell: Cell
    arm: str
    n: int
    pairs: int
    churn: float
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
    def churn_over_error(self) -> float:
        """NaN when there is no error."""
        return predictions.churn_over_error(self.churn, self.error)


@dataclass(frozen=True)
class TestSetPart:
    """The variance of accuracy over runs, split into that of the finite test set and the rest."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    sd: float  # of the accuracies, 1/(n - 1)
    sd_independent: float  # what independent errors would give: sqrt(sum of the examples' variances) / examples
    variance_rest: float  # unbiased estimate for an endless test set; may be negative
    share: float  # 1 - variance_rest / sd^2; NaN without spread


def test_set_part(correct: NDArray[np.bool_]) -> TestSetPart:
    """Split the variance of accuracy over runs, from `correct` (runs, examples) (Jordan 2023, theorem on variance).

    With V the sample variance of the accuracies, v_i that of example i being right and N examples, the variance over an
    endless test set is estimated without bias by N / (N - 1) (V - sum(v_i) / N^2), which is the mean covariance of two
    different examples. Defined for means over examples, such as accuracy: not for F1 and AUC.

    >>> test_set_part(np.array([[True, False], [False, True]])).variance_rest  # examples that err in turn
    -0.5
    """
    runs, examples = correct.shape
    if runs < 2 or examples < 2:
        return TestSetPart(math.nan, math.nan, math.nan, math.nan)
    right = correct.sum(axis=1, dtype=np.int64)
    counts = correct.sum(axis=0, dtype=np.int64)
    # Whole numbers up to one division each: no rounding that depends on the order of the runs.
    squares = runs * int(np.square(right).sum()) - int(right.sum()) ** 2
    own = int((counts * (runs - counts)).sum())
    variance = squares / (runs * (runs - 1) * examples**2)
    rest = (squares - own) / (runs * (runs - 1) * examples * (examples - 1))
    independent = math.sqrt(own / (runs * (runs - 1))) / examples
    share = 1 - rest / variance if variance > 0 else math.nan
    return TestSetPart(math.sqrt(variance), independent, rest, share)


def recall_by_class(predicted: NDArray[np.integer], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Share of the examples of each class that are found, (classes,); NaN for a class without examples.

    >>> recall_by_class(np.array([0, 1, 1]), np.array([0, 0, 1]), 3).tolist()
    [0.5, 1.0, nan]
    """
    found = np.bincount(labels[predicted == labels], minlength=classes)
    total = np.bincount(labels, minlength=classes)
    recall: NDArray[np.float64] = np.divide(found, total, out=np.full(classes, math.nan), where=total > 0)
    return recall


def agreement(study: Study, cell: Cell, arm: str) -> Agreement:
    """Measure the complete runs of one arm of a cell."""
    rows = study.runs(cell, arm)["row"].tolist()
    labels, classes = study.labels(cell.task), len(study.info["tasks"][cell.task]["classes"])
    n, examples = len(rows), len(labels)
    predicted = np.empty((n, examples), np.min_scalar_type(max(classes - 1, 0)))
    total = np.zeros((examples, classes))
    for place, probabilities in enumerate(study.stream(cell.task, rows)):
        predicted[place] = predictions.predicted_classes(probabilities)
        total += probabilities
    errors = [predictions.error(row, labels) for row in predicted]
    counts = predictions.class_counts(predicted, examples, classes)
    interval = churn_interval(predicted, counts)
    js_distance, js_pairs = js_distances(study, cell.task, rows, JS_PAIRS, study.rng("js", cell, arm))
    error, several = statistics.mean(errors), n > 1
    ensemble = predictions.error(predictions.predicted_classes(total), labels) if several else math.nan
    return Agreement(
        cell=cell,
        arm=arm,
        n=n,
        pairs=n * (n - 1) // 2,
        churn=predictions.mean_churn(counts, n),
        interval=interval,
        error=error,
        js_distance=js_distance,
        js_pairs=js_pairs,
        ensemble_gain=error - ensemble,
        test_set=test_set_part(predicted == labels),
        flips=predictions.flip_shares(counts, n) if several else np.empty(0),
        wrong=1 - counts[np.arange(examples), labels] / n if n else np.full(examples, math.nan),
        recalls=np.array([recall_by_class(row, labels, classes) for row in predicted]).reshape(n, classes),
    )


def agreements(study: Study, arms: list[str], progress: Progress = silent) -> list[Agreement]:
    """Every cell and arm, in grid order."""
    wanted = [(cell, arm) for cell in study.cells() for arm in arms]
    found = []
    for cell, arm in wanted:
        found.append(agreement(study, cell, arm))
        progress(len(found), len(wanted))
    return found


def identity(one: Agreement) -> dict[str, Any]:
    """The columns that say which group a row is about."""
    return {"task": one.cell.task, "optimizer": one.cell.optimizer, "seed": one.cell.seed, "arm": one.arm}
