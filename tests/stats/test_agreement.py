"""What the predictions of some runs share: against scipy, NumPy and counts by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from twinrun.stats.agreement import JS_PAIRS, Agreement, agreement, chosen_pairs
from twinrun.stats.churn import churn_interval, class_counts
from twinrun.stats.finite_test_set import test_set_part as set_part

LABELS = np.array([0, 1, 1, 0, 1])
FIRST = np.array([0.9, 0.2, 0.4, 0.8, 0.3])  # of class 0: right, right, right, right, right
SECOND = np.array([0.8, 0.9, 0.3, 0.4, 0.2])  # the second and the fourth are wrong
THIRD = np.array([0.7, 0.1, 0.6, 0.9, 0.1])  # the third is wrong
RUNS = np.stack([np.stack([p, 1 - p], axis=1) for p in (FIRST, SECOND, THIRD)])


def measured(rows: list[int], classes: int = 2) -> Agreement:
    def stream(wanted: list[int]) -> Iterator[np.ndarray]:
        return (np.pad(RUNS[row], ((0, 0), (0, classes - 2))) for row in wanted)

    return agreement(stream, rows, LABELS, classes, np.random.default_rng(0))


def test_of_three_runs() -> None:
    found = measured([0, 1, 2])
    predicted = RUNS.argmax(axis=2)
    assert found.n == 3
    assert found.churn == pytest.approx((2 / 5 + 1 / 5 + 3 / 5) / 3)
    assert found.interval == churn_interval(predicted, class_counts(predicted, 5, 2))
    assert found.error == pytest.approx((0 + 2 / 5 + 1 / 5) / 3)
    assert found.churn_over_error == pytest.approx(2.0)
    distances = [jensenshannon(RUNS[a, image], RUNS[b, image], 2) for a, b in ((0, 1), (0, 2), (1, 2))
                 for image in range(5)]  # fmt: skip
    assert found.js_distance == pytest.approx(np.mean(distances), rel=1e-9)
    assert found.js_pairs == 3
    assert found.ensemble_gain == pytest.approx(found.error), "their mean is right everywhere"
    assert found.test_set == set_part(predicted == LABELS)
    assert found.flips == pytest.approx([0, 2 / 3, 2 / 3, 2 / 3, 0])
    assert found.wrong == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0])
    assert found.recalls == pytest.approx(np.array([[1, 1], [0.5, 2 / 3], [1, 2 / 3]]))
    two = measured([0, 1])
    assert two.flips.tolist() == [0, 1, 0, 1, 0]
    assert two.ensemble_gain == pytest.approx(0.2 - 0.2), "of the mean the second is wrong"


def test_of_one_run_and_of_none() -> None:
    single = measured([1], classes=3)
    assert (single.n, single.error, single.js_pairs, single.flips.size) == (1, 0.4, 0, 0)
    assert (single.churn, single.churn_over_error) == (None, None)
    assert np.isnan([single.js_distance, single.ensemble_gain]).all()
    assert single.wrong.tolist() == [0, 1, 0, 1, 0]
    assert np.isnan(single.recalls[0, 2]), "a class without examples"
    none = measured([])
    assert none.n == 0
    assert np.isnan(none.wrong).all()
    assert none.recalls.shape == (0, 2)


def test_pairs_are_all_or_a_draw() -> None:
    rng = np.random.default_rng(0)
    assert chosen_pairs(3, 3, rng) == [(0, 1), (0, 2), (1, 2)]
    assert len(chosen_pairs(10, JS_PAIRS, rng)) == JS_PAIRS
    drawn = chosen_pairs(11, JS_PAIRS, rng)
    assert len(set(drawn)) == JS_PAIRS
    assert all(0 <= first < second <= 10 for first, second in drawn)
    assert {place for pair in drawn for place in pair} == set(range(11))
