"""The committed table of coverage: complete, and what a small simulation finds again."""

import numpy as np
import pytest

from twinrun.stats.coverage import coverage_words, table

OLD = ("normal", "skewed", "bad", "effects")
INTERVALS = ("difference, Welch", "difference, paired t", "P(B > A), Newcombe", "SD, chi-square", "mean, t")


def test_every_interval_was_tried_with_every_shape_and_size() -> None:
    wanted = {(name, shape, n) for name in INTERVALS for shape in OLD for n in (3, 5, 10, 30)}
    assert wanted <= set(table())
    assert all(("difference, sequential", shape, 100) in table() for shape in OLD)


def test_differences_hold_for_independent_runs() -> None:
    for name in ("difference, Welch", "difference, paired t"):
        for shape in ("normal", "skewed", "bad"):
            for n in (3, 5, 10, 30):
                assert table()[name, shape, n] >= 0.93
    for shape in ("normal", "skewed", "bad"):
        assert table()["difference, sequential", shape, 100] >= 0.95


@pytest.mark.parametrize("n", [3, 10])
def test_a_row_of_the_table_is_found_again(n: int) -> None:
    rng = np.random.default_rng(n)
    gaps = rng.lognormal(size=(4000, n)) - rng.lognormal(size=(4000, n))
    t = np.abs(gaps.mean(axis=1)) / (gaps.std(axis=1, ddof=1) / np.sqrt(n))
    critical = {3: 4.303, 10: 2.262}[n]  # Student's t at n - 1
    assert np.mean(t <= critical) == pytest.approx(table()["difference, paired t", "skewed", n], abs=0.02)


def test_words_name_the_sizes_that_were_simulated() -> None:
    share = round(100 * table()["difference, Welch", "normal", 10])
    assert coverage_words("difference, Welch", 29).startswith(f"holds in simulations at n = 10: {share} % normal runs")
    assert coverage_words("difference, Welch", 10) == coverage_words("difference, Welch", 29)
    assert coverage_words("nothing", 10) == "was not simulated"
