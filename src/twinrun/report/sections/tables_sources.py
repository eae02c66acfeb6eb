"""The tables by source of randomness: this study's, and what others have published."""

from __future__ import annotations

import math
from importlib import resources
from io import StringIO
from typing import Any

import pandas as pd

from twinrun.collect.study import Study
from twinrun.report.names import METRIC_LABELS, nd_noise
from twinrun.report.sections.sources import Estimate, PairMean, PooledSd, churn_of, distance_of, sd_of, source_arms
from twinrun.report.table import Table, remarks

SD, CHURN, DISTANCE = "SD", "churn", "head distance"
NOT_AVAILABLE = (
    "Not available: no arm of this study leaves a single source free (init, shuffle, augment, dropout, ulp) in two "
    "runs or more; `studies/sources.yaml` does."
)
_COLUMNS = [
    "task", "optimizer", "quantity", "source", "cells", "runs", "value", "value_low", "value_high", "over_all",
    "over_all_low", "over_all_high", "over_nd", "over_nd_low", "over_nd_high", "remark",
]  # fmt: skip


def sources_table(study: Study) -> Table:
    """SD, churn and head distance by source with intervals, and their ratios to the arms all and nd."""
    arms = source_arms(study)
    rows = [
        row
        for task in study.tasks
        for optimizer in study.optimizers
        for row in (_rows(study, task, optimizer, arms) if arms else [])
    ]
    return Table(
        name="sources",
        thesis_name="",
        title="What each source of randomness does alone",
        caption=(
            "In each arm one source is free and everything else is fixed; in all everything is free. SD: of the task's "
            "main metric within cells, pooled over the cells, with the chi-square interval; ratio with the F interval. "
            "Churn, and the relative distance of the heads at the last checkpoint: mean over the pairs of runs of a "
            "cell and over the cells; t interval of the logarithm, its variance from the jackknife over the runs and, "
            "of churn, from the test images. Ratios near 1: the source alone makes as much as everything together. "
            "95 % intervals, over runs and images and within the seeds at hand: of other seeds they say nothing, least "
            "of all with one seed, and they are not widened for the number of ratios. (The interval of the table "
            '"Churn of identical runs" takes off what images and runs make together, and is somewhat narrower.) '
            f"nd: {nd_noise(study)}."
        ),
        frame=pd.DataFrame(rows, columns=_COLUMNS),
        notes=() if arms else (NOT_AVAILABLE,),
    )


def _rows(study: Study, task: str, optimizer: str, arms: list[str]) -> list[dict[str, Any]]:
    cells = [cell for cell in study.cells(task) if cell.optimizer == optimizer]
    metric = study.main_metric(task)
    measured: dict[str, dict[str, PooledSd | PairMean]] = {
        f"{SD} of {METRIC_LABELS[metric]}": {arm: sd_of(study, cells, arm, metric) for arm in arms},
        CHURN: {arm: churn_of(study, cells, arm) for arm in arms},
        DISTANCE: {arm: distance_of(study, cells, arm) for arm in arms},
    }
    rows = []
    for quantity, found in measured.items():
        for arm, one in found.items():
            runs = [len(study.runs(cell, arm)) for cell in cells]
            value = one.estimate()
            ratios = {name: _ratio(one, found.get(name)) for name in ("all", "nd")}
            rows.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "quantity": quantity,
                    "source": arm,
                    "cells": sum(count > 1 for count in runs),
                    "runs": sum(runs),
                    **_columns("value", value),
                    **{key: part for name in ratios for key, part in _columns(f"over_{name}", ratios[name]).items()},
                    "remark": _remark(value, ratios, found),
                }
            )
    return rows


def _ratio(one: PooledSd | PairMean, other: PooledSd | PairMean | None) -> Estimate:
    if one is other:
        return Estimate(1.0, 1.0, 1.0) if one.estimate().value > 0 else Estimate(math.nan)
    if isinstance(one, PooledSd) and isinstance(other, PooledSd):
        return one.ratio(other)
    if isinstance(one, PairMean) and isinstance(other, PairMean):
        return one.ratio(other)
    return Estimate(math.nan)


def _columns(name: str, one: Estimate) -> dict[str, float]:
    return {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}


def _remark(value: Estimate, ratios: dict[str, Estimate], found: dict[str, Any]) -> str:
    reasons = [f"no {name} arm with two runs" for name in ratios if name not in found]
    if math.isnan(value.value):
        return remarks("no cell with two complete runs and recorded heads", *reasons)
    if value.value == 0:
        alike = "all runs are alike (of dropout: where the network has none): no interval and no ratio"
        return remarks(alike, *reasons)
    few = "fewer than three runs in a cell, or no variation between them: no interval"
    reasons += [few] if math.isnan(value.low) else []
    for name, ratio in ratios.items():
        if name in found and math.isnan(ratio.value):
            reasons.append(f"no ratio: the {name} runs are alike or incomplete")
        elif name in found and math.isnan(ratio.low):
            reasons.append(few)
    return remarks(*reasons)


def literature_table() -> Table:
    """What others found about the sources of randomness, each with where it is published."""
    text = (
        resources.files("twinrun.report").joinpath("sections/literature_data/sources.csv").read_text(encoding="utf-8")
    )
    frame = pd.read_csv(StringIO(text)).drop(columns="quantity")
    frame.columns = pd.Index(["publication", "found", "found_low", "found_high", "reference"])
    frame["remark"] = frame["found_low"].isna().map({True: "said in words", False: ""})
    return Table(
        name="sources_literature",
        thesis_name="",
        title="What others found about the sources",
        caption=(
            "Published findings to hold beside the table by source. They are of other data, networks and hardware, and "
            "longer trainings: churn by a single source comes close to that by all only once training is long enough."
        ),
        frame=frame,
    )
