"""Intervals: against scipy and closed forms, by their coverage, and what they are for degenerate samples."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from twinrun.stats import intervals
from twinrun.stats.finite_test_set import finite_test_share
from twinrun.stats.finite_test_set import test_set_part as set_part
from twinrun.stats.intervals import PooledSd
from twinrun.stats.samples import Interval
from twinrun.stats.variance import components, total_sd

INTERVALS: dict[str, Callable[[np.ndarray], Interval]] = {
    "mean": intervals.mean_interval,
    "chi-square": intervals.sd_chi_square,
    "bootstrap": lambda values: intervals.sd_bootstrap(values, np.random.default_rng(0), resamples=499),
}
TRUE_SHARE = 0.46
samples = st.lists(st.integers(-1000, 1000), min_size=5, max_size=9, unique=True)


def share(covered: list[bool]) -> float:
    return sum(covered) / len(covered)


@pytest.mark.parametrize("n", [5, 30])
def test_coverage_of_the_mean(n: int) -> None:
    rng = np.random.default_rng(n)
    means = [intervals.mean_interval(rng.normal(size=n)) for _ in range(4000)]
    assert 0.93 <= share([mean.low <= 0 <= mean.high for mean in means]) <= 0.97


@pytest.mark.parametrize(("n", "studies", "resamples"), [(5, 2000, 1), (7, 600, 1), (10, 1000, 299), (30, 600, 299)])
def test_coverage_of_the_sd(n: int, studies: int, resamples: int) -> None:
    rng = np.random.default_rng(n + 1)
    exact, free = [], []
    for _ in range(studies):
        values = rng.normal(size=n)
        chi_square, bootstrap = intervals.sd_chi_square(values), intervals.sd_bootstrap(values, rng, resamples)
        exact.append(chi_square.low <= 1 <= chi_square.high)
        free.append(bootstrap.low <= 1 <= bootstrap.high)
    assert 0.93 <= share(exact) <= 0.97
    assert 0.93 <= share(free) <= 0.97


@pytest.mark.parametrize("seeds", [5, 30])
def test_coverage_of_the_icc(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    covered = []
    for _ in range(1000):
        found = components(list(rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, 5))))
        covered.append(found.icc_low <= 0.5 <= found.icc_high)
    assert 0.93 <= share(covered) <= 0.97


def test_the_percentile_and_bca_bootstraps_do_not_cover() -> None:
    """The reason for the studentized one, measured with scipy's own."""
    rng = np.random.default_rng(0)
    for method in ("percentile", "BCa"):
        covered = []
        for _ in range(300):
            found = stats.bootstrap(
                (rng.normal(size=5),), lambda x, axis: x.std(axis=axis, ddof=1), n_resamples=299, rng=rng, method=method
            ).confidence_interval
            covered.append(found.low <= 1 <= found.high)
        assert share(covered) < 0.75


def test_mean_interval_is_that_of_scipy() -> None:
    values = [0.91, 0.93, 0.9, 0.96]
    found = intervals.mean_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_chi_square_interval_is_the_closed_form() -> None:
    values = [0.9, 0.92, 0.95, 0.91]
    found = intervals.sd_chi_square(values)
    variance = np.var(values, ddof=1)
    assert found.low == pytest.approx(math.sqrt(3 * variance / stats.chi2.ppf(0.975, 3)))
    assert found.high == pytest.approx(math.sqrt(3 * variance / stats.chi2.ppf(0.025, 3)))


@settings(max_examples=30, deadline=None)
@given(samples, st.randoms(), st.sampled_from(sorted(INTERVALS)))
def test_order_does_not_matter(values: list[int], random, name: str) -> None:
    shuffled = random.sample(values, len(values))
    assert INTERVALS[name](np.array(shuffled)) == INTERVALS[name](np.array(values))


@settings(max_examples=30, deadline=None)
@given(samples, st.sampled_from([2.0**-20, 0.25, 4.0, 2.0**20]), st.sampled_from(sorted(INTERVALS)))
def test_intervals_scale_with_the_values(values: list[int], factor: float, name: str) -> None:
    plain, scaled = INTERVALS[name](np.array(values)), INTERVALS[name](np.array(values) * factor)
    if plain.low is None:
        assert scaled.low is None
    else:
        assert (scaled.low, scaled.high) == pytest.approx((plain.low * factor, plain.high * factor), rel=1e-9)


@pytest.mark.parametrize("name", sorted(INTERVALS))
@pytest.mark.parametrize("values", [[], [0.5], [0.5, math.nan, 0.6, 0.7, 0.8], [math.inf, 0.1, 0.2, 0.3, 0.4]])
def test_too_few_and_missing_values(name: str, values: list[float]) -> None:
    found = INTERVALS[name](np.array(values))
    assert (found.low, found.high) == (None, None)
    assert found.reason.startswith("not defined: ")


def test_equal_values_have_an_sd_of_zero_and_no_interval() -> None:
    for name in ("chi-square", "bootstrap"):
        found = INTERVALS[name](np.full(5, 0.1))
        assert (found.value, found.low, found.high) == (0.0, None, None)
        assert found.reason == "not defined: all 5 values are equal"
    assert INTERVALS["mean"](np.full(5, 0.1)).low == 0.1


def test_a_bootstrap_over_ties_is_not_defined() -> None:
    found = intervals.sd_bootstrap([0.1, 0.1, 0.1, 0.1, 0.2], np.random.default_rng(0))
    assert found.value > 0
    assert "ties among 5 values" in found.reason


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.1, 0), (1000, 0), (1, 0.5), (1, -0.395)])
def test_the_bootstrap_of_an_sd_sees_ties_whatever_the_scale(scale: float, shift: float) -> None:
    def found(values: list[float]) -> Interval:
        return intervals.sd_bootstrap(np.array(values) * scale + shift, np.random.default_rng(0))

    assert "ties among 5 values" in found([0.413, 0.395, 0.395, 0.395, 0.375]).reason
    untied = [0.41, 0.38, 0.395, 0.40, 0.375]
    plain = intervals.sd_bootstrap(untied, np.random.default_rng(0))
    assert (found(untied).low, found(untied).high) == pytest.approx((plain.low * scale, plain.high * scale), rel=1e-6)


def test_pooled_sds_are_one_whatever_they_are_made_of() -> None:
    cells = [[1.0, 3.0], [2.0, 3.0, 4.0, 9.0], [5.0]]
    squares = sum((len(cell) - 1) * np.var(cell, ddof=1) for cell in cells[:2])
    pooled = PooledSd.of(cells)
    assert (pooled.value, pooled.df) == pytest.approx((math.sqrt(squares / 4), 4))
    parts = [PooledSd.of([cell]) for cell in cells]
    assert PooledSd.together(parts).value == pytest.approx(pooled.value)
    low, high = (math.sqrt(squares / stats.chi2.ppf(share, 4)) for share in (0.975, 0.025))
    assert (pooled.interval().low, pooled.interval().high) == pytest.approx((low, high))
    assert PooledSd.of([[1.0], []]).interval().reason == "not defined: no cell has two values"
    assert PooledSd.of([[1.0, 1.0]]).interval().reason == "not defined: no spread within any cell"
    assert PooledSd.of([[1.0, math.nan]]).interval().reason == "not defined: a value is missing"
    ratio = PooledSd(2.0, 7).ratio(PooledSd(1.0, 9))
    ends = [2 / math.sqrt(stats.f.ppf(share, 7, 9)) for share in (0.975, 0.025)]
    assert (ratio.low, ratio.high) == pytest.approx(tuple(ends))
    assert PooledSd(0.0, 7).ratio(PooledSd(1.0, 9)).reason == "not defined: no spread within any cell"


def test_two_identical_runs_exceed_the_gap_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    sds = rng.normal(size=(40_000, 6)).std(axis=1, ddof=1)
    gaps = np.abs(rng.normal(size=40_000) - rng.normal(size=40_000))
    beyond = np.mean(gaps > PooledSd(1.0, 5).gap_of_two() * sds)
    assert beyond == pytest.approx(0.05, abs=0.004)
    assert np.mean(gaps > 1.96 * math.sqrt(2) * sds) == pytest.approx(0.107, abs=0.005)


def test_the_total_sd_is_that_of_runs_with_everything_free() -> None:
    rng = np.random.default_rng(1)
    totals = [total_sd(3 * rng.normal(size=(8, 1)) + rng.normal(size=(8, 3))) for _ in range(1500)]
    assert np.mean([total.value**2 for total in totals]) == pytest.approx(10, rel=0.05)
    covered = [total.interval().low <= math.sqrt(10) <= total.interval().high for total in totals]
    assert 0.93 <= share(covered) <= 0.97
    assert components([[1.0, 1.0], [2.0, 2.0]]).icc == 1
    assert PooledSd(3.0, 10).ratio(PooledSd(2.0, 10)).value == 1.5
    assert total_sd([[1.0], [2.0], [3.0]]) == PooledSd(1.0, 2)
    assert total_sd([[1.0, 2.0]]).df == 0
    one_run_each = total_sd([[1.0, 3.0], [5.0, 7.0], [9.0]])
    assert one_run_each.value > PooledSd.of([[1.0, 3.0], [5.0, 7.0]]).value


def test_a_robust_spread_does_not_see_bad_runs_and_counts_them() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=4000)
    assert intervals.robust_spread(values).value == pytest.approx(1, abs=0.05)
    values[:400] += 50
    spread = intervals.robust_spread(values)
    assert spread.value == pytest.approx(1.15, abs=0.1)
    assert 400 <= spread.beyond <= 425
    assert intervals.robust_spread([1.0, 2.0]).reason == "not defined: 2 of the 3 values that it needs"
    assert "half of the 3 values or more are equal" in intervals.robust_spread([1.0, 1.0, 2.0]).reason


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_the_share_of_the_finite_test_set_is_found_with_few_runs_a_cell(runs: int) -> None:
    """Where the median of the cells' own ratios reads 2 for 0.5 with two runs."""
    rng = np.random.default_rng(runs)
    images, held, values = 400, [], []
    chances = rng.beta(9, 1, size=images)
    noise = math.sqrt((chances * (1 - chances)).sum()) / images  # of the test set: the SD of independent errors
    for _ in range(150):
        cells = []
        for _cell in range(12):
            shift = rng.choice([-1, 1], size=(runs, 1)) * noise / 0.9  # of whole runs, as large
            cells.append(set_part(rng.random((runs, images)) < np.clip(chances + shift, 0, 1)))
        found = finite_test_share(cells)
        values.append(found.value)
        if found.low is not None:
            held.append(found.low <= TRUE_SHARE <= found.high)
    assert np.median(values) == pytest.approx(TRUE_SHARE, abs=0.06)
    assert share(held) >= 0.93


def test_a_share_that_nothing_is_known_about_has_no_interval() -> None:
    rng = np.random.default_rng(3)
    found = finite_test_share([set_part(rng.random((2, 50)) < 0.7)])
    assert found.low is None
    assert "leave anything from" in found.reason
    assert finite_test_share([set_part(np.ones((1, 5), bool))]).reason.endswith("no cell with two runs and two images")
    assert finite_test_share([set_part(np.ones((3, 5), bool))]).reason.endswith("all runs are equally accurate")
