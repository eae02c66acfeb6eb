"""The arms side by side: spread and churn of each source of randomness, and both over those of nd."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from twinrun.analysis import statistics
from twinrun.analysis.guidelines import pooled_sd
from twinrun.analysis.intervals import mean_interval
from twinrun.analysis.samples import UNDEFINED, Interval
from twinrun.analysis.table import Study
from twinrun.analysis.tables import Table, remarks
from twinrun.analysis.tables_twins import left_out
from twinrun.analysis.thesis_names import nd_noise


def sd_ratio(first: float, df_first: int, second: float, df_second: int, confidence: float = 0.95) -> Interval:
    """Ratio of two SDs of normal values with its F interval: (s1/s2) / sqrt(F_(1-a/2)) to (s1/s2) / sqrt(F_(a/2)).

    >>> found = sd_ratio(2.0, 10, 1.0, 10)
    >>> print(f"{found.value:.1f} {found.low:.2f} {found.high:.2f}")
    2.0 1.04 3.86
    >>> sd_ratio(2.0, 10, 0.0, 10).reason
    'not defined: an SD is 0'
    """
    n, method, tail = df_first + df_second, "F", (1 - confidence) / 2
    if df_first < 1 or df_second < 1:
        return Interval(None, None, None, n, confidence, method, f"{UNDEFINED}no two runs in a cell")
    if not (first > 0 and second > 0):
        return Interval(None, None, None, n, confidence, method, f"{UNDEFINED}an SD is 0")
    low, high = (math.sqrt(float(special.fdtri(df_first, df_second, share))) for share in (1 - tail, tail))
    return Interval(first / second, first / second / low, first / second / high, n, confidence, method)


def churn_ratio(first: list[float], second: list[float], confidence: float = 0.95) -> Interval:
    """Ratio of the churn of two arms, paired by cell: geometric mean with the t interval of the log ratio.

    >>> found = churn_ratio([0.2, 0.4, 0.6], [0.1, 0.2, 0.3])
    >>> print(f"{found.value:.1f} {found.low:.1f} {found.high:.1f}")
    2.0 2.0 2.0
    """
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a > 0 and b > 0]
    method = "paired t of logs"
    if not pairs:
        return Interval(None, None, None, 0, confidence, method, f"{UNDEFINED}no cell in which both arms flip")
    logs = mean_interval([math.log(a / b) for a, b in pairs], confidence)
    ends = (None if end is None else math.exp(end) for end in (logs.value, logs.low, logs.high))
    value, low, high = ends
    return Interval(value, low, high, len(pairs), confidence, method, logs.reason)


def arms_table(study: Study, spread: pd.DataFrame, churn: pd.DataFrame) -> Table:
    """Per task, optimizer and arm: SD of the main metric and churn with intervals, and their ratios to nd."""
    rows: list[dict[str, Any]] = []
    for task in study.tasks:
        metric = study.main_metric(task)
        for optimizer in study.optimizers:
            sds = {arm: _sds(spread, task, optimizer, arm, metric) for arm in study.arms if arm != "det"}
            flips = {arm: _churn(churn, task, optimizer, arm) for arm in sds}
            for arm, (sd, freedom, cells, runs) in sds.items():
                ratio = sd_ratio(sd, freedom, *sds["nd"][:2]) if "nd" in sds and arm != "nd" else None
                mine = flips[arm]
                both = mine.index.intersection(flips["nd"].index) if "nd" in flips else mine.index[:0]
                against = churn_ratio(list(mine[both]), list(flips["nd"][both])) if ratio is not None else None
                low, high = statistics.sd_factors(freedom + 1) if freedom and sd > 0 else (math.nan, math.nan)
                mean = mean_interval(np.asarray(mine, np.float64))
                rows.append(
                    {
                        "task": task,
                        "optimizer": optimizer,
                        "arm": arm,
                        "metric": metric,
                        "cells": cells,
                        "runs": runs,
                        "sd_pooled": 100 * sd,
                        "sd_pooled_low": 100 * sd * low,
                        "sd_pooled_high": 100 * sd * high,
                        **_triple("sd_ratio", ratio),
                        "churn": statistics.mean(mine),
                        "churn_cells_low": max(mean.low, 0.0) if mean.low is not None else math.nan,
                        "churn_cells_high": min(mean.high, 1.0) if mean.high is not None else math.nan,
                        **_triple("churn_ratio", against),
                        "remark": remarks(
                            "no cell with two complete runs" if not freedom else "",
                            f"churn interval {mean.reason}" if mean.reason and freedom else "",
                            f"SD ratio {ratio.reason}" if ratio is not None and ratio.reason else "",
                            f"churn ratio {against.reason}" if against is not None and against.reason else "",
                            "" if "nd" in sds else "no nd runs to compare with",
                            "what the other arms are compared with" if arm == "nd" else "",
                        ),
                    }
                )
    columns = list(rows[0]) if rows else ["task", "optimizer", "arm", "remark"]
    return Table(
        name="arms",
        thesis_name="",
        title="What each source of randomness does",
        caption=(
            "SD of the task's main metric in points, pooled over the cells (root of the mean variance, weighted by "
            "n - 1), with its chi-square interval; ratio to the SD of nd with its F interval (both for normal values). "
            "Churn: mean over the cells, t interval with the cells as draws; ratio to the churn of nd: geometric mean "
            "over the cells that have both, with the t interval of its logarithm. All intervals 95 %. Runs: complete "
            f"runs in cells of two or more. nd: {nd_noise(study)}."
        ),
        frame=pd.DataFrame(rows, columns=columns),
        notes=left_out(study) if rows else ("Not available: the study has no free arm.",),
    )


def _sds(spread: pd.DataFrame, task: str, optimizer: str, arm: str, metric: str) -> tuple[float, int, int, int]:
    """Pooled SD, its degrees of freedom, cells, runs."""
    chosen = (spread["task"] == task) & (spread["optimizer"] == optimizer) & (spread["arm"] == arm)
    mine = spread[chosen & (spread["metric"] == metric) & spread["sd_sample"].notna()]
    sd, freedom = pooled_sd(mine["sd_sample"], mine["n"])
    return sd, freedom, len(mine), int(mine["n"].sum())


def _churn(churn: pd.DataFrame, task: str, optimizer: str, arm: str) -> pd.Series:
    chosen = (churn["task"] == task) & (churn["optimizer"] == optimizer) & (churn["arm"] == arm)
    found: pd.Series = churn[chosen & churn["churn"].notna()].set_index("seed")["churn"]
    return found


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _triple(name: str, interval: Interval | None) -> dict[str, float]:
    values = (None, None, None) if interval is None else (interval.value, interval.low, interval.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(_number, values), strict=True))
