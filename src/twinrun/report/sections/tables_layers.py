"""Tables of every layer: how far twins drift apart, in percent of the distance of two fresh seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twinrun.collect.collect import LAYER_RUNS
from twinrun.collect.study import Study
from twinrun.report.names import nd_noise
from twinrun.report.sections.tables_twins import left_out, paired_arms, seed_runs
from twinrun.report.table import Table, remarks
from twinrun.stats.weights import PARTS, Measures, measures, sampling_error

HEAD = "head"
_NAMES = ("distance", "cosine", "displacement")
_COLUMNS = [
    "task", "optimizer", "arm", "layer", "parameters", "recorded", "epoch", "cells", "pairs", "layer_distance",
    "layer_distance_se", "layer_cosine", "layer_cosine_se", "layer_displacement", "layer_displacement_se",
    "seeds_distance", "seeds_cosine", "seeds_displacement", "distance_percent", "distance_percent_se", "remark",
]  # fmt: skip


@dataclass(frozen=True)
class _Kept:
    """The recorded coordinates of a task's layers: where they are, and in which runs."""

    study: Study
    task: str

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Name, shape, number of parameters and of recorded ones of each layer; the head last."""
        described = self.study.info["tasks"][self.task]
        head = {"name": HEAD, "shape": [0, 0], "size": described["head_size"], "recorded": described["head_size"]}
        return [*({**one, "size": math.prod(one["shape"])} for one in self.study.layers_of(self.task)), head]

    def kept(self, rows: list[int]) -> list[int]:
        """Those of some rows of the task's arrays whose layers were kept."""
        known = set(self.study.layer_rows(self.task))
        return [row for row in rows if row in known]

    def measures(self, rows: list[int], index: int, start: bool, parts: int) -> Measures:
        """The measures of all layers and of the head over some runs at one checkpoint."""
        places = {row: place for place, row in enumerate(self.study.layer_rows(self.task))}
        mine = [places[row] for row in rows]
        recorded = [one["recorded"] for one in self.layers[:-1]]
        bounds = np.cumsum([0, *recorded])
        found = np.full((3, len(recorded) + 1, 1 + parts), math.nan)
        if recorded:
            # Mapped anew for each group, and read a checkpoint at a time: memory does not grow with the study.
            array = self.study.layers(self.task)
            values = np.array(array[mine, index])
            first = np.array(array[mine, 0]) if start else None
            # Apart, so that the many small layers are not filled up to the length of a sample, nor left out by parts.
            sampled = [place for place, one in enumerate(self.layers[:-1]) if one["recorded"] < one["size"]]
            for chosen, split in ((sampled, parts), (sorted(set(range(len(recorded))) - set(sampled)), 0)):
                if chosen:
                    own = [slice(bounds[place], bounds[place + 1]) for place in chosen]
                    begin = None if first is None else _blocks(first, own)
                    found[:, chosen] = measures(_blocks(values, own), begin, split)
        heads = self.study.heads(self.task)
        begin = np.array(heads[rows, 0])[:, None] if start else None
        found[:, -1] = np.array(measures(np.array(heads[rows, index])[:, None], begin))[:, 0]
        return Measures(*found)


def _blocks(values: NDArray[np.float32], slices: list[slice]) -> NDArray[np.float32]:
    """Parts of each row of (runs, coordinates) as (runs, layers, coordinates), filled up with zeros."""
    blocks = np.zeros((len(values), len(slices), max(one.stop - one.start for one in slices)), np.float32)
    for place, one in enumerate(slices):
        blocks[:, place, : one.stop - one.start] = values[:, one]
    return blocks


def layers_frame(study: Study) -> pd.DataFrame:
    """Every layer at every checkpoint, per task, optimizer and arm: what the tables of layers are made from."""
    return pd.DataFrame(list(_rows(study)), columns=_COLUMNS)


def layers_table(study: Study, frame: pd.DataFrame) -> Table:
    """The last checkpoint of `layers_frame`, with sampling errors."""
    last = frame["epoch"] == frame.groupby("task")["epoch"].transform("max")
    return Table(
        name="layers",
        thesis_name="",
        title="Layers of twins beside layers of seeds",
        caption=_caption(study, "At the last checkpoint: ")
        + " SE is the standard error that the sample makes (delete-a-group jackknife over "
        f"{PARTS} parts of the coordinates), 0 where all were recorded; the spread over runs is not in it. Every other "
        "checkpoint is in `tables/layers_checkpoints.csv`.",
        frame=frame[last].reset_index(drop=True),
        notes=(*left_out(study), *_without(study)),
    )


def layers_checkpoints_table(study: Study, frame: pd.DataFrame) -> Table:
    """All checkpoints of `layers_frame`, without sampling errors."""
    errors = [name for name in frame.columns if name.endswith("_se")]
    return Table(
        name="layers_checkpoints",
        thesis_name="",
        title="Layers of twins at every checkpoint",
        caption=_caption(study, "At every checkpoint: "),
        frame=frame.drop(columns=errors),
        notes=(*left_out(study), *_without(study)),
        for_programs=True,
    )


def _caption(study: Study, when: str) -> str:
    return (
        f"{when}relative distance, cosine similarity and cosine of the ways from the initialization, for every "
        f"parameter tensor; mean over all pairs of the complete runs of a cell and arm (of more than {LAYER_RUNS}, the "
        f"first {LAYER_RUNS}) and over the cells. Seeds: one run of each seed, all pairs, the control that shares "
        "nothing but data and settings; % of seeds: distance of twins over theirs. Of a large tensor the runs record a "
        f"sample of coordinates, the same in all runs. nd: {nd_noise(study)}."
    )


def _without(study: Study) -> list[str]:
    notes = []
    for task in study.tasks:
        if not study.head_epochs(task):
            notes.append(f"{study.title(task)}: no run was completed.")
        elif not study.layer_rows(task):
            notes.append(f"{study.title(task)}: layers not recorded: collected by an older version.")
    return notes


def _rows(study: Study) -> Iterator[dict[str, Any]]:
    for task in study.tasks:
        kept, epochs = _Kept(study, task), study.head_epochs(task)
        for optimizer in study.optimizers if study.layer_rows(task) else ():
            control = kept.kept(seed_runs(study, task, optimizer)["row"].tolist())
            cells = [cell for cell in study.cells(task) if cell.optimizer == optimizer]
            for arm in paired_arms(study):
                groups = [kept.kept(study.runs(cell, arm)["row"].tolist()) for cell in cells]
                groups = [rows for rows in groups if len(rows) > 1]
                yield from _arm_rows(kept, {"task": task, "optimizer": optimizer, "arm": arm}, groups, control, epochs)


def _arm_rows(
    kept: _Kept, names: dict[str, str], groups: list[list[int]], control: list[int], epochs: list[int]
) -> Iterator[dict[str, Any]]:
    """One arm: every checkpoint, every layer."""
    pairs = sum(len(rows) * (len(rows) - 1) // 2 for rows in groups)
    for index, epoch in enumerate(epochs):
        # The sampling error is wanted of the end; at every checkpoint it would be most of the work.
        parts, start = PARTS if epoch == epochs[-1] else 0, bool(index) and epochs[0] == 0
        every = [kept.measures(rows, index, start, parts) for rows in groups]
        seeds = kept.measures(control, index, start, parts)
        mine = Measures(*np.mean(every, axis=0).round(12)) if every else Measures(*np.full_like(seeds, math.nan))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = 100 * mine.distance / seeds.distance
        ratio[~np.isfinite(ratio)] = math.nan
        for place, layer in enumerate(kept.layers):
            row: dict[str, Any] = {**names, "layer": layer["name"], "parameters": layer["size"]}
            row |= {"recorded": layer["recorded"], "epoch": epoch, "cells": len(groups), "pairs": pairs}
            for name, own, other in zip(_NAMES, mine, seeds, strict=True):
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
    errors = [f"layer_{name}" for name in _NAMES] + ["distance_percent"]
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


def depths_table(study: Study, frame: pd.DataFrame) -> Table:
    """Means of `layers_frame` over thirds of the network, and its head, at every checkpoint: the figure's data."""
    rows: list[dict[str, Any]] = []
    measured = [f"{whose}_{name}" for whose in ("layer", "seeds") for name in _NAMES]
    depths = {task: _thirds(study, task) for task in study.tasks}
    for (task, optimizer, arm, epoch), group in frame.groupby(["task", "optimizer", "arm", "epoch"], sort=False):
        for depth, names in depths[str(task)].items():
            mine = group[group["layer"].isin(names)]
            if len(mine):
                means = mine[measured].mean().round(12)
                rows.append(
                    {
                        **{"task": task, "optimizer": optimizer, "arm": arm, "depth": depth, "epoch": epoch},
                        **{"layers": len(mine), "cells": mine["cells"].iloc[0], "pairs": mine["pairs"].iloc[0]},
                        **{name: means[name] for name in measured},
                        "remark": remarks(*mine["remark"]) if means.isna().any() else "",
                    }
                )
    columns = ["task", "optimizer", "arm", "depth", "epoch", "layers", "cells", "pairs", *measured, "remark"]
    return Table(
        name="layers_depth",
        thesis_name="",
        title="Twins and seeds by depth in the network",
        caption=(
            "The measures of the table of layers, at each checkpoint, averaged over the early, middle and late third "
            "of the weight matrices and kernels (tensors of two dimensions or more, in the network's order; biases and "
            "normalization are left out), and for the head. A layer without a value is left out of a mean. "
            f"Seeds: one run of each seed, all pairs. nd: {nd_noise(study)}."
        ),
        frame=pd.DataFrame(rows, columns=columns),
        notes=(*left_out(study), *_without(study)),
    )


def _thirds(study: Study, task: str) -> dict[str, list[str]]:
    names = [one["name"] for one in study.layers_of(task) if len(one["shape"]) > 1]
    cuts = [round(len(names) * third / 3) for third in range(4)]
    parts = {word: names[cuts[place] : cuts[place + 1]] for place, word in enumerate(("early", "middle", "late"))}
    return {**parts, HEAD: [HEAD]}
