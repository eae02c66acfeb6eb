"""Figures 5.1-5.6: spread and difference of twins at the end of training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from twinrun.collect.study import Study
from twinrun.report import style as drawing
from twinrun.report.names import (
    METRIC_LABELS,
    OPTIMIZER_LABELS,
    difference_figure_name,
    nd_phrase,
    sd_figure_name,
)
from twinrun.report.style import Drawn
from twinrun.report.table import span

# An SD of three values is known to a factor of 6: whole whiskers would flatten the bars.
WHISKER_LIMIT = 3.0


def counts(values: pd.Series) -> str:
    """`n = 3`, or `n = 2 to 3` where cells differ."""
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def by_seed(frame: pd.DataFrame, seeds: list[int], column: str) -> list[float]:
    """A column's values in the order of `seeds`, NaN where there is none."""
    indexed = frame.set_index("seed")[column]
    return [float(indexed.get(seed, math.nan)) for seed in seeds]


def sd_figure(study: Study, task: str, spread: pd.DataFrame) -> Drawn:
    """Figure 5.1, 5.2 or 5.3 from the frame of `spread_table`: bars per seed and optimizer, one panel per metric."""
    data = spread[(spread["task"] == task) & (spread["arm"] == "nd")]
    pair = study.metric_pair(task)
    figure = _metric_panels(
        study,
        task,
        ("spread of identical runs", "SD of the nd runs (points)"),
        lambda axes, metric: _sd_panel(axes, data[data["metric"] == metric], study),
    )
    alt = "; ".join(
        f"SD of {METRIC_LABELS[metric]} {span(data.loc[data['metric'] == metric, 'sd_sample'], '.2f', 100)} points"
        for metric in pair
    )
    return Drawn(
        name=f"sd_{task}",
        thesis_name=sd_figure_name(study, task),
        title=f"{study.title(task)}: spread of identical runs",
        caption=(
            f"How far runs with the same seed and settings scatter. Bars: sample SD s, with 1/(n-1), over the "
            f"{nd_phrase(study)} of each seed and optimizer ({counts(data['n'])} per bar), in points (0.01 of a metric "
            "in [0, 1]). Black ticks: the thesis's SD with 1/n (eq. 5.1). Whiskers: 95 % chi-square interval of the "
            "SD, s sqrt((n-1)/q), for normal values; a triangle marks one that leaves the frame. Where "
            "whiskers overlap widely, unequal bars prove nothing. No bar: no two complete runs."
        ),
        alt=f"Bar chart per seed and optimizer; {alt}.",
        figure=figure,
    )


def _metric_panels(
    study: Study, task: str, words: tuple[str, str], draw: Callable[[Axes, str], None], *, sharey: bool = False
) -> Figure:
    """A panel for each of the task's two metrics, over the seeds; `words` are what it shows and the vertical label."""
    with drawing.style():
        figure, grid = drawing.new_figure(4.6, 2, 1, sharex=True, sharey=sharey)
        for metric, (axes,) in zip(study.metric_pair(task), grid, strict=True):
            draw(axes, metric)
            axes.set_title(METRIC_LABELS[metric], loc="left")
        grid[-1][0].set_xlabel("seed")
        figure.supylabel(words[1], fontsize=9)
        figure.suptitle(drawing.fitted(f"{study.title(task)}: {words[0]}"), fontsize=10)
        optimizer_legend(grid[0][0], study)
    return figure


def _sd_panel(axes: Axes, data: pd.DataFrame, study: Study) -> None:
    if data["sd_sample"].notna().sum() == 0:
        drawing.not_available(axes, "no cell with two complete nd runs")
        return
    limit = 100 * WHISKER_LIMIT * drawing.finite_max(data["sd_sample"].tolist()) or 1.0
    places, width = drawing.grouped_positions(len(study.seeds), len(study.optimizers))
    for optimizer, centres in zip(study.optimizers, places, strict=True):
        mine = data[data["optimizer"] == optimizer]
        look = drawing.OPTIMIZER_STYLES[optimizer]
        columns = ("sd_sample", "sd_population", "sd_low", "sd_high")
        values, thesis, low, high = ([100 * v for v in by_seed(mine, study.seeds, name)] for name in columns)
        axes.bar(centres, values, 0.92 * width, color=look["color"], hatch=look["hatch"])
        axes.hlines(thesis, [c - 0.3 * width for c in centres], [c + 0.3 * width for c in centres], color="black")
        axes.vlines(centres, low, [min(v, limit) for v in high], color="#333333", linewidth=1)
        outside = [centre for centre, value in zip(centres, high, strict=True) if value > limit]
        if outside:  # an empty unclipped line would upset the layout
            axes.plot(outside, [limit] * len(outside), "^", color="#333333", markersize=4, clip_on=False)
        # A bar of height 0 cannot be seen: it is written.
        for centre, value in zip(centres, values, strict=True):
            if value == 0:
                axes.text(centre, 0.02 * limit, "0", ha="center", va="bottom", fontsize=8)
    axes.set_ylim(0, limit * 1.02)
    drawing.seed_ticks(axes, study.seeds)


def optimizer_legend(axes: Axes, study: Study) -> None:
    """The optimizers above the frame, at the right."""
    handles: list[Any] = []
    for optimizer in study.optimizers:
        look = drawing.OPTIMIZER_STYLES[optimizer]
        handles.append(Patch(facecolor=look["color"], hatch=look["hatch"] * 2, label=OPTIMIZER_LABELS[optimizer]))
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(handles), borderaxespad=0.2)


def difference_figure(study: Study, task: str, table: pd.DataFrame) -> Drawn:
    """Figure 5.4, 5.5 or 5.6 from the frame of `performance_table`: deterministic against free, in percent."""
    pair = study.metric_pair(task)
    data = table[table["metric"].isin(pair)]

    def draw(axes: Axes, metric: str) -> None:
        mine = data[data["metric"] == metric]
        if mine["difference_percent"].notna().any():
            difference_panel(axes, mine, study, ("difference_percent", "mean_nd", "sd_nd"), 1.0)
        else:
            drawing.not_available(axes, "no cell with det and nd runs")

    words = ("deterministic against free", "100 (det - nd) / nd  (%)")
    figure = _metric_panels(study, task, words, draw, sharey=True)
    alt = "; ".join(
        f"{METRIC_LABELS[metric]} {span(data.loc[data['metric'] == metric, 'difference_percent'], '+.2f')} percent"
        for metric in pair
    )
    return Drawn(
        name=f"difference_{task}",
        thesis_name=difference_figure_name(study, task),
        title=f"{study.title(task)}: deterministic against free runs",
        caption=(
            "Difference of the deterministic run (det) from the mean of the "
            f"{nd_phrase(study)} with the same seed and optimizer, 100 (det - nd) / nd; nd {counts(data['n_nd'])}, "
            f"det {counts(data['n_det'])}. Grey whiskers around 0: one sample SD of the nd runs, in percent of their "
            "mean. A single deterministic run is itself one draw: bars of about the whiskers' length are what chance "
            "gives. No bar: one side is missing."
        ),
        alt=f"Bar chart per seed and optimizer of the difference in percent; {alt}.",
        figure=figure,
    )


def difference_panel(axes: Axes, data: pd.DataFrame, study: Study, columns: tuple[str, str, str], alpha: float) -> None:
    """Bars of a difference in percent around 0; `columns` name it, the nd runs' mean and their SD."""
    places, width = drawing.grouped_positions(len(study.seeds), len(study.optimizers))
    for optimizer, centres in zip(study.optimizers, places, strict=True):
        mine = data[data["optimizer"] == optimizer]
        look = drawing.OPTIMIZER_STYLES[optimizer]
        values, mean, sd = (by_seed(mine, study.seeds, name) for name in columns)
        noise = [100 * s / m if m else math.nan for s, m in zip(sd, mean, strict=True)]
        axes.bar(centres, values, 0.92 * width, color=look["color"], hatch=look["hatch"], alpha=alpha)
        axes.errorbar(centres, [0.0] * len(centres), yerr=noise, fmt="none", ecolor="#666666", capsize=3, elinewidth=1)
    axes.axhline(0, color="black", linewidth=0.8)
    drawing.seed_ticks(axes, study.seeds)
