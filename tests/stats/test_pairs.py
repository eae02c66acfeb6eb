"""Means over pairs of runs: their jackknife, interval and ratio by loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from twinrun.stats.pairs import PairMean, churn_of_cells, distance_of_cells, pair_mean
from twinrun.stats.weights import mean_relative_distance

VALUES = [[1.0, 2.0, 4.0], [3.0, 3.5, 5.0, 9.0]]
IMAGES = np.array([0.5, 1.5, 3.0])


def gap(cell: int, runs: list[int]) -> float:
    """The mean distance of two of these values."""
    return float(np.mean([abs(VALUES[cell][a] - VALUES[cell][b]) for a, b in itertools.combinations(runs, 2)]))


def leaving_out(cell: int) -> float:
    size = len(VALUES[cell])
    without = np.array([gap(cell, [run for run in range(size) if run != left]) for left in range(size)])
    return float((size - 1) / size * ((without - without.mean()) ** 2).sum())


def test_the_variance_is_the_jackknife_of_each_cell() -> None:
    found = pair_mean([3, 4], gap, IMAGES)
    value = (2.0 + gap(1, [0, 1, 2, 3])) / 2
    assert found.value == pytest.approx(value)
    assert found.over_runs == pytest.approx((leaving_out(0) + leaving_out(1)) / 4 / value**2)
    assert found.df == 1 + 2
    assert found.images == pytest.approx(IMAGES / value)
    assert pair_mean([3, 4], gap).images.size == 0


def test_cells_of_one_run_do_not_count_and_those_of_two_have_no_variance() -> None:
    alone = pair_mean([3, 1], gap)
    assert (alone.value, alone.df) == (2.0, 1)
    assert alone.over_runs == pytest.approx(leaving_out(0) / 4)
    two = pair_mean([2, 4], gap, IMAGES)
    assert (two.value, two.df, two.images.size) == (pytest.approx((1 + gap(1, [0, 1, 2, 3])) / 2), 0, 0)
    assert math.isnan(two.over_runs)
    assert two.interval().reason == "not defined: three runs in each cell, or three cells, that differ are needed"
    none = pair_mean([1, 0], gap)
    assert math.isnan(none.value)
    assert none.df == 0
    assert none.interval().reason == "not defined: no cell has two runs"
    same = pair_mean([3], lambda cell, runs: 0.0, np.zeros(3))
    assert same.value == 0
    assert same.interval().low is None


def expected(value: float, parts: list[tuple[float, float]]) -> tuple[float, float]:
    """Ends by the t distribution of the logarithm, with Satterthwaite's degrees of freedom."""
    variance = sum(part for part, _ in parts)
    df = max(variance**2 / sum(part**2 / df for part, df in parts if df), 1.0)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance)
    return value * math.exp(-half), value * math.exp(half)


def test_interval_and_ratio_vary_over_runs_and_images() -> None:
    first, second = PairMean(2.0, 0.04, 6, np.array([0.5, 1.0, 1.5, 1.0])), PairMean(0.5, 0.01, 3, np.ones(4))
    found = first.interval()
    over_images = np.var(first.images, ddof=1) / 4
    assert found.value == 2
    assert (found.low, found.high) == pytest.approx(expected(2.0, [(0.04, 6), (over_images, 3)]))
    ratio = first.ratio(second)
    joint = 0.05**2 / (0.04**2 / 6 + 0.01**2 / 3)
    assert ratio.value == 4
    assert (ratio.low, ratio.high) == pytest.approx(expected(4.0, [(0.05, joint), (over_images, 3)]))
    plain = PairMean(2.0, 0.04, 6).interval()
    assert (plain.low, plain.high) == pytest.approx(expected(2.0, [(0.04, 6)]))
    assert first.ratio(PairMean(0.0, 0.01, 3)).reason == "not defined: a mean is 0 or missing"
    assert PairMean(math.nan, 0.01, 3).ratio(first).low is None


def test_churn_and_distance_of_cells() -> None:
    rng = np.random.default_rng(0)
    predicted = [list(rng.integers(0, 3, (3, 20))), list(rng.integers(0, 3, (4, 20)))]
    cells = [[np.mean(a != b) for a, b in itertools.combinations(runs, 2)] for runs in predicted]
    found = churn_of_cells(predicted, 20, 3)
    assert found.value == pytest.approx((np.mean(cells[0]) + np.mean(cells[1])) / 2)
    shares = [np.mean([a != b for a, b in itertools.combinations(runs, 2)], axis=0) for runs in predicted]
    assert found.images == pytest.approx((shares[0] + shares[1]) / 2 / found.value)
    without = [np.mean(predicted[0][a] != predicted[0][b]) for a, b in ((1, 2), (0, 2), (0, 1))]
    single = churn_of_cells(predicted[:1], 20, 3)
    assert single.over_runs == pytest.approx(2 / 3 * np.var(without) * 3 / single.value**2)
    assert math.isnan(churn_of_cells([predicted[0][:1]], 20, 3).value)
    heads = [rng.normal(size=(3, 5)), rng.normal(size=(4, 5))]
    value = distance_of_cells(heads).value
    assert value == pytest.approx(np.mean([mean_relative_distance(cell).value for cell in heads]))
