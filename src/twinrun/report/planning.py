"""`twinrun power`: replicates needed for given SDs or for those of a study, as a table and in sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from twinrun.collect.study import Study
from twinrun.stats import describe, power
from twinrun.stats.power import Needed
from twinrun.study.errors import IncompleteError


@dataclass(frozen=True)
class Wanted:
    """What is wanted: precision is relative, difference and margin are in points of 100."""

    precision: float = 0.25
    difference: float = 0.5
    margin: float = 0.5
    alpha: float = 0.05
    power: float = 0.8


def study_sds(study: Study) -> dict[str, float]:
    """SDs of nd runs on each task's main metric, in points: the median over the cells and the worst cell.

    Raises IncompleteError when no cell has two runs that differ.
    """
    of_cells: dict[str, float] = {}
    for task in study.tasks:
        cells = [group.known(study.main_metric(task)) for group in study.groups("nd", task=task)]
        sds = [100 * sd for runs in cells if runs.size > 1 and (sd := describe.sample_sd(runs)) > 0]
        if sds:
            of_cells[f"{task}, median cell"] = float(pd.Series(sds).median())
            of_cells[f"{task}, worst cell"] = max(sds)
    if not of_cells:
        raise IncompleteError("no cell has two nd runs that differ, so the study has no SD", "give one with --sd")
    return of_cells


def study_wanted(study: Study) -> Wanted:
    """The margin and level of the study's params; a difference as large as the margin."""
    chosen = study.assumptions
    margin = chosen.equivalence_margin_points
    return Wanted(difference=margin, margin=margin, alpha=chosen.alpha)


def plan_table(sds: dict[str, float], wanted: Wanted) -> pd.DataFrame:
    """Replicates per cell and arm for each SD (in points); an empty cell is a number that does not exist.

    >>> plan_table({"given": 0.25}, Wanted())["arms"].tolist()
    [6]
    """
    rows = []
    for name, sd in sds.items():
        rows.append(
            {
                "sd_of": name,
                "sd_points": sd,
                "sd_precision": _count(power.replicates_for_sd(wanted.precision, 1 - wanted.alpha)),
                "arms": _count(power.replicates_for_difference(wanted.difference, sd, wanted.alpha, wanted.power)),
                "single_run": _count(power.replicates_against_one(wanted.difference, sd, wanted.alpha, wanted.power)),
                "equivalence": _count(power.replicates_for_equivalence(wanted.margin, sd, wanted.alpha, wanted.power)),
            }
        )
    return pd.DataFrame(rows).astype(dict.fromkeys(("sd_precision", "arms", "single_run", "equivalence"), "Int64"))


def _count(needed: Needed) -> int | None:
    return needed.n


def plan_text(sds: dict[str, float], wanted: Wanted) -> str:
    """The table and one sentence for each of its columns, for a terminal."""
    table = plan_table(sds, wanted)
    width = max(len(name) for name in [*sds, "SD of"])
    heads = ("SD", "SD +-", "two arms", "one run", "equal")
    lines = [f"{'SD of':<{width}}" + "".join(f"{head:>10}" for head in heads)]
    for row in table.itertuples(index=False):
        counts = (row.sd_precision, row.arms, row.single_run, row.equivalence)
        lines.append(
            f"{row.sd_of:<{width}}{row.sd_points:>10.3f}"
            + "".join(f"{'none' if count is pd.NA else str(count):>10}" for count in counts)
        )
    of = [f"For the largest SD, {max(sds, key=lambda name: sds[name])}:"] if len(sds) > 1 else []
    return "\n".join([*lines, "", *of, *plan_sentences(sds, wanted)])


def plan_sentences(sds: dict[str, float], wanted: Wanted) -> list[str]:
    """One plain sentence for each question, for the largest SD.

    >>> plan_sentences({"given": 0.25}, Wanted())[1]
    'two arms: 6 runs per arm find a true difference of 0.5 points with power 80 % (two-sided t-test at 5 %, SD 0.25).'
    """
    worst = max(sds.values())
    chance, level = f"{100 * wanted.power:g} %", f"{100 * wanted.alpha:g} %"
    precise = power.replicates_for_sd(wanted.precision, 1 - wanted.alpha)
    arms = power.replicates_for_difference(wanted.difference, worst, wanted.alpha, wanted.power)
    single = power.replicates_against_one(wanted.difference, worst, wanted.alpha, wanted.power)
    equal = power.replicates_for_equivalence(wanted.margin, worst, wanted.alpha, wanted.power)
    size, margin, sd = f"{wanted.difference:g} points", f"{wanted.margin:g} points", f"SD {worst:.2g}"
    return [
        _said(
            "SD +-",
            precise,
            f"runs of one cell give an SD whose {100 * (1 - wanted.alpha):g} % interval ends at most "
            f"{100 * wanted.precision:g} % above it, whatever the SD.",
        ),
        _said(
            "two arms",
            arms,
            f"runs per arm find a true difference of {size} with power {chance} (two-sided t-test at {level}, {sd}).",
        ),
        _said(
            "one run",
            single,
            f"free runs show one new run that lies {size} off with power {chance} (prediction interval at {level}, "
            f"{sd}).",
        ),
        _said(
            "equal",
            equal,
            f"runs per arm show two equal arms to be equal to within {margin} with power {chance} (TOST at {level}, "
            f"{sd}).",
        ),
    ]


def _said(column: str, needed: Needed, rest: str) -> str:
    return f"{column}: {needed.n} {rest}" if needed.n is not None else f"{column}: {needed.reason}."


def check_sds(values: list[float]) -> dict[str, float]:
    """SDs given by hand, by name. Raises InputError for one that is not above 0.

    >>> check_sds([0.2])
    {'given 0.2': 0.2}
    """
    for value in values:
        power.positive("--sd", value)
    return {f"given {value:g}": value for value in values if math.isfinite(value)}
