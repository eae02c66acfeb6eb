"""Looking after every pair of runs: an interval and a verdict that hold however often one looks."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from twinrun.stats import describe
from twinrun.stats.samples import CONFIDENCE, UNDEFINED, Interval, fault, sample

EFFECT = 1.0  # SD of the prior of the effect size, in SDs of a difference: the interval is finite from five pairs on
LEAST = 5


def confidence_sequence(differences: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Interval of a mean of normal differences that holds at all numbers of pairs at once.

    The t statistic has a Bayes factor with a normal prior of the effect size, N(0, effect^2), whatever the SD:
    M = k^(-1/2) ((1 + t^2 / (n-1)) / (1 + t^2 / ((n-1) k)))^(n/2) with k = 1 + n effect^2. Under the true mean it is a
    nonnegative martingale in the invariant filtration, so by Ville's inequality it ever reaches 1 / alpha with a chance
    of at most alpha; the interval holds every mean for which it has not. Sources: Lai (1976), Annals of Statistics 4,
    265-280; Wang & Ramdas, Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance
    (arXiv 2310.03722); Rouder et al. (2009) for the factor. In simulations that look after every pair up
    to 100, 2.8 % of normal differences ever exclude the true mean and 1.1 % of those of two lognormal arms; but 24 % of
    lognormal differences: an arm without noise beside a skewed one is no case for it. To find a difference of one SD
    it takes 13 pairs on average and a fixed design of 80 % power 10.

    >>> interval = confidence_sequence([1.0, 1.2, 0.9, 1.1, 1.0, 1.3, 0.8, 1.1])
    >>> print(f"{interval.value:.2f} {interval.low:.2f} {interval.high:.2f}")
    1.05 0.81 1.29
    >>> confidence_sequence([1.0, 1.2, 0.9]).reason
    'not defined: 3 of the 5 pairs that it needs'
    """
    array = sample(differences)
    n, method = array.size, "anytime-valid t"
    value = describe.mean(array) if n and not fault(array, 1) else None
    reason = fault(array, 1) or fault(array, LEAST, spread=True, name="pairs")
    if reason or value is None:
        return Interval(value, None, None, n, method, reason, confidence)
    k = 1 + n * EFFECT**2
    growth = math.exp((math.log(k) - 2 * math.log(1 - confidence)) / n)
    if growth >= k:
        why = f"{UNDEFINED}{n} pairs bound nothing at {100 * confidence:g} %"
        return Interval(value, None, None, n, method, why, confidence)
    t = math.sqrt((n - 1) * (growth - 1) / (1 - growth / k))
    half = t * describe.sample_sd(array) / math.sqrt(n)
    return Interval(value, value - half, value + half, n, method, confidence=confidence)
