"""Published numbers and how far they can be trusted: each is known to half a unit of its last printed digit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Reported:
    """A printed number and the range that it was rounded from."""

    value: float
    low: float
    high: float

    @property
    def half_unit(self) -> float:
        """Half of the last printed digit."""
        return (self.high - self.low) / 2

    @property
    def cut(self) -> Reported:
        """The same number, had its further digits been cut off as well as rounded."""
        if self.value < 0:
            return Reported(self.value, self.value - 2 * self.half_unit, self.high)
        return Reported(self.value, self.low, self.value + 2 * self.half_unit)


@dataclass(frozen=True)
class Check:
    """A printed number beside the recomputed one, `low` to `high` by the rounding of its inputs.

    It passes when some unrounded inputs would print it; `cut_off` is when they would, had digits been cut off.
    """

    kind: str
    where: str
    what: str
    printed: float
    recomputed: float
    low: float
    high: float
    tolerance: float
    cut_off: bool = False

    @property
    def passed(self) -> bool:
        """Whether the printed number, give or take its tolerance, meets what its inputs allow."""
        slack = self.tolerance * (1 + 1e-9)
        return self.low - slack <= self.printed <= self.high + slack

    @property
    def verdict(self) -> str:
        """pass, cut off (right but for digits cut off instead of rounded), or FAIL."""
        return "pass" if self.passed else "cut off" if self.cut_off else "FAIL"


def decimals(text: str) -> int:
    """Printed digits after the point.

    >>> decimals("0.0350")
    4
    """
    return len(text.partition(".")[2])


def reported(text: str, places: int | None = None) -> Reported:
    """The number of a table, known to half a unit of its last digit (or of `places` digits after the point).

    >>> result = reported("0.385")
    >>> print(f"{result.low:.4f} {result.high:.4f}")
    0.3845 0.3855
    """
    half = 0.5 * 10.0 ** -(decimals(text) if places is None else places)
    return Reported(float(text), float(text) - half, float(text) + half)


def span(function: Callable[..., float], *inputs: Reported) -> tuple[float, float, float]:
    """A function of printed numbers: its value, and its least and greatest value over the corners of their ranges.

    Right for functions that are monotone in each input; an input that may be 0 is for the caller to look after.

    >>> value, low, high = span(lambda a, b: a * b, reported("2"), reported("3"))
    >>> print(value, low, high)
    6.0 3.75 8.75
    """
    corners = [function(*corner) for corner in product(*((item.low, item.high) for item in inputs))]
    return function(*(item.value for item in inputs)), min(corners), max(corners)


def recompute(
    kind: str, where: str, what: str, printed: Reported, function: Callable[..., float], *inputs: Reported
) -> Check:
    """The check of a printed number against a function of other printed numbers.

    >>> recompute("sum", "Table 1", "sum", reported("5.1"), lambda a, b: a + b, reported("2.0"), reported("3.0")).passed
    True
    """
    value, low, high = span(function, *inputs)
    _, least, greatest = span(function, *(item.cut for item in inputs))
    cut_off = least <= printed.cut.high and printed.cut.low <= greatest
    return Check(kind, where, what, printed.value, value, low, high, printed.half_unit, cut_off)


def in_order(where: str, what: str, smaller: Reported, larger: Reported) -> Check:
    """The check that one printed number is not above another.

    >>> in_order("Table 1", "minimum <= mean", reported("2.0"), reported("1.0")).passed
    False
    """
    return Check("order", where, what, smaller.value, larger.value, -math.inf, larger.high, smaller.half_unit)


def between(where: str, what: str, printed: Reported, value: float, ends: list[float], slack: float) -> Check:
    """The check of a mean over groups whose weights are not stated: it lies between the groups' own means.

    `value` is the mean by the likeliest weights, `slack` the rounding of the ends.

    >>> between("Table 1", "mean", reported("2.0"), 1.2, [1.0, 1.5], 0.05).passed
    False
    """
    low, high = min(ends), max(ends)
    return Check("mean", where, what, printed.value, value, low - slack, high + slack, printed.half_unit)
