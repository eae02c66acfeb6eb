"""The cost of determinism on a clock that is played here: drift cancels, a slow-down is found, the control decides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from twinrun.inspect.cost import palindrome
from twinrun.stats.cost import block_ratio, estimate, judge

RUNGS = ["free", "free_again", "fill"]
Block = list[tuple[str, float]]


def played(
    rng: np.random.Generator, blocks: int, costs: dict[str, float], drift: float = 0.0, noise: float = 0.005
) -> list[Block]:
    """Step times of processes one after the other on a machine that gets slower by `drift` from each to the next."""
    place, result = 0, []
    for number in range(blocks):
        block = []
        for rung in palindrome(RUNGS, number):
            seconds = 0.01 * costs.get(rung, 1.0) * math.exp(drift * place) * math.exp(noise * rng.standard_normal())
            block.append((rung, seconds))
            place += 1
        result.append(block)
    return result


def test_a_linear_drift_cancels_exactly() -> None:
    for block in played(np.random.default_rng(0), 4, {"fill": 1.2}, drift=0.01, noise=0.0):
        assert block_ratio(block, "fill", "free") == pytest.approx(1.2, rel=1e-12)
        assert block_ratio(block, "free_again", "free") == pytest.approx(1.0, rel=1e-12)
    # Without the palindrome the drift would be taken for a cost.
    one_way = played(np.random.default_rng(0), 1, {}, drift=0.01, noise=0.0)[0][:3]
    assert abs(block_ratio(one_way, "fill", "free") - 1) > 0.005


def test_an_injected_slow_down_is_found_under_drift_and_noise() -> None:
    found = judge(played(np.random.default_rng(1), 10, {"fill": 1.05}, drift=0.002), "free", "free_again")
    low, high = found["fill"].low, found["fill"].high
    assert low is not None
    assert high is not None
    assert 1.03 < low <= 1.05 <= high < 1.07
    assert found["fill"].verdict == "dearer"
    assert found["free_again"].verdict == "inconclusive"


def test_a_gain_is_cheaper_and_no_difference_is_inconclusive() -> None:
    assert estimate([0.9, 0.91, 0.92, 0.9, 0.93, 0.9]).verdict == "cheaper"
    assert estimate([0.99, 1.01, 1.0, 1.02, 0.98, 1.0]).verdict == "inconclusive"


def test_one_wild_block_does_not_move_the_median() -> None:
    assert estimate([1.01, 1.01, 1.01, 1.01, 1.01, 9.0, 1.01]).ratio == 1.01


@pytest.mark.parametrize("noise", ["normal", "skewed"])
@pytest.mark.parametrize("blocks", [6, 9])
def test_the_interval_holds_its_level(noise: str, blocks: int) -> None:
    """It is exact and discrete: at least 95 %, and 96.9 % at six blocks."""
    rng = np.random.default_rng(2)
    draws = rng.standard_normal((4000, blocks)) if noise == "normal" else rng.exponential(size=(4000, blocks))
    true = 0.0 if noise == "normal" else math.log(2)
    kept = [estimate(np.exp(row)) for row in draws]
    covered = np.mean([item.low <= math.exp(true) <= item.high for item in kept])  # type: ignore[operator]
    exact = {6: 1 - 2 / 2**6, 9: 1 - 2 * (1 + 9) / 2**9}[blocks]
    assert covered == pytest.approx(exact, abs=0.012)


@pytest.mark.parametrize("blocks", [6, 7, 8, 9, 12, 20])
def test_the_interval_is_that_of_scipy(blocks: int) -> None:
    ratios = np.random.default_rng(blocks).lognormal(size=blocks)
    for confidence in (0.9, 0.95):
        expected = stats.quantile_test(ratios, p=0.5).confidence_interval(confidence)
        found = estimate(ratios, confidence)
        assert (found.low, found.high) == (expected.low, expected.high)


def test_where_the_control_differs_no_verdict_stands() -> None:
    blocks = played(np.random.default_rng(3), 6, {"fill": 1.2, "free_again": 1.1}, noise=0.0)
    found = judge(blocks, "free", "free_again")
    assert found["free_again"].verdict == "dearer"
    assert found["fill"].verdict == "inconclusive: the control differs from the base"
    assert found["fill"].ratio == pytest.approx(1.2)


def test_too_few_blocks_have_a_ratio_and_no_verdict() -> None:
    found = estimate([1.1] * 5)
    assert (found.ratio, found.low, found.high) == (1.1, None, None)
    assert found.verdict == "not defined: 5 of the 6 blocks that a 95 % interval needs"
    assert math.isnan(estimate([]).ratio)
