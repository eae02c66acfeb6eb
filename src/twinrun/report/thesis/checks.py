"""Checks of the thesis's published tables against each other: general rules, none written for one known mistake."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from scipy import special

from twinrun.report.thesis.tables import (
    RUNS,
    TABLES,
    TITLES,
    PublishedCell,
    Reported,
    column,
    published_cells,
    reported,
    thesis_frame,
)
from twinrun.stats import describe as statistics


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


def all_checks() -> list[Check]:
    """Every check, table by table.

    >>> any(not check.passed for check in all_checks())
    True
    """
    cells = published_cells()
    return [*partitions(), *differences(cells), *summaries(cells), *rank_and_f_tests(cells), *energy(), *said(cells)]


def partitions() -> list[Check]:
    """Table 4.2: two ways of dividing the same images have one total."""
    frame = thesis_frame("table_4_2")
    totals = {str(name): sum(map(int, rows["images"])) for name, rows in frame.groupby("split", sort=False)}
    (first, reference), *others = totals.items()
    return [
        recompute(
            "sum",
            "Table 4.2",
            f"images by {name} and by {first}",
            reported(str(total)),
            float,
            reported(str(reference)),
        )
        for name, total in others
    ]


def differences(cells: list[PublishedCell]) -> list[Check]:
    """Tables 5.1-5.3: difference = 100 (det - nd) / nd."""
    return [
        recompute(
            "difference",
            TABLES[cell.task],
            f"{cell.name}: difference in %",
            cell.difference_percent,
            lambda det, nd: statistics.difference_percent(det, nd).value or 0.0,
            cell.deterministic,
            cell.free_mean,
        )
        for cell in cells
    ]


def summaries(cells: list[PublishedCell]) -> list[Check]:
    """Table 5.4: its order, and that its mean and extremes fit Tables 5.1-5.3."""
    frame, checks = thesis_frame("table_5_4"), []
    for _, row in frame.iterrows():
        task = row["task"]
        low, mean, high = column(row[["minimum", "mean", "maximum"]].to_frame("number"), "number")
        published = [cell for cell in cells if cell.task == task]
        means = [cell.free_mean for cell in published]
        fixed = [cell.deterministic for cell in published]
        free, single = (statistics.mean([item.value for item in group]) for group in (means, fixed))
        title = TITLES[task]
        checks += [
            in_order("Table 5.4", f"{title}: minimum <= mean", low, mean),
            in_order("Table 5.4", f"{title}: mean <= maximum", mean, high),
            in_order("Table 5.4", f"{title}: minimum <= least of {TABLES[task]}", low, _least(means + fixed)),
            in_order("Table 5.4", f"{title}: greatest of {TABLES[task]} <= maximum", _greatest(means + fixed), high),
            between(
                "Table 5.4",
                f"{title}: mean, from {TABLES[task]}",
                mean,
                (RUNS * free + single) / (RUNS + 1),
                [free, single],
                means[0].half_unit,
            ),
        ]
    return checks


def _least(items: list[Reported]) -> Reported:
    return min(items, key=lambda item: item.value)


def _greatest(items: list[Reported]) -> Reported:
    return max(items, key=lambda item: item.value)


def rank_and_f_tests(cells: list[PublishedCell]) -> list[Check]:
    """Table 5.6: p from F(k-1, N-k) and from chi-square(k-1), the groups being the seeds; and whether they are."""
    frame, checks, implied = thesis_frame("table_5_6"), [], []
    for _, row in frame.iterrows():
        groups = sum(cell.task == row["task"] and cell.optimizer == row["optimizer"] for cell in cells)
        statistic, p = reported(row["statistic"]), reported(row["p"])
        what = f"{TITLES[row['task']]} {row['optimizer']}"
        if row["test"] == "anova":
            df = (groups - 1, groups * RUNS - groups)
            label, tail = f"{what}: p of F{df} = {row['statistic']}", partial(special.fdtrc, *df)
        else:
            label, tail = f"{what}: p of H = {row['statistic']}, df {groups - 1}", partial(special.chdtrc, groups - 1)
            implied.append(_implied_groups(statistic, p))
        checks.append(recompute("p value", "Table 5.6", label, p, _number(tail), statistic))
    optimizers, what = len({cell.optimizer for cell in cells}), "groups compared (said: optimizers), from H and p"
    ends = min(implied), max(implied)
    return [*checks, Check("groups", "Table 5.6", what, float(optimizers), statistics.mean(implied), *ends, 0.0)]


def _number(tail: Callable[[float], Any]) -> Callable[[float], float]:
    return lambda statistic: float(tail(statistic))


def _implied_groups(statistic: Reported, p: Reported) -> float:
    """The number of groups whose chi-square gives H that p most nearly."""
    counts = np.arange(2, 31)
    distance = np.abs(special.chdtrc(counts - 1, statistic.value) - p.value)
    return float(counts[distance.argmin()])


def energy() -> list[Check]:
    """Table 6.1: the sum of the tasks, CO2 = kWh x intensity, and one intensity for all rows."""
    frame, checks = thesis_frame("table_6_1"), []
    implied: list[tuple[str, Reported]] = []
    for _, row in frame.iterrows():
        parts = [reported(row[name], 2) for name in ("cifar10_kwh", "cbis_ddsm_kwh", "sdnet2018_kwh")]
        total, co2 = reported(row["sum_kwh"]), reported(row["co2_kg"], 2)
        # The intensity is a figure of the text that the formula takes as it stands, so it is exact here.
        factor = float(row["carbon_intensity_kg_per_kwh"])
        checks.append(recompute("sum", "Table 6.1", f"{row['runs']} runs: kWh", total, lambda *kwh: sum(kwh), *parts))
        what = f"{row['runs']} runs: CO2 = {row['sum_kwh']} kWh x {factor}"
        checks.append(recompute("CO2", "Table 6.1", what, co2, partial(operator.mul, factor), total))
        implied.append((row["runs"], Reported(co2.value / total.value, co2.low / total.high, co2.high / total.low)))
    (name, first), *others = implied
    checks += [
        recompute("CO2", "Table 6.1", f"kg/kWh of {other} runs, as of {name} runs", intensity, float, first)
        for other, intensity in others
    ]
    return checks


def said(cells: list[PublishedCell]) -> list[Check]:
    """Sentences that state a number of the tables."""
    checks = []
    for _, row in thesis_frame("statements").iterrows():
        chosen = [
            cell
            for cell in cells
            if cell.task == row["task"] and row["optimizer"] in ("", cell.optimizer) and row["seed"] in ("", cell.seed)
        ]
        recomputed, printed = _quantity(chosen, row["quantity"]), reported(row["printed"])
        where = f"{row['where']} against {'Table 5.5' if row['quantity'].startswith('count') else TABLES[row['task']]}"
        checks.append(recompute("statement", where, row["statement"], printed, float, recomputed))
    return checks


def _quantity(cells: list[PublishedCell], name: str) -> Reported:
    fixed = [cell.deterministic for cell in cells]
    everything = fixed + [cell.free_mean for cell in cells]
    match name:
        case "maximum":
            return _greatest(everything)
        case "minimum":
            return _least(everything)
        case "minimum_deterministic":
            return _least(fixed)
        case "deterministic":
            return fixed[0]
        case "difference_percent":
            return cells[0].difference_percent
        case _:
            count = float(sum(cell.p.value < 0.05 for cell in cells))
            return Reported(count, count, count)
