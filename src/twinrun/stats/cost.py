"""What deterministic execution costs: ratios of step times from palindromic blocks, with exact intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from twinrun.stats.samples import CONFIDENCE
from twinrun.study.errors import InputError

DEARER, CHEAPER = "dearer", "cheaper"
Block = Sequence[tuple[str, float]]  # rung and seconds of a step, in the order measured


@dataclass(frozen=True)
class CostEstimate:
    """Ratio of two step times: median over blocks, exact interval, and what that decides."""

    ratio: float
    low: float | None
    high: float | None
    blocks: int
    verdict: str  # dearer, cheaper or inconclusive, or why it is neither


def block_ratio(block: Block, rung: str, base: str) -> float:
    """Ratio of the step times of `rung` and `base` in one block.

    A block is a palindrome: each rung stands at two places with the same centre, so that a drift that is linear in
    time (of the logarithm) cancels exactly. With two rungs this is the ABBA design.

    >>> round(block_ratio([("a", 1.0), ("b", 1.1), ("b", 1.1), ("a", 1.0)], "b", "a"), 6)
    1.1
    """

    def mean_log(name: str) -> float:
        return float(np.mean([np.log(seconds) for who, seconds in block if who == name]))

    return float(np.exp(mean_log(rung) - mean_log(base)))


def estimate(ratios: ArrayLike) -> CostEstimate:
    """Median of the blocks' ratios with the exact 95 % interval from order statistics; no distribution is assumed.

    Not a bootstrap: with six to ten blocks a percentile bootstrap of the median does not hold its level, while this
    interval holds it whatever the noise. Six blocks are the least for 95 %. Source: Conover, Practical Nonparametric
    Statistics (1999), sec. 3.2; the interval of scipy.stats.quantile_test, in a hundredth of its time.

    >>> estimate([1.02, 1.03, 1.01, 1.04, 1.02, 1.03]).verdict
    'dearer'
    >>> estimate([1.02, 1.03]).verdict
    'not defined: 2 of the 6 blocks that a 95 % interval needs'
    """
    values = np.asarray(ratios, float)
    n, ratio = values.size, float(np.median(values)) if values.size else math.nan
    if math.isnan(ratio) and n:
        return CostEstimate(ratio, None, None, n, "not defined: a block has no ratio")
    needed = int(np.ceil(1 - np.log2(1 - CONFIDENCE)))
    if n < needed:
        why = f"not defined: {n} of the {needed} blocks that a {100 * CONFIDENCE:g} % interval needs"
        return CostEstimate(ratio, None, None, n, why)
    # The outermost ranks that a binomial count of blocks below the true median misses at most so often on each side.
    below = int(special.bdtr(np.arange(n), n, 0.5).searchsorted((1 - CONFIDENCE) / 2, side="right"))
    low, high = (float(np.sort(values)[place]) for place in (below - 1, n - below))
    verdict = DEARER if low > 1 else CHEAPER if high < 1 else "inconclusive"
    return CostEstimate(ratio, low, high, n, verdict)


def judge(blocks: Sequence[Block], base: str, control: str) -> Mapping[str, CostEstimate]:
    """The estimate of every rung against `base`; where the control differs from it, no other verdict stands.

    `control` is measured under the same flags as `base`: an interval without 1 shows that the machine, not the flags,
    made a difference. A rung is dearer or cheaper only if its interval says so and the family of rungs allows it: five
    rungs without any cost give some verdict in 13 % of tables of six blocks by their intervals alone, in 2 to 4 % so.
    Raises InputError where the control was not measured or a block is no palindrome of all rungs.
    """
    check_blocks(blocks, base, control)
    rungs = list(dict.fromkeys(name for block in blocks for name, _ in block if name != base))
    ratios = {rung: [block_ratio(block, rung, base) for block in blocks] for rung in rungs}
    check = estimate(ratios.pop(control))
    if check.verdict in (DEARER, CHEAPER):
        estimates = without_verdicts({rung: estimate(values) for rung, values in ratios.items()})
    else:
        estimates = _corrected(ratios)
    return estimates | {control: check}


def _corrected(ratios: Mapping[str, list[float]]) -> dict[str, CostEstimate]:
    """The estimate of each family member; a verdict stands only where the family allows it."""
    estimates = {rung: estimate(values) for rung, values in ratios.items()}
    if any(item.verdict in (DEARER, CHEAPER) for item in estimates.values()):
        for rung, p in zip(estimates, family_p(list(ratios.values())), strict=True):
            if estimates[rung].verdict in (DEARER, CHEAPER) and p > 1 - CONFIDENCE:
                estimates[rung] = replace(estimates[rung], verdict=f"inconclusive among {len(estimates)} rungs")
    return estimates


def without_verdicts(estimates: Mapping[str, CostEstimate]) -> dict[str, CostEstimate]:
    """The estimates of blocks whose control differs from the base."""
    why = "inconclusive: the control differs from the base"
    return {rung: replace(item, verdict=why) for rung, item in estimates.items()}


def increments(blocks: Sequence[Block], before: Mapping[str, str]) -> dict[str, CostEstimate]:
    """What each rung of `before` adds to the rung that it names; verdicts are corrected over this family."""
    return _corrected({rung: [block_ratio(block, rung, lower) for block in blocks] for rung, lower in before.items()})


def check_blocks(blocks: Sequence[Block], base: str, control: str) -> None:
    """Raise InputError for blocks that cannot be judged: no base or control, no palindrome, times that are none."""
    if not blocks:
        raise InputError("no block was measured", "a 95 % interval needs six")
    for number, block in enumerate(blocks, 1):
        order = [name for name, _ in block]
        for name in (base, control):
            if name not in order:
                raise InputError(f"block {number} has no {name!r}", f"it has: {', '.join(dict.fromkeys(order))}")
        if order != order[::-1] or any(order.count(name) != 2 for name in order) or {*order} != {*dict(blocks[0])}:
            raise InputError(
                f"block {number} is measured in the order {', '.join(order)}",
                "each rung stands twice, in mirrored order, so that a drift cancels",
            )
        bad = next(((name, seconds) for name, seconds in block if not 0 < seconds < math.inf), None)
        if bad:
            raise InputError(f"block {number}: {bad[0]} took {bad[1]} s a step", "a step time is a number above 0")


def family_p(ratios: Sequence[ArrayLike]) -> list[float]:
    """p of each family member, (members, blocks) of ratios, so that any false finding has a chance of at most p.

    Westfall & Young's (1993) step-down of the largest t of log ratios, over all changes of sign of whole blocks (4,095
    random ones above 12 blocks): without a cost the two rungs of a ratio can change their names. Six blocks suffice
    for any number of rungs, where Bonferroni's correction would ask for eight with five.

    >>> [round(p, 3) for p in family_p([[1.10, 1.12, 1.11, 1.09, 1.12, 1.10], [0.98, 1.01, 1.02, 0.97, 1.01, 1.0]])]
    [0.031, 0.75]
    """
    logs = np.log(np.asarray(ratios, float))
    n = logs.shape[1]
    if n <= 12:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    else:
        signs = np.vstack([np.ones(n), np.random.default_rng(0).choice([1.0, -1.0], (4095, n))])
    squares = np.square(logs).sum(axis=1)
    sums = np.abs(signs @ logs.T)
    # The order of |t| is that of its sum over the root of what is left of the squares.
    left = np.maximum(squares - sums**2 / n, 1e-12 * squares + 1e-300)
    t = sums / np.sqrt(left)
    order, result, worst = np.argsort(-t[0], kind="stable"), [0.0] * len(logs), 0.0
    for rank, place in enumerate(order):
        largest = t[:, order[rank:]].max(axis=1)
        worst = max(worst, float((largest >= t[0, place] * (1 - 1e-9)).mean()))
        result[int(place)] = worst
    return result
