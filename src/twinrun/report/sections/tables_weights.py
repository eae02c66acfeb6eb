"""Tables of head weights: how far twins drift apart over training, beside runs of other seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from twinrun.collect.study import Cell, Study
from twinrun.report.names import nd_noise
from twinrun.report.sections.tables_performance import absence
from twinrun.report.sections.tables_twins import left_out, paired_arms, seed_runs
from twinrun.report.table import Table, remarks
from twinrun.stats import describe as statistics
from twinrun.stats import weights

PAIR_RUNS = 64  # of more runs, pairs are taken among so many, drawn at random
_COLUMNS = [
    "task", "optimizer", "seed", "arm", "epoch", "n", "head_sd", "cosine_mean", "cosine_min", "cosine_max",
    "distance", "displacement_cosine", "remark",
]  # fmt: skip


def weights_table(study: Study) -> Table:
    """The data of Figures 5.10-5.12: head SD, cosine similarity and distance per cell, arm and checkpoint."""
    rows = [row for cell in study.cells() for arm in paired_arms(study) for row in _weight_rows(study, cell, arm)]
    return Table(
        name="weights",
        thesis_name="data of Figures 5.10-5.12",
        title="Head weights of identical runs",
        caption=(
            "The last layer (weight and bias) at each checkpoint, over the n complete runs of a cell and arm: SD of "
            "each component with 1/n, averaged over the components; and over all n(n-1)/2 pairs (of more than "
            f"{PAIR_RUNS} runs, those among {PAIR_RUNS} drawn at random) cosine similarity, relative distance "
            "|w1 - w2| / ((|w1| + |w2|)/2), and cosine of the ways from the initialization. Epoch 0 is the "
            f"initialization. nd: {nd_noise(study)}."
        ),
        frame=pd.DataFrame(rows, columns=_COLUMNS),
        notes=(*left_out(study), *_headless(study)),
    )


def _headless(study: Study) -> list[str]:
    return [f"{study.title(task)}: no run was completed." for task in study.tasks if not study.head_epochs(task)]


def _compared(study: Study, task: str, rows: list[int], *keys: object) -> list[dict[str, Any]]:
    """Every checkpoint of some runs of a task: what is measured of their heads."""
    # Mapped anew for each group, and read a checkpoint at a time: memory does not grow with the study.
    heads, found = study.heads(task), []
    few = list(range(len(rows)))
    if len(rows) > PAIR_RUNS:
        few = sorted(study.rng("heads", *keys).choice(len(rows), PAIR_RUNS, replace=False).tolist())
    epochs = study.head_epochs(task)
    start = np.array(heads[rows, 0])[few] if epochs and epochs[0] == 0 else None
    for index, epoch in enumerate(epochs):
        vectors = np.array(heads[rows, index])
        pairs = vectors[few]
        cosine = weights.pairwise_cosine(pairs)
        if start is None:
            moved = weights.CosineSummary(math.nan, math.nan, math.nan, "no initialization recorded")
        else:
            moved = weights.displacement_cosine(pairs, start)
        found.append(
            {
                "epoch": epoch,
                "n": len(rows),
                "head_sd": weights.mean_component_sd(vectors) if len(rows) > 1 else math.nan,
                "cosine_mean": cosine.mean,
                "cosine_min": cosine.minimum,
                "cosine_max": cosine.maximum,
                "distance": weights.mean_relative_distance(pairs),
                "displacement_cosine": moved.mean,
                "remark": "" if len(rows) < 2 else remarks(cosine.reason, moved.reason),
            }
        )
    return found


def _weight_rows(study: Study, cell: Cell, arm: str) -> list[dict[str, Any]]:
    why = absence(study, cell, arm, wanted=2)
    identity = {"task": cell.task, "optimizer": cell.optimizer, "seed": cell.seed, "arm": arm}
    found = _compared(study, cell.task, study.runs(cell, arm)["row"].tolist(), cell, arm)
    return [{**identity, **one, "remark": remarks(why, one["remark"])} for one in found]


def weights_seeds_table(study: Study, cells: pd.DataFrame) -> Table:
    """Heads of twins (the mean over the cells of `cells`, the frame of `weights_table`) beside those of other seeds."""
    rows: list[dict[str, Any]] = []
    for task in study.tasks:
        for optimizer in study.optimizers:
            seeds = seed_runs(study, task, optimizer)
            label = seeds["label"].iloc[0] if len(seeds) else ""
            control = _compared(study, task, seeds["row"].tolist(), "seeds", optimizer)
            if not control:
                continue
            epoch = control[-1]["epoch"]
            for arm in paired_arms(study):
                mine = cells[(cells["task"] == task) & (cells["optimizer"] == optimizer) & (cells["arm"] == arm)]
                mine = mine[(mine["epoch"] == epoch) & mine["cosine_mean"].notna()]
                rows.append(
                    {
                        "task": task,
                        "optimizer": optimizer,
                        "comparison": f"{arm}, same seed",
                        "epoch": epoch,
                        "cells": len(mine),
                        **{
                            name: statistics.mean(mine[name].dropna())
                            for name in ("cosine_mean", "distance", "displacement_cosine")
                        },
                        "remark": "" if len(mine) else "no cell with two complete runs",
                    }
                )
            last = control[-1]
            rows.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "comparison": f"{label}, other seeds" if label else "other seeds",
                    "epoch": epoch,
                    "cells": len(seeds),
                    **{name: last[name] for name in ("cosine_mean", "distance", "displacement_cosine")},
                    "remark": remarks("fewer than two seeds" if len(seeds) < 2 else "", last["remark"]),
                }
            )
    columns = [
        "task", "optimizer", "comparison", "epoch", "cells", "cosine_mean", "distance", "displacement_cosine", "remark",
    ]  # fmt: skip
    return Table(
        name="weights_seeds",
        thesis_name="",
        title="Heads of twins beside heads of other seeds",
        caption=(
            "At the last checkpoint: cosine similarity, relative distance and cosine of the ways from the "
            "initialization, mean over pairs and cells. `same seed`: pairs within cells; `other seeds`: one run of "
            "each seed, all pairs of seeds, the control that shows how far heads lie apart that share nothing but data "
            "and settings."
        ),
        frame=pd.DataFrame(rows, columns=columns),
    )
