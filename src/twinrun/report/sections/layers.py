"""Every layer: how far twins drift apart, in percent of the distance of two fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from twinrun.collect.collect import LAYER_RUNS
from twinrun.collect.study import Setting, Study, remarks
from twinrun.report import style as drawing
from twinrun.report.names import OPTIMIZER_LABELS, TWO_FREE, free_note, left_out, nd_phrase
from twinrun.report.section import Draft, Section, chosen
from twinrun.report.style import Drawn, every
from twinrun.report.table import ARM, CELLS, EPOCH, PAIRS, REMARK, SETTING, TWO_DIGITS, Column, Table, span
from twinrun.stats.weights import PARTS, Measures, measures, sampling_error
from twinrun.study.errors import plural

HEAD = "head"
MEASURED = ("distance", "cosine", "displacement")
OWN = (
    Column("layer_distance", "Distance", ".4f", "|w1 - w2| / ((|w1| + |w2|) / 2), mean over pairs and cells"),
    Column("layer_cosine", "Cosine", ".6f", "cosine of the weights, mean over pairs and cells"),
    Column("layer_displacement", "Cosine of ways", ".4f", "cosine of the displacements from the initialization"),
)
ERRORS = {
    f"{column.name}_se": Column(
        f"{column.name}_se", "SE", TWO_DIGITS, f"standard error of `{column.label}` from sampling coordinates"
    )
    for column in OWN
}
SEEDS = (
    Column("seeds_distance", "Distance of seeds", ".4f", "the same between runs of other seeds"),
    Column("seeds_cosine", "Cosine of seeds", ".4f", "the same between runs of other seeds"),
    Column("seeds_displacement", "Cosine of ways of seeds", ".4f", "the same between runs of other seeds"),
)
COLUMNS = (
    *SETTING,
    ARM,
    Column("layer", "Layer", "", "parameter tensor, in the network's order; `head`: the last layer, weight and bias"),
    Column("parameters", "Parameters", "d", "numbers in the tensor"),
    Column("recorded", "Recorded", "d", "numbers that the runs recorded of it: all, or a sample"),
    EPOCH,
    CELLS,
    PAIRS,
    *(part for column in OWN for part in (column, ERRORS[f"{column.name}_se"])),
    *SEEDS,
    Column("distance_percent", "% of seeds", ".1f", "distance in percent of that of other seeds"),
    Column("distance_percent_se", "SE", TWO_DIGITS, "standard error of the percentage from sampling coordinates"),
    REMARK,
)
DEPTH_COLUMNS = (
    *SETTING,
    ARM,
    Column("depth", "Depth", "", "third of the layers with two dimensions or more, by their place in the network"),
    EPOCH,
    Column("layers", "Layers", "d", "layers that the mean is over"),
    CELLS,
    PAIRS,
    *OWN,
    *SEEDS,
    REMARK,
)
DEPTHS = {"early": drawing.BLUE, "middle": drawing.GREEN, "late": drawing.ORANGE, HEAD: drawing.BLACK}


def tables(draft: Draft) -> list[Table]:
    """Thirds of the network, every layer at the end, and every layer at every checkpoint."""
    study = draft.study
    rows = [row for setting in study.settings() for row in _setting_rows(setting)]
    last = {task: max(study.head_epochs(task), default=0) for task in study.tasks}
    notes = (*left_out(study), *_without(study))
    caption = (
        "relative distance, cosine similarity and cosine of the ways from the initialization, for every "
        f"parameter tensor; mean over all pairs of the complete runs of a cell and arm (of more than {LAYER_RUNS}, the "
        f"first {LAYER_RUNS}) and over the cells. Seeds: one run of each seed, all pairs, the control that shares "
        "nothing but data and settings; % of seeds: distance of twins over theirs. Of a large tensor the runs record a "
        f"sample of coordinates, the same in all runs. {free_note(study)}"
    )
    layers = Table(
        name="layers",
        title="Layers of twins beside layers of seeds",
        caption=(
            f"At the last checkpoint: {caption} SE is the standard error that the sample makes (delete-a-group "
            f"jackknife over {PARTS} parts of the coordinates), 0 where all were recorded; the spread over runs is not "
            "in it. Every other checkpoint is in `tables/layers_checkpoints.csv`."
        ),
        columns=COLUMNS,
        rows=[row for row in rows if row["epoch"] == last[row["task"]]],
        notes=notes,
    )
    checkpoints = Table(
        name="layers_checkpoints",
        title="Layers of twins at every checkpoint",
        caption=f"At every checkpoint: {caption}",
        columns=tuple(column for column in COLUMNS if not column.name.endswith("_se")),
        rows=rows,
        notes=notes,
        for_programs=True,
    )
    return [_depths_table(study, checkpoints.frame, notes), layers, checkpoints]


def _without(study: Study) -> list[str]:
    notes = []
    for task in study.tasks:
        if not study.head_epochs(task):
            notes.append(f"{study.title(task)}: no run was completed.")
        elif not study.layer_rows(task):
            notes.append(f"{study.title(task)}: layers not recorded: collected by an older version.")
    return notes


def _layers(study: Study, task: str) -> list[dict[str, Any]]:
    """Name, shape, number of parameters and of recorded ones of each layer; the head last."""
    size = study.info["tasks"][task]["head_size"]
    head = {"name": HEAD, "shape": [0, 0], "size": size, "recorded": size}
    return [*({**layer, "size": math.prod(layer["shape"])} for layer in study.layers_of(task)), head]


def _measures(study: Study, task: str, rows: list[int], index: int, start: bool, parts: int) -> Measures:
    """The measures of all layers and of the head over some runs at one checkpoint."""
    places = {row: place for place, row in enumerate(study.layer_rows(task))}
    layers = _layers(study, task)[:-1]
    bounds = np.cumsum([0, *(layer["recorded"] for layer in layers)])
    values = np.full((3, len(layers) + 1, 1 + parts), math.nan)
    if layers:
        # Mapped anew for each group, and read a checkpoint at a time: memory does not grow with the study.
        array, kept = study.layers(task), [places[row] for row in rows]
        now, first = np.array(array[kept, index]), np.array(array[kept, 0]) if start else None
        # Apart, so that the many small layers are not filled up to the length of a sample, nor left out by parts.
        sampled = [place for place, layer in enumerate(layers) if layer["recorded"] < layer["size"]]
        for members, split in ((sampled, parts), (sorted(set(range(len(layers))) - set(sampled)), 0)):
            if members:
                slices = [slice(bounds[place], bounds[place + 1]) for place in members]
                begin = None if first is None else _blocks(first, slices)
                values[:, members] = measures(_blocks(now, slices), begin, split)
    heads = study.heads(task)
    begin = np.array(heads[rows, 0])[:, None] if start else None
    values[:, -1] = np.array(measures(np.array(heads[rows, index])[:, None], begin))[:, 0]
    return Measures(*values)


def _blocks(values: NDArray[np.float32], slices: list[slice]) -> NDArray[np.float32]:
    """Parts of each row of (runs, coordinates) as (runs, layers, coordinates), filled up with zeros."""
    blocks = np.zeros((len(values), len(slices), max(part.stop - part.start for part in slices)), np.float32)
    for place, part in enumerate(slices):
        blocks[:, place, : part.stop - part.start] = values[:, part]
    return blocks


def _setting_rows(setting: Setting) -> Iterator[dict[str, Any]]:
    study, task = setting.study, setting.task
    recorded = set(study.layer_rows(task))
    if not recorded:
        return
    control = [row for row in setting.one_run_a_seed[1] if row in recorded]
    for arm in study.paired_arms:
        groups = [[row for row in group.rows if row in recorded] for group in setting.groups(arm)]
        yield from _arm_rows(setting, arm, [rows for rows in groups if len(rows) > 1], control)


def _arm_rows(setting: Setting, arm: str, groups: list[list[int]], control: list[int]) -> Iterator[dict[str, Any]]:
    """One arm: every checkpoint, every layer."""
    study, task = setting.study, setting.task
    layers, epochs = _layers(study, task), study.head_epochs(task)
    pairs = sum(len(rows) * (len(rows) - 1) // 2 for rows in groups)
    for index, epoch in enumerate(epochs):
        # The sampling error is wanted of the end; at every checkpoint it would be most of the work.
        parts, start = PARTS if epoch == epochs[-1] else 0, bool(index) and epochs[0] == 0
        every = [_measures(study, task, rows, index, start, parts) for rows in groups]
        seeds = _measures(study, task, control, index, start, parts)
        twins = Measures(*np.mean(every, axis=0).round(12)) if every else Measures(*np.full_like(seeds, math.nan))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = 100 * twins.distance / seeds.distance
        ratio[~np.isfinite(ratio)] = math.nan
        for place, layer in enumerate(layers):
            row: dict[str, Any] = {**setting.identity, "arm": arm, "layer": layer["name"], "parameters": layer["size"]}
            row |= {"recorded": layer["recorded"], "epoch": epoch, "cells": len(groups), "pairs": pairs}
            for name, own, other in zip(MEASURED, twins, seeds, strict=True):
                row |= {f"layer_{name}": own[place, 0], f"seeds_{name}": other[place, 0]}
                row[f"layer_{name}_se"] = _error(own[place], layer) if parts else math.nan
            row["distance_percent"] = ratio[place, 0]
            row["distance_percent_se"] = _error(ratio[place], layer) if parts else math.nan
            few = "" if groups else "no cell with two complete runs"
            yield {**row, "remark": remarks(few, _why(row, len(control), start, bool(parts)))}


def _error(values: NDArray[np.float64], layer: dict[str, Any]) -> float:
    return sampling_error(values, layer["recorded"], layer["size"]) if math.isfinite(values[0]) else math.nan


def _why(row: dict[str, Any], seeds: int, start: bool, parts: bool) -> str:
    """Why values are missing in a row."""

    def absent(*names: str) -> bool:
        return any(math.isnan(row[name]) for name in names)

    twins, several = row["cells"] > 0, seeds > 1
    errors = [*(column.name for column in OWN), "distance_percent"]
    return remarks(
        "all zeros in some run: no distance or direction" if twins and absent("layer_distance", "layer_cosine") else "",
        "" if several else "fewer than two seeds",
        "all zeros in a run of some seed" if several and absent("seeds_distance", "seeds_cosine") else "",
        "" if start else "the initialization: nothing has moved",
        "not moved in some run" if start and twins and absent("layer_displacement") else "",
        "not moved in a run of some seed" if start and several and absent("seeds_displacement") else "",
        "seeds do not differ: no ratio" if several and twins and row["seeds_distance"] == 0 else "",
        "sampling error not defined: hangs on a few coordinates"
        if parts and any(absent(f"{name}_se") and not absent(name) for name in errors)
        else "",
    )


def _depths_table(study: Study, frame: pd.DataFrame, notes: tuple[str, ...]) -> Table:
    """Means of all layers over thirds of the network, and its head, at every checkpoint: the figure's data."""
    rows: list[dict[str, Any]] = []
    averaged = [column.name for column in (*OWN, *SEEDS)]
    depths = {task: _thirds(study, task) for task in study.tasks}
    for (task, optimizer, arm, epoch), group in frame.groupby(["task", "optimizer", "arm", "epoch"], sort=False):
        for depth, names in depths[str(task)].items():
            part = group[group["layer"].isin(names)]
            if len(part):
                means = part[averaged].mean().round(12)
                rows.append(
                    {
                        **{"task": task, "optimizer": optimizer, "arm": arm, "depth": depth, "epoch": epoch},
                        **{"layers": len(part), "cells": part["cells"].iloc[0], "pairs": part["pairs"].iloc[0]},
                        **{name: means[name] for name in averaged},
                        "remark": remarks(*part["remark"]) if means.isna().any() else "",
                    }
                )
    return Table(
        name="layers_depth",
        title="Twins and seeds by depth in the network",
        caption=(
            "The measures of the table of layers, at each checkpoint, averaged over the early, middle and late third "
            "of the weight matrices and kernels (tensors of two dimensions or more, in the network's order; biases and "
            "normalization are left out), and for the head. A layer without a value is left out of a mean. "
            f"Seeds: one run of each seed, all pairs. {free_note(study)}"
        ),
        columns=DEPTH_COLUMNS,
        rows=rows,
        notes=notes,
    )


def _thirds(study: Study, task: str) -> dict[str, list[str]]:
    names = [layer["name"] for layer in study.layers_of(task) if len(layer["shape"]) > 1]
    cuts = [round(len(names) * third / 3) for third in range(4)]
    parts = {word: names[cuts[place] : cuts[place + 1]] for place, word in enumerate(("early", "middle", "late"))}
    return {**parts, HEAD: [HEAD]}


def figures(draft: Draft) -> list[Drawn]:
    """Small multiples by depth: a row per task, a column per optimizer, one scale for all."""
    study, data = draft.study, chosen(draft.frame("layers_depth"), arm=draft.study.free_arm)
    if not data["layer_distance"].notna().any():
        return []
    distances = [*data["layer_distance"].tolist(), *data["seeds_distance"].tolist()]
    # Twins begin far below seeds: on a linear scale they would lie on the axis.
    positive = [value for value in distances if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(positive) / 1.5, max(positive) * 1.5
    with drawing.style():
        figure, grid = drawing.new_figure(
            1.3 + 1.6 * len(study.tasks), len(study.tasks), len(study.optimizers), sharex="row", sharey=True
        )
        panels = [axes for row in grid for axes in row]
        for axes, setting in zip(panels, study.settings(), strict=True):
            title = drawing.fitted(drawing.title_of(study, setting.task), len(study.optimizers))
            axes.set_title(f"{title}\n{OPTIMIZER_LABELS[setting.optimizer]}", loc="left", fontsize=8.5)
            lines = chosen(data, **setting.identity)
            if lines[["layer_distance", "seeds_distance"]].notna().to_numpy().any():
                axes.set_yscale("log", nonpositive="mask")
                axes.yaxis.set_major_formatter("{x:g}")
                axes.set_ylim(low, high)  # before the lines: with zeros alone matplotlib would find no limits
                _panel(axes, lines)
            else:
                drawing.not_available(axes, "no layers of two runs")
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel("relative distance of two runs", fontsize=9)
        handles = [
            Line2D([], [], color=colour, label=f"{depth} third" if depth != HEAD else depth)
            for depth, colour in DEPTHS.items()
        ]
        handles += [
            Line2D([], [], color=drawing.GREY, label=f"twins ({study.free_arm})"),
            Line2D([], [], color=drawing.GREY, linestyle="--", linewidth=1.0, label="two fresh seeds"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    least, most = (int(data["pairs"].min()), int(data["pairs"].max())) if len(data) else (0, 0)
    pairs = plural(least, "pair") if least == most else f"{least} to {most} pairs"
    return [
        Drawn(
            name="layers",
            title="How far the layers of twins drift apart",
            caption=(
                f"Relative distance |w1 - w2| / ((|w1| + |w2|)/2) between {nd_phrase(study)} of a cell at each "
                "checkpoint, mean over all pairs, cells and the weight matrices and kernels of each third of the "
                f"network, and of the head (n = {pairs}). Dashed: the same between runs of different seeds, which "
                "share nothing but data and settings. All panels have one logarithmic scale, which has no place for 0: "
                "at epoch 0, the initialization, twins are equal. Two random directions of equal length are sqrt(2) = "
                "1.41 apart."
            ),
            alt=_alt(study, data),
            figure=figure,
        )
    ]


def _panel(axes: Axes, lines: pd.DataFrame) -> None:
    for depth, colour in DEPTHS.items():
        line = chosen(lines, depth=depth)
        axes.plot(line["epoch"], line["seeds_distance"], color=colour, linestyle="--", linewidth=1.0)
        axes.plot(line["epoch"], line["layer_distance"], color=colour, marker="o", markersize=2.5,
                  markevery=every(line))  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _alt(study: Study, data: pd.DataFrame) -> str:
    last = data[data["epoch"] == data.groupby("task")["epoch"].transform("max")]
    parts = []
    for task in study.tasks:
        ends = chosen(last, task=task)
        if ends["layer_distance"].notna().any():
            text = f"{study.title(task)} {span(ends['layer_distance'], '.2g')}"
            if ends["seeds_distance"].notna().any():
                text += f" (seeds {span(ends['seeds_distance'], '.2g')})"
            parts.append(text)
    return "Small multiples, distance of twins at the last checkpoint by depth: " + "; ".join(parts) + "."


def sentences(draft: Draft) -> list[str]:
    """How far the layers of twins are apart at the end, in percent of two fresh seeds."""
    study, lines = draft.study, []
    for task in study.tasks:
        share = chosen(draft.frame("layers"), task=task, arm=study.free_arm)["distance_percent"].dropna()
        if len(share):
            lines.append(
                f"{study.title(task)}: at the end {study.free_arm} twins are apart by {share.median():.0f} % of the "
                f"distance of two fresh seeds in the median of {plural(len(share), 'layer')} (parameter "
                f"tensors, every optimizer; middle half {share.quantile(0.25):.0f} to {share.quantile(0.75):.0f} %; "
                'table "Layers of twins beside layers of seeds").'
            )
    return lines


SECTION = Section(
    "layers",
    "Layers",
    tables=tables,
    figures=figures,
    sentences=sentences,
    needs="weights",
    filled_by=f"`layers.npy` in `collected/`, which published results may leave out, and {TWO_FREE}",
)
