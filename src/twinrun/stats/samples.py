"""What statistics take and give: checked samples, and small results that say why when they have no value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Sample = NDArray[np.float64]
Progress = Callable[[int, int], None]  # is told after each step how many are done, and of how many
UNDEFINED = "not defined: "
CONFIDENCE = 0.95  # of an interval, where nothing else is said


def silent(done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Estimate:
    """A number, or None and the reason."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class Interval:
    """A two-sided interval around `value`; low and high are None when it is not defined, and `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str
    reason: str = ""
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Outcome:
    """A test: statistic, two-sided p, degrees of freedom, group sizes and an effect size.

    `statistic`, `p` and `effect` are None when they are not defined; `reason` says why.
    """

    method: str
    statistic: float | None
    p: float | None
    n: tuple[int, ...]
    df: tuple[float, ...] = ()
    effect: float | None = None
    reason: str = ""

    @classmethod
    def undefined(cls, method: str, n: tuple[int, ...], reason: str) -> Outcome:
        """A test without a result."""
        return cls(method, None, None, n, reason=reason if reason.startswith(UNDEFINED) else UNDEFINED + reason)


def sample(values: ArrayLike) -> Sample:
    """The values in ascending order: sums over them have the same bits whatever order they came in.

    Raises ValueError when they are not one-dimensional.

    >>> sample([3, 1, 2]).tolist()
    [1.0, 2.0, 3.0]
    """
    return np.sort(one_dimensional(values))


def one_dimensional(values: ArrayLike) -> Sample:
    """The values as they come; ValueError when they are not one-dimensional."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"one-dimensional values wanted, got shape {array.shape}")
    return array


def fault(array: Sample, least: int, *, spread: bool = False, name: str = "values") -> str:
    """Why a statistic of this sample is not defined; empty when it is.

    >>> fault(sample([1.0]), 2)
    'not defined: 1 of the 2 values that it needs'
    >>> fault(sample([1.0, 1.0]), 2, spread=True, name="nd runs")
    'not defined: all 2 nd runs are equal'
    """
    if not np.isfinite(array).all():
        return f"{UNDEFINED}a value is missing among the {name}"
    if array.size < least:
        return f"{UNDEFINED}{array.size} of the {least} {name} that it needs"
    if spread and np.all(array == array[0]):
        return f"{UNDEFINED}all {array.size} {name} are equal"
    return ""


def group_fault(groups: Sequence[Sample], least: int, *, count: int = 2) -> str:
    """Why a statistic over these groups is not defined: too few groups, or a group with fewer than `least` values.

    >>> group_fault([sample([1.0, 2.0])], 2)
    'not defined: 1 of the 2 groups that it needs'
    """
    if len(groups) < count:
        return f"{UNDEFINED}{len(groups)} of the {count} groups that it needs"
    return next((why for group in groups if (why := fault(group, least, name="values of a group"))), "")
