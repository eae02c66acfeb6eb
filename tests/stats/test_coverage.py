"""The committed table of coverage: complete, and what a small simulation finds again."""

import numpy as np
import pytest
from tests.conftest import REPOSITORY

from twinrun.stats.coverage import coverage_words, page, table

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


def test_churn_holds_for_runs_that_are_alike_and_for_runs_that_differ_as_a_whole() -> None:
    for shape in ("normal", "whole"):
        assert min(table()["churn", shape, n] for n in (3, 5, 10, 30)) >= 0.93
        assert min(table()["churn, over seeds", shape, n] for n in (3, 5, 8)) >= 0.93
    assert table()["churn", "bad", 5] < 0.6  # five runs of which most often none is bad


def test_the_page_is_the_table() -> None:
    text = (REPOSITORY / "docs" / "coverage.md").read_text()
    assert text == page()
    share = f"{100 * table()['SD, chi-square', 'bad', 10]:.0f}"
    row = next(line for line in text.splitlines() if line.startswith("| SD, chi-square | 10 |"))
    assert f"**{share}**" in row


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
