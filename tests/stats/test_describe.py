"""Statistics against numpy, scipy, closed forms and the thesis's own numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrun.stats import describe as s

values = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


@given(values)
def test_moments_are_those_of_numpy(sample: list[float]) -> None:
    scale = max(map(abs, sample)) + 1e-300
    assert s.mean(sample) == pytest.approx(np.mean(sample), abs=1e-12 * scale)
    assert s.population_sd(sample) == pytest.approx(np.std(sample), rel=1e-9, abs=1e-12 * scale)
    assert s.sample_sd(sample) == pytest.approx(np.std(sample, ddof=1), rel=1e-9, abs=1e-12 * scale)


@given(values, st.randoms())
def test_order_does_not_change_a_bit(sample: list[float], random) -> None:
    shuffled = random.sample(sample, len(sample))
    assert s.sample_sd(shuffled) == s.sample_sd(sample)
    assert s.mean(shuffled) == s.mean(sample)


def test_interval_factors_at_five() -> None:
    low, high = s.sd_factors(5)
    assert round(low, 2) == 0.60
    assert round(high, 2) == 2.87


@pytest.mark.parametrize("n", [5, 30])
def test_interval_covers_as_often_as_it_says(n: int) -> None:
    rng = np.random.default_rng(n)
    low, high = s.sd_factors(n)
    sds = rng.normal(size=(20_000, n)).std(axis=1, ddof=1)
    assert np.mean((sds * low <= 1) & (sds * high >= 1)) == pytest.approx(0.95, abs=0.01)


def test_degenerate_samples_are_defined() -> None:
    assert math.isnan(s.mean([]))
    assert math.isnan(s.population_sd([]))
    assert s.population_sd([0.3]) == 0
    assert math.isnan(s.sample_sd([0.3]))
    assert s.sample_sd([0.1, 0.1, 0.1]) == 0  # no rounding shows as spread
    assert math.isnan(s.sample_sd([0.1, math.nan]))
    with pytest.raises(ValueError, match="one-dimensional"):
        s.mean([[1.0]])


def test_difference_of_the_thesis() -> None:
    # Table 5.1, Adam, seed 0: nd 92.66, det 92.19.
    assert s.difference_percent(92.19, 92.66).value == pytest.approx(-0.507, abs=5e-4)
    assert s.difference_percent(0.5, 0.0).reason == "not defined: the mean of the free runs is 0"
    assert s.difference_percent(math.nan, 0.5).reason == "not defined: a mean is missing"
