"""What a reader must know before the spread of a task's results: that nothing was learned, that the test set is tiny.

Runs that all name the same class agree perfectly: their SD and churn of 0 are no reproducibility of training.
"""

from __future__ import annotations

import math

import numpy as np

from twinrun.collect.study import Study
from twinrun.report.table import plural
from twinrun.stats import churn as predictions
from twinrun.stats import describe as statistics

LITTLE = 0.2  # of what always naming the largest class gets wrong; less than that made good is little
TINY = 100  # test images; of fewer one image is more than a point


def cautions(study: Study, task: str) -> list[str]:
    """One sentence for each caution that applies to the complete runs of a task; none without complete runs."""
    results, labels = study.results, study.labels(task)
    rows = results.loc[(results["task"] == task) & (results["status"] == "complete"), "row"].tolist()
    if not rows or not len(labels):
        return []
    accuracies, constant = [], 0
    for probabilities in study.stream(task, rows):
        predicted = predictions.predicted_classes(probabilities)
        accuracies.append(1 - predictions.error(predicted, labels))
        constant += bool((predicted == predicted[0]).all())
    title, runs, images = study.title(task), plural(len(rows), "complete run"), plural(len(labels), "test image")
    found = []
    mean, share = statistics.mean(accuracies), float(np.bincount(labels).max() / len(labels))
    error = math.sqrt(share * (1 - share) / len(labels))
    if mean - share <= error:
        found.append(
            f"{title}: caution, no sign of learning: the mean accuracy of {runs} is {100 * mean:.1f} %, and always "
            f"naming the largest class of the {images} gives {100 * share:.1f} % (binomial standard error "
            f"{100 * error:.1f} points). Small differences between such runs are no sign of reproducible training."
        )
    elif mean - share < LITTLE * (1 - share):
        found.append(
            f"{title}: caution, hardly better than naming one class: the mean accuracy of {runs} is "
            f"{100 * mean:.1f} %, and always naming the largest class of the {images} gives {100 * share:.1f} %."
        )
    if constant:
        found.append(
            f"{title}: caution, {constant} of {runs} {'names' if constant == 1 else 'name'} one and the same class "
            f"for all of the {images}. Such runs agree because they tell nothing apart."
        )
    if len(labels) < TINY:
        found.append(
            f"{title}: the test set is small, {images}: one image is {100 / len(labels):.2f} points of accuracy, and "
            "SDs below that say little."
        )
    return found
