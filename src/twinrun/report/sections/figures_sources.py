"""The figure by source of randomness: SD, churn and head distance of each arm with their intervals."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.lines import Line2D

from twinrun.collect.study import Study
from twinrun.report import style as drawing
from twinrun.report.names import OPTIMIZER_LABELS, nd_noise
from twinrun.report.sections.tables_sources import CHURN, DISTANCE, SD
from twinrun.report.style import Drawn
from twinrun.report.table import plural, span


def sources_figure(study: Study, table: pd.DataFrame) -> Drawn | None:
    """A row per quantity, a column per task, a mark per source and optimizer; None where the table has no rows."""
    if table.empty:
        return None
    arms = list(dict.fromkeys(table["source"]))
    with drawing.style():
        figure, grid = drawing.new_figure(6.2, 3, len(study.tasks), sharex=True)
        for row, quantity in zip(grid, (SD, CHURN, DISTANCE), strict=True):
            for task, axes in zip(study.tasks, row, strict=True):
                mine = table[(table["task"] == task) & table["quantity"].str.startswith(quantity)]
                if quantity == SD:
                    title = drawing.fitted(study.title(task), len(study.tasks))
                    axes.set_title(title, loc="left", fontsize=8)
                if task == study.tasks[0]:
                    axes.set_ylabel("SD of the metric" if quantity == SD else quantity)
                for index, optimizer in enumerate(study.optimizers):
                    look = drawing.OPTIMIZER_STYLES[optimizer]
                    shift = 0.12 * (2 * index - len(study.optimizers) + 1)
                    for _, one in mine[mine["optimizer"] == optimizer].iterrows():
                        place = arms.index(one["source"]) + shift
                        if not math.isnan(one["value_low"]):
                            axes.vlines(place, one["value_low"], one["value_high"], color=look["color"], linewidth=1)
                        axes.plot(place, one["value"], color=look["color"], marker=look["marker"], markersize=3.5)
                axes.set_ylim(bottom=0)
                axes.set_xticks(range(len(arms)), arms, rotation=90)
        figure.legend(handles=_legend(study), loc="outside upper center", ncols=len(study.optimizers))
    ratio = table[(table["quantity"] == CHURN) & (table["source"] != "all")]["over_all"].dropna()
    said = f" Churn of a single source is {span(ratio, '.2f')} of that of all." if len(ratio) else ""
    return Drawn(
        name="sources",
        thesis_name="",
        title="Spread, churn and distance by source of randomness",
        caption=(
            "In each arm one source alone is free; in all everything is. Top: SD of the task's main metric within "
            "cells; middle: churn; bottom: relative distance of the heads after the last epoch. Lines are 95 % "
            f"intervals over runs. nd: {nd_noise(study)}."
        ),
        alt=(
            f"Small multiples, 3 quantities by {plural(len(study.tasks), 'task')}, a mark per source: "
            f"{', '.join(arms)}.{said}"
        ),
        figure=figure,
    )


def _legend(study: Study) -> list[Line2D]:
    return [
        Line2D([], [], linestyle="", color=look["color"], marker=look["marker"], label=OPTIMIZER_LABELS[optimizer])
        for optimizer, look in ((one, drawing.OPTIMIZER_STYLES[one]) for one in study.optimizers)
    ]
