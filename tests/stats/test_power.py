"""Replicates needed: closed forms and simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from tests.stats.test_hypothesis import tost_welch

from twinrun.stats import power
from twinrun.stats.hypothesis import prediction_test
from twinrun.study.errors import InputError


def test_precision_of_an_sd_is_the_chi_square_one() -> None:
    for precision in (0.1, 0.25, 1.0):
        n = power.replicates_for_sd(precision).n
        above = [math.sqrt((m - 1) / stats.chi2.ppf(0.025, m - 1)) - 1 for m in (n - 1, n)]
        assert above[1] <= precision < above[0]


@pytest.mark.parametrize(("difference", "n"), [(1.0, 17), (0.5, 64), (0.8, 26)])
def test_two_samples_are_as_in_cohens_tables(difference: float, n: int) -> None:
    assert power.replicates_for_difference(difference, 1.0).n == n


def test_power_is_that_of_the_noncentral_t() -> None:
    shift, critical = 0.7 / math.sqrt(2 / 9), stats.t.isf(0.025, 16)
    expected = stats.nct.sf(critical, 16, shift) + stats.nct.cdf(-critical, 16, shift)
    assert power.power_of_t(0.7, math.sqrt(2 / 9), 16) == pytest.approx(expected, abs=1e-9)
    assert power.power_of_t(0.0, math.sqrt(2 / 9), 16) == pytest.approx(0.05)
    assert power.power_of_t(100.0, math.sqrt(2 / 500), 998) == pytest.approx(1)


def test_power_is_what_simulation_finds() -> None:
    rng = np.random.default_rng(0)
    times = 3000
    found = np.mean([prediction_test(rng.normal(size=6), rng.normal() + 4).p < 0.05 for _ in range(times)])
    assert found == pytest.approx(power.power_of_t(4.0, math.sqrt(1 + 1 / 6), 5), abs=0.02)
    found = np.mean([tost_welch(rng.normal(size=12), rng.normal(size=12), 1.2).p < 0.05 for _ in range(times)])
    assert found == pytest.approx(power.power_of_tost(1.2, math.sqrt(2 / 12), 22), abs=0.02)


def test_the_number_is_the_smallest_that_is_enough() -> None:
    for sd in (0.3, 1.0, 2.0):
        n = power.replicates_for_equivalence(1.0, sd).n
        before, there = (power.power_of_tost(1.0, sd * math.sqrt(2 / m), 2 * m - 2) for m in (max(n - 1, 2), n))
        assert there >= 0.8
        assert n == 2 or before < 0.8


def test_a_single_run_shows_only_large_differences() -> None:
    assert power.replicates_against_one(2.8, 1.0).n is None
    assert power.replicates_against_one(2.81, 1.0).n > 100
    assert power.replicates_for_difference(1e-6, 1.0).reason == "more than 1,000,000 replicates"


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_bad_numbers_are_named(bad: float) -> None:
    for call in (power.replicates_for_sd, lambda x: power.replicates_for_difference(x, 1.0)):
        with pytest.raises(InputError, match="above 0"):
            call(bad)
    with pytest.raises(InputError, match="alpha"):
        power.replicates_for_difference(1.0, 1.0, power=0.01)
