"""Figures 5.10-5.12: how the head weights of twins part during training, as small multiples."""

from __future__ import annotations

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from twinrun.collect.study import Study
from twinrun.report import style as drawing
from twinrun.report.names import COSINE_FIGURE, OPTIMIZER_LABELS, nd_phrase
from twinrun.report.sections.figures import counts
from twinrun.report.style import Drawn
from twinrun.report.table import plural, span


def head_sd_figure(study: Study, weights: pd.DataFrame) -> Drawn:
    """Figure 5.10 from the frame of `weights_table`: a row per task, a column per optimizer, a line per seed."""
    data = weights[weights["arm"] == "nd"]
    tasks, optimizers = study.tasks, study.optimizers
    with drawing.style():
        figure, grid = drawing.new_figure(0.9 + 1.6 * len(tasks), len(tasks), len(optimizers), sharey="row")
        for task, row in zip(tasks, grid, strict=True):
            top = 1.08 * drawing.finite_max(data.loc[data["task"] == task, "head_sd"].tolist()) or 1.0
            for optimizer, axes in zip(optimizers, row, strict=True):
                mine = data[(data["task"] == task) & (data["optimizer"] == optimizer) & data["head_sd"].notna()]
                axes.set_title(
                    f"{drawing.fitted(study.title(task), len(study.optimizers))}\n{OPTIMIZER_LABELS[optimizer]}",
                    loc="left",
                    fontsize=8.5,
                )
                if mine.empty:
                    drawing.not_available(axes, "no two complete nd runs")
                    continue
                for index, seed in enumerate(study.seeds):
                    colour, marker = drawing.SERIES[index % len(drawing.SERIES)]
                    line = mine[mine["seed"] == seed]
                    axes.plot(
                        line["epoch"],
                        line["head_sd"],
                        color=colour,
                        marker=marker,
                        markersize=3,
                        markevery=_every(line),
                    )
                axes.set_ylim(0, top)
                axes.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
                axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("mean SD of a head weight", fontsize=9)
        figure.legend(handles=_seed_legend(study.seeds), loc="outside upper center", ncols=min(3, len(study.seeds)))
    return Drawn(
        name="head_sd",
        thesis_name="Figure 5.10",
        title="Spread of the head weights over training",
        caption=(
            "SD of every weight and bias of the last layer over the "
            f"{nd_phrase(study)} of a cell ({counts(data['n'])}), with 1/n as in the thesis, averaged over the "
            "components, at each checkpoint; one line per seed. Epoch 0 is the initialization, which identical runs "
            "share. The panels of a task have one scale. A missing line: fewer than two complete runs."
        ),
        alt=(
            f"Small multiples, {plural(len(tasks), 'task')} by {plural(len(optimizers), 'optimizer')}: "
            f"mean head SD per checkpoint {span(data['head_sd'], '.1e')}."
        ),
        figure=figure,
    )


def _every(line: pd.DataFrame) -> int:
    """A marker at about eight checkpoints: more would hide the line."""
    return max(1, len(line) // 8)


def _seed_legend(seeds: list[int]) -> list[Line2D]:
    looks = [drawing.SERIES[index % len(drawing.SERIES)] for index in range(len(seeds))]
    return [
        Line2D([], [], color=colour, marker=marker, markersize=4, label=f"seed {seed}")
        for seed, (colour, marker) in zip(seeds, looks, strict=True)
    ]


def cosine_figure(study: Study, optimizer: str, weights: pd.DataFrame) -> Drawn:
    """Figure 5.11 (Adam) or 5.12 (SGD): a row per seed, a column per task, mean line in a min-max band."""
    data = weights[(weights["arm"] == "nd") & (weights["optimizer"] == optimizer)]
    tasks, seeds = study.tasks, study.seeds
    colour = drawing.OPTIMIZER_STYLES[optimizer]["color"]
    with drawing.style():
        figure, grid = drawing.new_figure(1.0 + 1.15 * len(seeds), len(seeds), len(tasks), sharex="col", sharey="col")
        for seed, row in zip(seeds, grid, strict=True):
            for task, axes in zip(tasks, row, strict=True):
                mine = data[(data["task"] == task) & (data["seed"] == seed) & data["cosine_mean"].notna()]
                if seed == seeds[0]:
                    axes.set_title(drawing.fitted(study.title(task), len(tasks)), fontsize=8.5)
                if task == tasks[0]:
                    axes.set_ylabel(f"seed {seed}")
                axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
                axes.yaxis.set_major_locator(MaxNLocator(4))
                axes.ticklabel_format(axis="y", useOffset=False)
                if mine.empty:
                    drawing.not_available(axes, "fewer than\ntwo runs")
                    continue
                axes.fill_between(mine["epoch"], mine["cosine_min"], mine["cosine_max"], color=colour, alpha=0.25, lw=0)
                axes.plot(mine["epoch"], mine["cosine_min"], color=colour, linewidth=0.7, linestyle=":")
                axes.plot(
                    mine["epoch"], mine["cosine_mean"], color=colour, marker="o", markersize=2.5, markevery=_every(mine)
                )
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("cosine similarity", fontsize=9)
    name = OPTIMIZER_LABELS[optimizer]
    return Drawn(
        name=f"cosine_{optimizer}",
        thesis_name=COSINE_FIGURE[optimizer],
        title=f"Similarity of the head weights, {name}",
        caption=(
            f"Cosine similarity w1 . w2 / (|w1| |w2|) of the last layer's weights and biases between all n(n-1)/2 "
            f"pairs of {nd_phrase(study)} of a cell ({counts(data['n'])}), trained with {name}, at each checkpoint. "
            "Line: mean; band: smallest to largest (dotted: smallest). 1 means the same direction. A column (task) has "
            "one scale, which does not begin at 0. Rows are seeds; epoch 0 is the shared initialization."
        ),
        alt=(
            f"Small multiples, {plural(len(seeds), 'seed')} by {plural(len(tasks), 'task')}: smallest cosine "
            f"similarity over pairs, by checkpoint, {span(data['cosine_min'], '.4f')}."
        ),
        figure=figure,
    )
