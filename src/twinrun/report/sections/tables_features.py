"""The table of features: how alike twins and seeds represent the test images, by CKA without bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from twinrun.collect.collect import LAYER_RUNS
from twinrun.collect.study import Study
from twinrun.report.names import nd_noise
from twinrun.report.sections.tables_twins import left_out, paired_arms, seed_runs
from twinrun.report.table import Table, remarks
from twinrun.stats import describe as statistics
from twinrun.stats.weights import CosineSummary, debiased_cka

_COLUMNS = [
    "task", "optimizer", "comparison", "images_recorded", "features", "cells", "pairs", "cka_mean", "cka_min",
    "cka_max", "remark",
]  # fmt: skip


def features_table(study: Study) -> Table:
    """Debiased CKA of the recorded test features per task, optimizer and arm, beside that of other seeds."""
    rows = [row for task in study.tasks if study.features_shape(task) for row in _task_rows(study, task)]
    absent = [study.title(task) for task in study.tasks if not study.features_shape(task)]
    missing = f"Not recorded: {', '.join(absent)} (no `features` in the recipe, or no complete run)." if absent else ""
    return Table(
        name="features",
        thesis_name="",
        title="Features of twins beside features of seeds",
        caption=(
            "Linear CKA with the unbiased estimator of HSIC between the features (the head's input) of recorded test "
            "images after the last epoch: 1 for features that are equal up to rotation and scale, about 0 for "
            "unrelated ones. `same seed`: all pairs of the complete runs of a cell and arm (of more than "
            f"{LAYER_RUNS}, the first {LAYER_RUNS}), mean over the cells, least and greatest over all pairs; `other "
            f"seeds`: one run of each seed, all pairs. nd: {nd_noise(study)}."
        ),
        frame=pd.DataFrame(rows, columns=_COLUMNS),
        notes=(*left_out(study), *([missing] if missing else [])),
    )


def _task_rows(study: Study, task: str) -> list[dict[str, Any]]:
    places = {row: place for place, row in enumerate(study.layer_rows(task))}
    images, length = study.features_shape(task) or (0, 0)
    rows = []

    def compared(chosen: list[int]) -> tuple[int, CosineSummary]:
        mine = [places[row] for row in chosen if row in places]
        return len(mine), debiased_cka(np.array(study.features(task)[mine]))

    def row(optimizer: str, comparison: str, cells: int, pairs: int, found: list[CosineSummary]) -> dict[str, Any]:
        known = [one for one in found if not one.reason]
        return {
            **{"task": task, "optimizer": optimizer, "comparison": comparison, "images_recorded": images},
            **{"features": length, "cells": cells, "pairs": pairs},
            "cka_mean": statistics.mean([one.mean for one in known]),
            "cka_min": min((one.minimum for one in known), default=np.nan),
            "cka_max": max((one.maximum for one in known), default=np.nan),
            "remark": remarks(*(one.reason for one in found)),
        }

    for optimizer in study.optimizers:
        cells = [cell for cell in study.cells(task) if cell.optimizer == optimizer]
        for arm in paired_arms(study):
            found = [compared(study.runs(cell, arm)["row"].tolist()) for cell in cells]
            several = [(runs, one) for runs, one in found if runs > 1]
            pairs = sum(runs * (runs - 1) // 2 for runs, _ in several)
            rows.append(row(optimizer, f"{arm}, same seed", len(several), pairs, [one for _, one in several]))
            if not several:
                rows[-1]["remark"] = "no cell with two complete runs"
        seeds = seed_runs(study, task, optimizer)
        label = seeds["label"].iloc[0] if len(seeds) else ""
        runs, one = compared(seeds["row"].tolist())
        comparison = f"{label}, other seeds" if label else "other seeds"
        rows.append(row(optimizer, comparison, runs, runs * (runs - 1) // 2, [one]))
        if runs < 2:
            rows[-1]["remark"] = "fewer than two seeds"
    return rows
