"""How much each source of randomness does when it alone is free: SD, churn and distance of heads, with ratios.

All intervals are over runs: of an SD by chi-square, of a ratio of SDs by F; of means over pairs by the jackknife.
"""

from __future__ import annotations

import math
from importlib import resources
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from twinrun.collect.study import Group, Setting, Study, remarks
from twinrun.report import style as drawing
from twinrun.report.names import METRIC_LABELS, OPTIMIZER_LABELS, free_note
from twinrun.report.section import Draft, Section, chosen, with_interval
from twinrun.report.style import Drawn
from twinrun.report.table import CELLS, REMARK, RUNS, SETTING, Column, Table, ends, span
from twinrun.stats.churn import predicted_classes
from twinrun.stats.intervals import PooledSd
from twinrun.stats.pairs import PairMean, churn_of_cells, distance_of_cells
from twinrun.stats.samples import UNDEFINED, Interval
from twinrun.study.errors import plural

SINGLE = ("init", "shuffle", "augment", "dropout", "ulp")  # arms in which one thing is free
SD, CHURN, DISTANCE = "SD", "churn", "head distance"
NEEDS = (
    "runs in which one source alone is free, two or more of each (`init_1`, `init_2`, `shuffle_1`, ...): "
    "`studies/sources.yaml` has them"
)
COLUMNS = (
    *SETTING,
    Column("quantity", "Quantity", "", "SD of the main metric, churn, or distance of the heads at the last checkpoint"),
    Column("source", "Source", "", "the arm: what alone is free"),
    CELLS,
    RUNS,
    Column("value", "Value", ".4f", "pooled over the cells (SD), or mean over pairs and cells"),
    *ends("value", "", ".4f", "its 95 % interval"),
    Column("over_all", "/ all", ".2f", "divided by that of the arm all", neutral=1),
    *ends("over_all", "", ".2f", "the 95 % interval of that ratio", neutral=1),
    Column("over_nd", "/ nd", ".2f", "divided by that of the arm nd", neutral=1),
    *ends("over_nd", "", ".2f", "the 95 % interval of that ratio", neutral=1),
    REMARK,
)
LITERATURE_COLUMNS = (
    Column("publication", "Study", "", "who found it"),
    Column("found", "Finding", "", "in words"),
    Column("found_low", "From", ".4g", "smallest published value"),
    Column("found_high", "To", ".4g", "largest published value"),
    Column("reference", "Source", "", "where it is published"),
    REMARK,
)
REFERENCES = ("all", "nd")  # arms that every other is divided by


def tables(draft: Draft) -> list[Table]:
    """This study's table by source, and what others have published."""
    study = draft.study
    arms = source_arms(study)
    sources = Table(
        name="sources",
        title="What each source of randomness does alone",
        caption=(
            "In each arm one source is free and everything else is fixed; in all everything is free. SD: of the task's "
            "main metric within cells, pooled over the cells, with the chi-square interval; ratio with the F interval. "
            "Churn, and the relative distance of the heads at the last checkpoint: mean over the pairs of runs of a "
            "cell and over the cells; t interval of the logarithm, its variance from the jackknife over the runs (from "
            "the cells, where one has two runs) and, of churn, from the test images. Ratios near 1: the source alone "
            "makes as much as everything together. "
            "95 % intervals, over runs and images and within the seeds at hand: of other seeds they say nothing, least "
            "of all with one seed, and they are not widened for the number of ratios. (The interval of the table "
            '"Churn of identical runs" takes off what images and runs make together, and is somewhat narrower.) '
            f"{free_note(study)}"
        ),
        columns=COLUMNS,
        rows=[row for setting in study.settings() if arms for row in _rows(setting, arms)],
        main=True,
    )
    return [sources, *([_literature_table()] if arms else [])]


def source_arms(study: Study) -> list[str]:
    """The arms that can be compared, single sources first; empty where the study has no single source."""
    counts = study.results.groupby("arm")["label"].nunique()
    several = [arm for arm in (*SINGLE, "nd", "all") if counts.get(arm, 0) > 1]
    return several if any(arm in SINGLE for arm in several) else []


def _rows(setting: Setting, arms: list[str]) -> list[dict[str, Any]]:
    groups = {arm: setting.groups(arm) for arm in arms}
    measured: dict[str, dict[str, Any]] = {
        f"{SD} of {METRIC_LABELS[setting.metric]}": {
            arm: PooledSd.of(setting.samples(arm, setting.metric)) for arm in arms
        },
    }
    if setting.study.records("predictions"):
        measured[CHURN] = {arm: churn_of(groups[arm]) for arm in arms}
    if setting.study.records("weights"):
        measured[DISTANCE] = {arm: distance_of(groups[arm]) for arm in arms}
    return [
        {
            **setting.identity,
            "quantity": quantity,
            "source": arm,
            "cells": sum(group.n > 1 for group in groups[arm]),
            "runs": sum(group.n for group in groups[arm]),
            **_compared(arm, by_arm),
        }
        for quantity, by_arm in measured.items()
        for arm in arms
    ]


def churn_of(groups: list[Group]) -> PairMean:
    """Churn over the complete runs of some groups of one task."""
    study, task = groups[0].study, groups[0].cell.task
    predicted = [[predicted_classes(run) for run in study.stream(task, group.rows)] for group in groups]
    return churn_of_cells(predicted, len(study.labels(task)), len(study.classes(task)))


def distance_of(groups: list[Group]) -> PairMean:
    """Relative distance of the heads at the last checkpoint over the complete runs of some groups of one task."""
    heads = groups[0].study.heads(groups[0].cell.task)
    return distance_of_cells([np.array(heads[group.rows, -1]) for group in groups] if heads.shape[1] else [])


def _compared(arm: str, by_arm: dict[str, Any]) -> dict[str, Any]:
    """Value, ratios, intervals and remark of an arm; all arms have a `PooledSd`, or all a `PairMean`."""
    value: Interval = by_arm[arm].interval()
    ratios = {name: _ratio(arm, name, by_arm) for name in REFERENCES}
    return {
        **with_interval("value", value),
        **{key: end for name, ratio in ratios.items() for key, end in with_interval(f"over_{name}", ratio).items()},
        "remark": _remark(value, ratios, by_arm),
    }


def _ratio(arm: str, reference: str, by_arm: dict[str, Any]) -> Interval:
    undefined = Interval(None, None, None, 0, "", f"{UNDEFINED}no {reference} arm")
    if reference not in by_arm:
        return undefined
    if arm == reference:
        return Interval(1.0, 1.0, 1.0, 0, "") if (by_arm[arm].interval().value or 0) > 0 else undefined
    ratio: Interval = by_arm[arm].ratio(by_arm[reference])
    return ratio


def _remark(value: Interval, ratios: dict[str, Interval], by_arm: dict[str, Any]) -> str:
    reasons = [f"no {name} arm with two runs" for name in ratios if name not in by_arm]
    if value.value is None:
        return remarks("no cell with two complete runs and recorded heads", *reasons)
    if value.value == 0:
        alike = "all runs are alike (of dropout: where the network has none): no interval and no ratio"
        return remarks(alike, *reasons)
    few = "fewer than three runs in a cell and fewer than three cells, or no variation between them: no interval"
    reasons += [few] if value.low is None else []
    for name, ratio in ratios.items():
        if name in by_arm and ratio.value is None:
            reasons.append(f"no ratio: the {name} runs are alike or incomplete")
        elif name in by_arm and ratio.low is None:
            reasons.append(few)
    return remarks(*reasons)


def _literature_table() -> Table:
    """What others found about the sources of randomness, each with where it is published."""
    path = resources.files("twinrun.report").joinpath("sections/literature_data/sources.csv")
    frame = pd.read_csv(StringIO(path.read_text(encoding="utf-8"))).drop(columns="quantity")
    frame.columns = pd.Index([column.name for column in LITERATURE_COLUMNS[:-1]])
    frame["remark"] = frame["found_low"].isna().map({True: "said in words", False: ""})
    return Table(
        name="sources_literature",
        title="What others found about the sources",
        caption=(
            "Published findings to hold beside the table by source. They are of other data, networks and hardware, and "
            "longer trainings: churn by a single source comes close to that by all only once training is long enough."
        ),
        columns=LITERATURE_COLUMNS,
        rows=frame.to_dict("records"),  # type: ignore[arg-type]
    )


def figures(draft: Draft) -> list[Drawn]:
    """A row per quantity, a column per task, a mark per source and optimizer; none where the table has no rows."""
    study, table = draft.study, draft.frame("sources")
    if table.empty:
        return []
    arms = list(dict.fromkeys(table["source"]))
    with drawing.style():
        figure, grid = drawing.new_figure(6.2, 3, len(study.tasks), sharex=True, sharey="row")
        for quantity, row in zip((SD, CHURN, DISTANCE), grid, strict=True):
            rows = table[table["quantity"].str.startswith(quantity)]
            for task, axes in zip(study.tasks, row, strict=True):
                if quantity == SD:
                    title = drawing.fitted(drawing.title_of(study, task), len(study.tasks))
                    axes.set_title(title, loc="left", fontsize=8)
                if task == study.tasks[0]:
                    axes.set_ylabel("SD of the metric" if quantity == SD else quantity)
                for index, optimizer in enumerate(study.optimizers):
                    look = drawing.look(study, optimizer)
                    shift = 0.12 * (2 * index - len(study.optimizers) + 1)
                    for mark in chosen(rows, task=task, optimizer=optimizer).to_dict("records"):
                        place = arms.index(mark["source"]) + shift
                        if not math.isnan(mark["value_low"]):
                            axes.vlines(place, mark["value_low"], mark["value_high"], color=look["color"], linewidth=1)
                        axes.plot(place, mark["value"], color=look["color"], marker=look["marker"], markersize=3.5)
                axes.set_xticks(range(len(arms)), arms, rotation=90)
            row[0].set_ylim(bottom=0)  # when all is drawn: it fixes the top, too, which the row shares
        looks = [(OPTIMIZER_LABELS[name], drawing.look(study, name)) for name in study.optimizers]
        handles = [
            Line2D([], [], linestyle="", color=look["color"], marker=look["marker"], label=label)
            for label, look in looks
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(study.optimizers))
    ratio = chosen(table, quantity=CHURN)["over_all"].dropna()
    said = f" Churn of a single source is {span(ratio, '.2f')} of that of all." if len(ratio) else ""
    return [
        Drawn(
            name="sources",
            title="Spread, churn and distance by source of randomness",
            caption=(
                "In each arm one source alone is free; in all everything is. Top: SD of the task's main metric within "
                "cells; middle: churn; bottom: relative distance of the heads after the last epoch. Lines are 95 % "
                f"intervals over runs. {free_note(study)}"
            ),
            alt=(
                f"Small multiples, 3 quantities by {plural(len(study.tasks), 'task')}, a mark per source: "
                f"{', '.join(arms)}.{said}"
            ),
            figure=figure,
        )
    ]


SECTION = Section("sources", "Sources of randomness", filled_by=NEEDS, tables=tables, figures=figures)
