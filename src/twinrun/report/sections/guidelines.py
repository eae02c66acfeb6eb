"""Guidelines derived by stated rules from the numbers of this study; where the numbers do not decide, none."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd
from scipy import stats

from twinrun.collect.study import Study
from twinrun.report.names import METRIC_LABELS, noise_kinds
from twinrun.report.table import plural
from twinrun.stats import describe as statistics
from twinrun.stats.intervals import mean_interval
from twinrun.stats.power import replicates_for_mean

PRECISION = 0.005  # half a point: the precision that the number of replicates is given for
LEAST_FREEDOM = 5  # degrees of freedom below which an SD is no ground for advice
DETERMINISM = 'table "Do the deterministic runs agree to the last bit?"'
ALIKE, APART = 0.8, 0.5  # churn of twins over churn of seeds: from here alike, to here apart

Frames = dict[str, pd.DataFrame]


class Guideline(NamedTuple):
    """One piece of advice with the numbers behind it; `rule` says when it is given."""

    advice: str
    ground: str  # the numbers and the table that they come from
    rule: str


def guidelines(study: Study, frames: Frames) -> list[Guideline]:
    """Every guideline that this study's numbers decide, general ones first."""
    return [
        *_deterministic(study, frames),
        *(found for task in study.tasks for found in _spread(study, frames, task)),
        *(found for task in study.tasks for found in _churn(study, frames, task)),
        *(found for task in study.tasks for found in _seeds(study, frames, task)),
        *(found for task in study.tasks for found in _ensembles(study, frames, task)),
    ]


def _deterministic(study: Study, frames: Frames) -> list[Guideline]:
    table = frames["determinism"]
    several = table[table["n_det"] > 1]
    equal = int((several["distinct_det"] == 1).sum())
    free = table[table["n_nd"] > 1]
    apart = int((free["distinct_nd"] > 1).sum())
    found = []
    if len(several) and equal == len(several):
        found.append(
            Guideline(
                "Use deterministic mode where a result must be obtained again to the last bit.",
                f"Deterministic runs agreed to the last bit in {equal} of {plural(len(several), 'cell')} "
                f"({DETERMINISM}).",
                "given when all cells with two or more deterministic runs agree",
            )
        )
    if len(several) and equal < len(several):
        found.append(
            Guideline(
                "Do not rely on this study's deterministic mode: verify before you claim reproducibility.",
                f"Deterministic runs differed in {len(several) - equal} of {plural(len(several), 'cell')} "
                f"({DETERMINISM}).",
                "given when any cell's deterministic runs differ",
            )
        )
    # Emulated noise is put in on purpose: that it makes a difference says nothing about a fixed seed.
    if len(free) and apart == len(free) and noise_kinds(study) == ["native"]:
        found.append(
            Guideline(
                "Do not expect a fixed seed alone to give the same network.",
                f"Runs with the same seed ended with different weights in {apart} of {plural(len(free), 'cell')} "
                f"({DETERMINISM}).",
                "given when the nd runs, free by CUDA's own noise, differ in all cells with two or more of them",
            )
        )
    return found


def pooled_sd(sds: pd.Series, counts: pd.Series) -> tuple[float, int]:
    """Root of the mean variance, weighted by degrees of freedom, and their sum.

    >>> pooled_sd(pd.Series([3.0, 4.0]), pd.Series([2, 2]))
    (3.5355339059327378, 2)
    """
    freedom = counts - 1
    total = int(freedom.sum())
    return (math.sqrt(math.fsum(freedom * sds**2) / total) if total else math.nan), total


def _spread(study: Study, frames: Frames, task: str) -> list[Guideline]:
    metric, table = study.main_metric(task), frames["spread"]
    mine = table[(table["task"] == task) & (table["arm"] == "nd") & (table["metric"] == metric)]
    mine = mine[mine["sd_sample"].notna()]
    sd, freedom = pooled_sd(mine["sd_sample"], mine["n"])
    if freedom < LEAST_FREEDOM or sd == 0:
        return []
    low, high = statistics.sd_factors(freedom + 1)
    ground = (
        f"Pooled SD of {METRIC_LABELS[metric]} over identical runs {100 * sd:.2f} points, 95 % "
        f"interval {100 * sd * low:.2f} to {100 * sd * high:.2f}, {freedom} degrees of freedom in "
        f"{plural(len(mine), 'cell')} "
        '(table "Spread of identical runs").'
    )
    rule = f"given when the pooled SD has at least {LEAST_FREEDOM} degrees of freedom"
    gap = 100 * 1.96 * math.sqrt(2) * sd
    found = [
        Guideline(
            f"{study.title(task)}: do not call one single run better than another for less than {gap:.2f} points of "
            f"{METRIC_LABELS[metric]}.",
            ground + " 1.96 sqrt(2) SD is what two identical runs stay below 95 % of the time, if normal.",
            rule,
        )
    ]
    least, wanted, most = (replicates_for_mean(PRECISION, sd * factor).n for factor in (low, 1.0, high))
    if wanted and wanted > 2:
        found.append(
            Guideline(
                f"{study.title(task)}: train at least {wanted} replicates to know mean {METRIC_LABELS[metric]} to "
                f"{100 * PRECISION:g} points either way (95 %).",
                ground
                + f" The smallest n with t SD / sqrt(n) of at most that; at the ends of the SD's interval {least} "
                f"and {most}.",
                rule + ", and more than two runs are needed",
            )
        )
    return found


def _churn(study: Study, frames: Frames, task: str) -> list[Guideline]:
    churn, hidden = frames["churn"], frames["hidden"]
    mine = churn[(churn["task"] == task) & (churn["arm"] == "nd") & churn["churn"].notna()]
    spread = hidden[(hidden["task"] == task) & (hidden["arm"] == "nd") & hidden["sd_accuracy"].notna()]
    if mine.empty or spread.empty:
        return []
    # The mean absolute difference in accuracy of two runs, if normal.
    typical = 2 / math.sqrt(math.pi) * pooled_sd(spread["sd_accuracy"], spread["n"])[0]
    least = float(mine["churn_low"].min(skipna=False))  # a cell without an interval decides nothing
    if not least > 2 * typical:
        return []
    return [
        Guideline(
            f"{study.title(task)}: report churn beside accuracy: runs of almost equal accuracy name different classes "
            "for many images.",
            f"Identical runs disagree on {100 * mine['churn'].mean():.1f} % of the images, at least "
            f"{100 * least:.1f} % in every cell's interval, while their accuracies differ by "
            f"{100 * typical:.2f} points on average "
            '(tables "Churn of identical runs", "What accuracy hides").',
            "given when every cell's interval of churn lies above twice the mean difference in accuracy",
        )
    ]


def _seeds(study: Study, frames: Frames, task: str) -> list[Guideline]:
    arms, cells, ends = frames["churn_arms"], frames["churn"], []
    for optimizer in study.optimizers:
        others = arms["comparison"].str.endswith("other seeds")
        control = arms.loc[(arms["task"] == task) & (arms["optimizer"] == optimizer) & others, "churn"].dropna()
        mine = cells[(cells["task"] == task) & (cells["optimizer"] == optimizer) & (cells["arm"] == "nd")]
        interval = mean_interval(mine["churn"].dropna())
        if control.empty or not control.iloc[0] > 0 or interval.low is None or interval.high is None:
            return []
        ends.append((interval.low / control.iloc[0], interval.high / control.iloc[0]))
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    ground = (
        f"Churn of identical runs is {max(low, 0):.2f} to {high:.2f} of that between other seeds (95 % t intervals "
        f'over the cells, {plural(len(ends), "optimizer")}; tables "Churn of identical runs", '
        '"Churn of twins beside churn of seeds").'
    )
    if low >= ALIKE:
        return [
            Guideline(
                f"{study.title(task)}: count implementation noise as a source of variance as large as the seed.",
                ground,
                f"given when the interval lies above {ALIKE} for every optimizer",
            )
        ]
    if high <= APART:
        return [
            Guideline(
                f"{study.title(task)}: vary the seeds, not the replicates, to see the variance of training.",
                ground,
                f"given when the interval lies below {APART} for every optimizer",
            )
        ]
    return []


def _ensembles(study: Study, frames: Frames, task: str) -> list[Guideline]:
    hidden = frames["hidden"]
    gains = hidden[(hidden["task"] == task) & (hidden["arm"] == "nd")]["ensemble_gain"].dropna()
    sd = statistics.sample_sd(gains)
    if len(gains) <= LEAST_FREEDOM or not sd > 0:
        return []
    mean = statistics.mean(gains)
    half = float(stats.t.ppf(0.975, len(gains) - 1)) * sd / math.sqrt(len(gains))
    if mean - half <= 0:
        return []
    return [
        Guideline(
            f"{study.title(task)}: average the runs' probabilities rather than choosing one run.",
            f"The average is more accurate than its members by {100 * mean:.2f} points, 95 % t interval "
            f"{100 * (mean - half):.2f} to {100 * (mean + half):.2f} over {len(gains)} cells "
            '(table "What accuracy hides").',
            f"given when there are more than {LEAST_FREEDOM} cells and the interval of the mean gain lies above 0",
        )
    ]
