"""What deterministic execution costs: ratios of step times from palindromic blocks, with exact intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


@dataclass(frozen=True)
class CostEstimate:
    """Ratio of two step times: median over blocks, exact interval, and what that decides."""

    ratio: float
    low: float | None
    high: float | None
    blocks: int
    verdict: str  # dearer, cheaper or inconclusive, or why it is neither


def block_ratio(block: Sequence[tuple[str, float]], rung: str, base: str) -> float:
    """Ratio of the step times of `rung` and `base` in one block, a sequence of (rung, seconds) in the order measured.

    A block is a palindrome: each rung stands at two places with the same centre, so that a drift that is linear in
    time (of the logarithm) cancels exactly. With two rungs this is the ABBA design.

    >>> round(block_ratio([("a", 1.0), ("b", 1.1), ("b", 1.1), ("a", 1.0)], "b", "a"), 6)
    1.1
    """

    def mean_log(name: str) -> float:
        return float(np.mean([np.log(seconds) for who, seconds in block if who == name]))

    return float(np.exp(mean_log(rung) - mean_log(base)))


def estimate(ratios: ArrayLike, confidence: float = 0.95) -> CostEstimate:
    """Median of the blocks' ratios with the exact interval from order statistics; no distribution is assumed.

    Not a bootstrap: with six to ten blocks a percentile bootstrap of the median does not hold its level, while this
    interval holds it whatever the noise. Six blocks are the least for 95 %. Source: Conover, Practical Nonparametric
    Statistics (1999), sec. 3.2; the interval of scipy.stats.quantile_test, in a hundredth of its time.

    >>> estimate([1.02, 1.03, 1.01, 1.04, 1.02, 1.03]).verdict
    'dearer'
    >>> estimate([1.02, 1.03]).verdict
    'not defined: 2 of the 6 blocks that a 95 % interval needs'
    """
    values = np.asarray(ratios, float)
    n, ratio = values.size, float(np.median(values)) if values.size else float("nan")
    needed = int(np.ceil(1 - np.log2(1 - confidence)))
    if n < needed:
        why = f"not defined: {n} of the {needed} blocks that a {100 * confidence:g} % interval needs"
        return CostEstimate(ratio, None, None, n, why)
    # The outermost ranks that a binomial count of blocks below the true median misses at most so often on each side.
    below = int(special.bdtr(np.arange(n), n, 0.5).searchsorted((1 - confidence) / 2, side="right"))
    low, high = (float(np.sort(values)[place]) for place in (below - 1, n - below))
    verdict = "dearer" if low > 1 else "cheaper" if high < 1 else "inconclusive"
    return CostEstimate(ratio, low, high, n, verdict)


def judge(
    blocks: Sequence[Sequence[tuple[str, float]]], base: str, control: str, confidence: float = 0.95
) -> Mapping[str, CostEstimate]:
    """The estimate of every rung against `base`; where the control differs from it, no other verdict stands.

    `control` is measured under the same flags as `base`: an interval without 1 shows that the machine, not the flags,
    made a difference.
    """
    rungs = dict.fromkeys(name for block in blocks for name, _ in block if name != base)
    found = {rung: estimate([block_ratio(block, rung, base) for block in blocks], confidence) for rung in rungs}
    check = found.get(control)
    if check is not None and check.verdict in ("dearer", "cheaper"):
        why = "inconclusive: the control differs from the base"
        found = {
            rung: item if rung == control else CostEstimate(item.ratio, item.low, item.high, item.blocks, why)
            for rung, item in found.items()
        }
    return found
