"""Many tests at once: p values adjusted over a family; a test without a p value takes no part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down p values: they bound the chance of one false finding or more, under any dependence.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70. Missing ones stay missing and do not count.

    >>> holm([0.01, None, 0.04, 0.03])
    [0.03, None, 0.06, 0.06]
    """

    def adjust(ascending: list[float]) -> list[float]:
        count = len(ascending)
        steps = [(count - rank) * value for rank, value in enumerate(ascending)]
        return [float(value) for value in np.minimum(np.maximum.accumulate(steps), 1)]

    return _adjusted(p, adjust)


def benjamini_hochberg(p: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg's step-up p values: they bound the expected share of false ones among the findings.

    Source: Benjamini & Hochberg (1995), J. R. Statist. Soc. B 57, 289-300; for independent or positively dependent
    tests. Missing ones stay missing and do not count.

    >>> benjamini_hochberg([0.01, None, 0.04, 0.02])
    [0.03, None, 0.04, 0.03]
    """

    def adjust(ascending: list[float]) -> list[float]:
        count = len(ascending)
        steps = [value * count / (rank + 1) for rank, value in enumerate(ascending)]
        falling = np.minimum.accumulate(steps[::-1])[::-1]
        return [float(value) for value in np.minimum(falling, 1)]

    return _adjusted(p, adjust)


def _adjusted(p: Sequence[float | None], adjust: Callable[[list[float]], list[float]]) -> list[float | None]:
    known = [(value, place) for place, value in enumerate(p) if value is not None]
    if any(not 0 <= value <= 1 for value, _ in known):
        raise ValueError("p values lie between 0 and 1; give None for one that is not defined")
    result: list[float | None] = [None] * len(p)
    if known:
        known.sort()
        for (_, place), value in zip(known, adjust([value for value, _ in known]), strict=True):
            result[place] = value
    return result
