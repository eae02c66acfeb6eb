"""Figures 5.10-5.12 and their data: how the head weights of twins drift apart, beside runs of other seeds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, MaxNLocator

from twinrun.collect.study import Group, Setting, Study, remarks
from twinrun.report import style as drawing
from twinrun.report.names import COSINE_FIGURE, OPTIMIZER_LABELS, TWO_FREE, free_note, left_out, nd_phrase
from twinrun.report.section import Draft, Section, chosen
from twinrun.report.style import Drawn, every
from twinrun.report.table import (
    CELLS,
    COMPARISON,
    EPOCH,
    GROUP,
    REMARK,
    SETTING,
    TWO_DIGITS,
    Column,
    N,
    Table,
    counts,
    span,
)
from twinrun.stats import describe, weights
from twinrun.study.errors import plural

PAIR_RUNS = 64  # of more runs, pairs are taken among so many, drawn at random
COSINE = Column("cosine_mean", "Cosine mean", ".6f", "mean cosine similarity of the heads, all pairs of runs")
DISTANCE = Column("distance", "Distance", ".4f", "|w1 - w2| relative to the mean length of the heads, mean over pairs")
DISPLACEMENT = Column(
    "displacement_cosine", "Cosine of ways", ".4f", "cosine of the displacements from the initialization"
)
CELL_COLUMNS = (
    *GROUP,
    EPOCH,
    N,
    Column("head_sd", "Head SD", TWO_DIGITS, "SD of each head weight over the runs (1/n), mean over the weights"),
    COSINE,
    Column("cosine_min", "Cosine min", ".6f", "smallest"),
    Column("cosine_max", "Cosine max", ".6f", "largest"),
    DISTANCE,
    DISPLACEMENT,
    REMARK,
)
SEED_COLUMNS = (*SETTING, COMPARISON, EPOCH, CELLS, COSINE, DISTANCE, DISPLACEMENT, REMARK)
_SHARED = (COSINE.name, DISTANCE.name, DISPLACEMENT.name)


def tables(draft: Draft) -> list[Table]:
    """Heads of twins beside those of other seeds, then head SD, cosine and distance at every checkpoint."""
    study = draft.study
    measured = [(group, _compared(study, group.cell.task, group.rows, group.cell, group.arm))
                for group in study.groups(*study.paired_arms)]  # fmt: skip
    seeds = Table(
        name="weights_seeds",
        title="Heads of twins beside heads of other seeds",
        caption=(
            "At the last checkpoint: cosine similarity, relative distance and cosine of the ways from the "
            "initialization, mean over pairs and cells. `same seed`: pairs within cells; `other seeds`: one run of "
            "each seed, all pairs of seeds, the control that shows how far heads lie apart that share nothing but data "
            "and settings."
        ),
        columns=SEED_COLUMNS,
        rows=[row for setting in study.settings() for row in _seed_rows(setting, measured)],
    )
    cells = Table(
        name="weights",
        title="Head weights of identical runs",
        caption=(
            "The last layer (weight and bias) at each checkpoint, over the n complete runs of a cell and arm: SD of "
            "each component with 1/n, averaged over the components; and over all n(n-1)/2 pairs (of more than "
            f"{PAIR_RUNS} runs, those among {PAIR_RUNS} drawn at random) cosine similarity, relative distance "
            "|w1 - w2| / ((|w1| + |w2|)/2), and cosine of the ways from the initialization. Epoch 0 is the "
            f"initialization. {free_note(study)}"
        ),
        columns=CELL_COLUMNS,
        rows=[
            {**group.identity, **row, "remark": remarks(group.why(2), row["remark"])}
            for group, rows in measured
            for row in rows
        ],
        thesis_name="data of Figures 5.10-5.12",
        notes=(
            *left_out(study),
            *(f"{study.title(task)}: no run was completed." for task in study.tasks if not study.head_epochs(task)),
        ),
    )
    return [seeds, cells]


def _compared(study: Study, task: str, rows: list[int], *keys: object) -> list[dict[str, Any]]:
    """Every checkpoint of some runs of a task: what is measured of their heads."""
    # Mapped anew for each group, and read a checkpoint at a time: memory does not grow with the study.
    heads, measured = study.heads(task), []
    few = list(range(len(rows)))
    if len(rows) > PAIR_RUNS:
        few = sorted(study.rng("heads", *keys).choice(len(rows), PAIR_RUNS, replace=False).tolist())
    epochs = study.head_epochs(task)
    start = np.array(heads[rows, 0])[few] if epochs and epochs[0] == 0 else None
    for index, epoch in enumerate(epochs):
        vectors = np.array(heads[rows, index])
        pairs = vectors[few]
        cosine = weights.pairwise_cosine(pairs)
        moved = None if start is None else weights.displacement_cosine(pairs, start)
        no_way = "no initialization recorded" if moved is None else moved.reason
        measured.append(
            {
                "epoch": epoch,
                "n": len(rows),
                "head_sd": weights.mean_component_sd(vectors).value if len(rows) > 1 else None,
                "cosine_mean": cosine.mean,
                "cosine_min": cosine.minimum,
                "cosine_max": cosine.maximum,
                "distance": weights.mean_relative_distance(pairs).value,
                "displacement_cosine": None if moved is None else moved.mean,
                "remark": "" if len(rows) < 2 else remarks(cosine.reason, no_way),
            }
        )
    return measured


def _seed_rows(setting: Setting, measured: list[tuple[Group, list[dict[str, Any]]]]) -> Iterator[dict[str, Any]]:
    """The last checkpoint of each arm, mean over the cells, and of one run of each seed."""
    label, rows = setting.one_run_a_seed
    control = _compared(setting.study, setting.task, rows, "seeds", setting.optimizer)
    if not control:
        return
    last = control[-1]
    for arm in setting.study.paired_arms:
        ends = [
            checkpoints[-1]
            for group, checkpoints in measured
            if (group.cell.task, group.cell.optimizer, group.arm) == (setting.task, setting.optimizer, arm)
            and checkpoints[-1]["cosine_mean"] is not None
        ]
        means = pd.DataFrame(ends, columns=list(_SHARED)).astype(float)
        yield {
            **setting.identity,
            "comparison": f"{arm}, same seed",
            "epoch": last["epoch"],
            "cells": len(ends),
            **{name: describe.mean(means[name].dropna()) for name in _SHARED},
            "remark": "" if ends else "no cell with two complete runs",
        }
    yield {
        **setting.identity,
        "comparison": f"{label}, other seeds" if label else "other seeds",
        "epoch": last["epoch"],
        "cells": len(rows),
        **{name: last[name] for name in _SHARED},
        "remark": remarks("fewer than two seeds" if len(rows) < 2 else "", last["remark"]),
    }


def figures(draft: Draft) -> list[Drawn]:
    """Figure 5.10, then 5.11 and 5.12."""
    study = draft.study
    nd = chosen(draft.frame("weights"), arm=study.free_arm)
    if not nd["cosine_mean"].notna().any():
        return []
    return [
        _head_sd_figure(study, nd),
        *(_cosine_figure(study, name, chosen(nd, optimizer=name)) for name in study.optimizers),
    ]


def _head_sd_figure(study: Study, data: pd.DataFrame) -> Drawn:
    """A row per task, a column per optimizer, a line per seed."""
    tasks, optimizers, seeds = study.tasks, study.optimizers, study.seeds
    looks = [drawing.SERIES[index % len(drawing.SERIES)] for index in range(len(seeds))]
    with drawing.style():
        figure, grid = drawing.new_figure(0.9 + 1.6 * len(tasks), len(tasks), len(optimizers), sharey=True)
        top = 1.08 * drawing.finite_max(data["head_sd"].tolist()) or 1.0
        for task, row in zip(tasks, grid, strict=True):
            for optimizer, axes in zip(optimizers, row, strict=True):
                lines = chosen(data, task=task, optimizer=optimizer)
                lines = lines[lines["head_sd"].notna()]
                title = drawing.fitted(drawing.title_of(study, task), len(optimizers))
                axes.set_title(f"{title}\n{OPTIMIZER_LABELS[optimizer]}", loc="left", fontsize=8.5)
                if lines.empty:
                    drawing.not_available(axes, "no two complete runs")
                    continue
                for seed, (colour, marker) in zip(seeds, looks, strict=True):
                    line = chosen(lines, seed=seed)
                    axes.plot(
                        line["epoch"],
                        line["head_sd"],
                        color=colour,
                        marker=marker,
                        markersize=3,
                        markevery=every(line),
                    )
                axes.set_ylim(0, top)
                axes.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
                axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("mean SD of a head weight", fontsize=9)
        handles = [
            Line2D([], [], color=colour, marker=marker, markersize=4, label=f"seed {seed}")
            for seed, (colour, marker) in zip(seeds, looks, strict=True)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=min(3, len(seeds)))
    return Drawn(
        name="head_sd",
        title="Spread of the head weights over training",
        caption=(
            "SD of every weight and bias of the last layer over the "
            f"{nd_phrase(study)} of a cell ({counts(data['n'])}), with 1/n as in the thesis, averaged over the "
            "components, at each checkpoint; one line per seed. Epoch 0 is the initialization, which identical runs "
            "share. All panels have one scale. A missing line: fewer than two complete runs."
        ),
        alt=(
            f"Small multiples, {plural(len(tasks), 'task')} by {plural(len(optimizers), 'optimizer')}: "
            f"mean head SD per checkpoint {span(data['head_sd'], '.1e')}."
        ),
        figure=figure,
        thesis_name="Figure 5.10",
    )


def _cosine_figure(study: Study, optimizer: str, data: pd.DataFrame) -> Drawn:
    """Figure 5.11 (Adam) or 5.12 (SGD): a row per seed, a column per task, mean line in a min-max band."""
    tasks, seeds, name = study.tasks, study.seeds, OPTIMIZER_LABELS[optimizer]
    colour = drawing.OPTIMIZER_STYLES[optimizer]["color"]
    with drawing.style():
        figure, grid = drawing.new_figure(1.0 + 1.15 * len(seeds), len(seeds), len(tasks), sharex="col", sharey=True)
        for seed, row in zip(seeds, grid, strict=True):
            for task, axes in zip(tasks, row, strict=True):
                line = chosen(data, task=task, seed=seed)
                line = line[line["cosine_mean"].notna()]
                if seed == seeds[0]:
                    axes.set_title(drawing.fitted(drawing.title_of(study, task), len(tasks)), fontsize=8.5)
                if task == tasks[0]:
                    axes.set_ylabel(f"seed {seed}")
                axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
                axes.yaxis.set_major_locator(MaxNLocator(4))
                axes.ticklabel_format(axis="y", useOffset=False)
                if line.empty:
                    drawing.not_available(axes, "fewer than\ntwo runs")
                    continue
                axes.fill_between(line["epoch"], line["cosine_min"], line["cosine_max"], color=colour, alpha=0.25, lw=0)
                axes.plot(line["epoch"], line["cosine_min"], color=colour, linewidth=0.7, linestyle=":")
                axes.plot(
                    line["epoch"], line["cosine_mean"], color=colour, marker="o", markersize=2.5, markevery=every(line)
                )
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("cosine similarity", fontsize=9)
    return Drawn(
        name=f"cosine_{optimizer}",
        title=f"Similarity of the head weights, {name}",
        caption=(
            f"Cosine similarity w1 . w2 / (|w1| |w2|) of the last layer's weights and biases between all n(n-1)/2 "
            f"pairs of {nd_phrase(study)} of a cell ({counts(data['n'])}), trained with {name}, at each checkpoint. "
            "Line: mean; band: smallest to largest (dotted: smallest). 1 means the same direction. All panels "
            "have one scale, which does not begin at 0. Rows are seeds; epoch 0 is the shared initialization."
        ),
        alt=(
            f"Small multiples, {plural(len(seeds), 'seed')} by {plural(len(tasks), 'task')}: smallest cosine "
            f"similarity over pairs, by checkpoint, {span(data['cosine_min'], '.4f')}."
        ),
        figure=figure,
        thesis_name=COSINE_FIGURE.get(optimizer, ""),
    )


def sentences(draft: Draft) -> list[str]:
    """How similar the heads of twins are at the last checkpoint."""
    study, lines = draft.study, []
    for task in study.tasks:
        table = chosen(draft.frame("weights"), task=task, arm=study.free_arm)
        table = table[table["cosine_mean"].notna()]
        if table.empty:
            lines.append(f"{study.title(task)}: not available, no cell has two complete {study.free_arm} runs.")
            continue
        last = table[table["epoch"] == table["epoch"].max()]
        lines.append(
            f"{study.title(task)}: after epoch {int(last['epoch'].iloc[0])} the heads of {study.free_arm} twins have a "
            f"mean cosine similarity of {last['cosine_mean'].mean():.4f}, at the least {last['cosine_min'].min():.4f} "
            f"({plural(len(last), 'cell')})."
        )
    return lines


SECTION = Section(
    "weights",
    "Head weights",
    tables=tables,
    figures=figures,
    sentences=sentences,
    needs="weights",
    filled_by=TWO_FREE,
)
