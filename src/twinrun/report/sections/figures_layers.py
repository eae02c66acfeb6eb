"""The figure of layers: how far twins drift apart in each third of the network, against two fresh seeds."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from twinrun.collect.study import Study
from twinrun.report import style as drawing
from twinrun.report.names import OPTIMIZER_LABELS, nd_phrase
from twinrun.report.style import Drawn
from twinrun.report.table import plural, span

_DEPTHS = {"early": drawing.BLUE, "middle": drawing.GREEN, "late": drawing.ORANGE, "head": drawing.BLACK}


def layers_figure(study: Study, depths: pd.DataFrame) -> Drawn:
    """Small multiples from the frame of `depths_table`: a row per task, a column per optimizer, one scale for all."""
    data = depths[depths["arm"] == "nd"]
    shown = [*data["layer_distance"].tolist(), *data["seeds_distance"].tolist()]
    # Twins begin far below seeds: on a linear scale they would lie on the axis.
    positive = [value for value in shown if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(positive) / 1.5, max(positive) * 1.5
    with drawing.style():
        figure, grid = drawing.new_figure(
            1.3 + 1.6 * len(study.tasks), len(study.tasks), len(study.optimizers), sharex="row", sharey=True
        )
        for task, row in zip(study.tasks, grid, strict=True):
            for optimizer, axes in zip(study.optimizers, row, strict=True):
                title = drawing.fitted(study.title(task), len(study.optimizers))
                axes.set_title(f"{title}\n{OPTIMIZER_LABELS[optimizer]}", loc="left", fontsize=8.5)
                mine = data[(data["task"] == task) & (data["optimizer"] == optimizer)]
                if mine[["layer_distance", "seeds_distance"]].notna().to_numpy().any():
                    axes.set_yscale("log", nonpositive="mask")
                    axes.set_ylim(low, high)  # before the lines: with zeros alone matplotlib would find no limits
                    _panel(axes, mine)
                else:
                    drawing.not_available(axes, "no layers of two runs")
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("relative distance of two runs", fontsize=9)
        lines = [
            Line2D([], [], color=colour, label=f"{depth} third" if depth != "head" else depth)
            for depth, colour in _DEPTHS.items()
        ]
        kinds = [
            Line2D([], [], color=drawing.GREY, label="twins (nd)"),
            Line2D([], [], color=drawing.GREY, linestyle="--", linewidth=1.0, label="two fresh seeds"),
        ]
        figure.legend(handles=[*lines, *kinds], loc="outside upper center", ncols=3)
    return Drawn(
        name="layers",
        thesis_name="",
        title="How far the layers of twins drift apart",
        caption=(
            f"Relative distance |w1 - w2| / ((|w1| + |w2|)/2) between {nd_phrase(study)} of a cell at each checkpoint, "
            "mean over all pairs, cells and the weight matrices and kernels of each third of the network, and of the "
            f"head ({_pairs(data)}). Dashed: the same between runs of different seeds, which share nothing but data "
            "and settings. All panels have one logarithmic scale, which has no place for 0: at epoch 0, the "
            "initialization, twins are equal. Two random directions of equal length are sqrt(2) = 1.41 apart."
        ),
        alt=_alt(study, data),
        figure=figure,
    )


def _panel(axes: Axes, mine: pd.DataFrame) -> None:
    for depth, colour in _DEPTHS.items():
        line = mine[mine["depth"] == depth]
        axes.plot(line["epoch"], line["seeds_distance"], color=colour, linestyle="--", linewidth=1.0)
        axes.plot(line["epoch"], line["layer_distance"], color=colour, marker="o", markersize=2.5,
                  markevery=max(1, len(line) // 8))  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _pairs(data: pd.DataFrame) -> str:
    low, high = (int(data["pairs"].min()), int(data["pairs"].max())) if len(data) else (0, 0)
    return f"n = {plural(low, 'pair')}" if low == high else f"n = {low} to {high} pairs"


def _alt(study: Study, data: pd.DataFrame) -> str:
    if data.empty:
        return "Not available: no layers of two nd runs of a cell were recorded."
    last = data[data["epoch"] == data.groupby("task")["epoch"].transform("max")]
    parts = []
    for task in study.tasks:
        mine = last[last["task"] == task]
        if mine["layer_distance"].notna().any():
            text = f"{study.title(task)} {span(mine['layer_distance'], '.2g')}"
            if mine["seeds_distance"].notna().any():
                text += f" (seeds {span(mine['seeds_distance'], '.2g')})"
            parts.append(text)
    return "Small multiples, distance of twins at the last checkpoint by depth: " + "; ".join(parts) + "."
