"""The cost of determinism on a clock that is played here: drift cancels, a slow-down is found, the control decides."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from twinrun.inspect.cost import palindrome
from twinrun.stats.cost import block_ratio, estimate, family_p, increments, judge
from twinrun.study.errors import InputError

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
    expected = stats.quantile_test(ratios, p=0.5).confidence_interval(0.95)
    found = estimate(ratios)
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


def nulls(rng: np.random.Generator, tables: int, blocks: int, rungs: int, skewed: bool) -> np.ndarray:
    """Ratios (tables, rungs, blocks) of rungs that cost nothing, against one base."""
    shape = (tables, rungs + 1, blocks, 2)
    noise = rng.exponential(size=shape) if skewed else rng.normal(size=shape)
    logs = 0.01 * noise.mean(axis=3)
    return np.exp(logs[:, 1:] - logs[:, :1])


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("blocks", [6, 9])
def test_rungs_that_cost_nothing_are_rarely_called_dearer(blocks: int, skewed: bool) -> None:
    tables = nulls(np.random.default_rng(blocks), 700, blocks, 5, skewed)
    false = np.mean([min(family_p(table)) <= 0.05 for table in tables])
    alone = np.mean([any(estimate(row).verdict in ("dearer", "cheaper") for row in table) for table in tables])
    assert false <= 0.065
    assert alone > 0.08


def test_one_real_cost_among_nulls_is_found_with_six_blocks() -> None:
    rng = np.random.default_rng(1)
    names = ["free", "free_again", "a", "b", "c", "d", "fill"]
    found = 0
    for _ in range(40):
        blocks = []
        for number in range(6):
            order = palindrome(names, number)
            blocks.append([(rung, (1.1 if rung == "fill" else 1.0) * math.exp(0.005 * rng.normal())) for rung in order])
        verdicts = judge(blocks, "free", "free_again")
        found += verdicts["fill"].verdict in ("dearer", "inconclusive: the control differs from the base")
    assert found >= 38


def test_the_increment_of_a_rung_is_over_the_one_before() -> None:
    blocks = played(np.random.default_rng(5), 6, {"free_again": 1.1, "fill": 1.32}, noise=0.0001)
    steps = increments(blocks, {"free_again": "free", "fill": "free_again"})
    assert steps["free_again"].ratio == pytest.approx(1.1, rel=1e-3)
    assert steps["fill"].ratio == pytest.approx(1.2, rel=1e-3)
    assert steps["fill"].low is not None
    assert steps["fill"].low > 1.19
    assert {item.verdict for item in steps.values()} == {"dearer"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: [[item for item in block if item[0] != "free_again"] for block in b], "block 1 has no 'free_again'"),
        (lambda b: [*b[:2], b[2][:3]], "block 3 is measured in the order"),
        (lambda b: [[*b[0][:1], *b[0][2:], b[0][1]], *b[1:]], "block 1 is measured in the order"),
        (lambda b: [[(name, math.nan) for name, _ in b[0]]], "s a step"),
        (lambda b: [], "no block was measured"),
    ],
)
def test_blocks_that_cannot_be_judged_are_refused(change: Callable[[list[Block]], list[Block]], words: str) -> None:
    blocks = played(np.random.default_rng(0), 3, {})
    with pytest.raises(InputError, match=words):
        judge(change(blocks), "free", "free_again")


def test_a_block_without_a_ratio_is_named() -> None:
    assert estimate([1.0, math.nan, 1.0, 1.0, 1.0, 1.0]).verdict == "not defined: a block has no ratio"
