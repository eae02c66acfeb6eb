"""Where the variance is: between seeds or within a seed, with the intraclass correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from twinrun.stats import describe
from twinrun.stats.intervals import PooledSd
from twinrun.stats.samples import CONFIDENCE, UNDEFINED, group_fault, sample


@dataclass(frozen=True)
class Components:
    """Variance between and within groups, and ICC(1) with its interval; None where not defined, `reason` says why.

    `truncated`: the estimate of the variance between groups was negative and is given as 0, and so is the ICC; the
    estimate itself is `between_raw`.
    """

    between: float | None
    within: float | None
    between_raw: float | None
    truncated: bool
    icc: float | None
    icc_low: float | None
    icc_high: float | None
    groups: int
    n: int
    reason: str = ""


def components(groups: Sequence[ArrayLike]) -> Components:
    """One-way random effects by the method of moments: within = MSW, between = (MSB - MSW) / n0.

    n0 = (N - sum n_i^2 / N) / (k - 1), the common size when all are equal. ICC(1) = between / (between + within). Its
    95 % interval is exact for equal sizes: with F = MSB / MSW, (F / F_u - 1) / (F / F_u + n0 - 1) to (F / F_l - 1) /
    (F / F_l + n0 - 1); with unequal sizes n0 makes it an approximation. Its ends may be negative, not below
    -1 / (n0 - 1). Sources: Searle, Casella & McCulloch, Variance Components (1992), ch. 3; Shrout & Fleiss (1979).

    >>> result = components([[1.0, 3.0], [5.0, 7.0]])
    >>> print(f"{result.between:.1f} {result.within:.1f} {result.icc:.3f}")
    7.0 2.0 0.778
    >>> components([[1.0, 2.0]]).reason
    'not defined: 1 of the 2 groups that it needs'
    """
    samples = [sample(group) for group in groups]
    count, total = len(samples), sum(group.size for group in samples)
    reason = group_fault(samples, 1)
    if not reason and total == count:
        reason = f"{UNDEFINED}one value per group"
    if reason:
        return Components(None, None, None, False, None, None, None, count, total, reason)
    middle = describe.mean(np.concatenate(samples))
    means = [describe.mean(group - middle) for group in samples]
    grand = sum(group.size * mean for group, mean in zip(samples, means, strict=True)) / total
    between = math.fsum(group.size * (mean - grand) ** 2 for group, mean in zip(samples, means, strict=True))
    within = math.fsum((group.size - 1) * describe.sample_sd(group) ** 2 for group in samples if group.size > 1)
    msb, msw = between / (count - 1), within / (total - count)
    n0 = (total - sum(group.size**2 for group in samples) / total) / (count - 1)
    raw = (msb - msw) / n0
    kept = max(raw, 0.0)
    if msw == 0:
        why = f"{UNDEFINED}no spread within any group, so no ICC interval"
        if kept == 0:
            return Components(0.0, 0.0, raw, False, None, None, None, count, total, f"{UNDEFINED}all values are equal")
        return Components(kept, 0.0, raw, False, 1.0, None, None, count, total, why)
    df, f = (count - 1, total - count), msb / msw
    tail = (1 - CONFIDENCE) / 2
    ends = [f / float(special.fdtri(*df, share)) for share in (1 - tail, tail)]
    low, high = ((end - 1) / (end + n0 - 1) for end in ends)
    return Components(kept, msw, raw, raw < 0, kept / (kept + msw), low, high, count, total)


def total_sd(groups: Sequence[ArrayLike]) -> PooledSd:
    """The SD of one run with everything free, from a few runs of each of several seeds: sqrt(between + within).

    between + within = MSB / n0 + (1 - 1 / n0) MSW, with Satterthwaite's degrees of freedom. It is what a gain over
    another model is held against; the SD within seeds is far smaller. Groups of one run each give their plain SD; NaN
    with no degrees of freedom for fewer than two groups. Source: Satterthwaite (1946), Biometrics Bulletin 2, 110-114.

    >>> total = total_sd([[1.0, 3.0], [5.0, 7.0]])
    >>> print(f"{total.value:.2f} {total.df:.2f}")
    3.00 1.26
    """
    samples = [kept for group in groups if (kept := sample(group)).size]
    count, total = len(samples), sum(group.size for group in samples)
    if count < 2:
        return PooledSd(math.nan, 0)
    if total == count:
        return PooledSd.of([np.concatenate(samples)])
    parts = components(samples)
    if parts.within is None or parts.between_raw is None:
        return PooledSd(math.nan, 0)
    n0 = (total - sum(group.size**2 for group in samples) / total) / (count - 1)
    between, within = parts.between_raw + parts.within / n0, (1 - 1 / n0) * parts.within  # MSB / n0, and the rest
    freedom = between**2 / (count - 1) + within**2 / (total - count)
    variance = between + within
    return PooledSd(math.sqrt(variance), variance**2 / freedom if freedom else float(total - 1))
