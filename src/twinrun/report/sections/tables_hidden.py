"""Tables of what accuracy hides: distances, ensembles, the finite test set, classes, images that flip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from twinrun.collect.pictures import TOP_IMAGES
from twinrun.collect.study import Study
from twinrun.report.names import nd_noise
from twinrun.report.sections.agreement import JS_PAIRS, Agreement, identity
from twinrun.report.sections.tables_performance import absence
from twinrun.report.sections.tables_twins import left_out
from twinrun.report.table import Table, remarks
from twinrun.stats import describe as statistics
from twinrun.stats.churn import most_flipping


def hidden_table(study: Study, groups: list[Agreement]) -> Table:
    """Per cell and arm: distance of probabilities, gain of the ensemble, the finite test set's part of the SD."""
    rows = []
    for one in groups:
        part = one.test_set
        tied = "all runs have the same accuracy: no share" if part.sd == 0 else ""
        rows.append(
            {
                **identity(one),
                "n": one.n,
                "js_distance": one.js_distance,
                "js_pairs": one.js_pairs,
                "ensemble_gain": one.ensemble_gain,
                "sd_accuracy": part.sd,
                "sd_independent": part.sd_independent,
                "variance_rest": part.variance_rest,
                "test_set_share": part.share,
                "remark": remarks(absence(study, one.cell, one.arm, wanted=2), tied),
            }
        )
    return Table(
        name="hidden",
        thesis_name="",
        title="What accuracy hides",
        caption=(
            "Over the n complete runs of a cell and arm. Jensen-Shannon distance (square root of the divergence in "
            f"bits) of the class probabilities, mean over the images and all pairs of runs, or {JS_PAIRS} random pairs "
            "where there are more. Ensemble gain: accuracy of the averaged probabilities less the mean accuracy. The "
            "variance V of accuracy has a part that only the finite test set makes: with v_i the variance of image i "
            "being right, N/(N-1) (V - sum v_i / N^2) estimates without bias what an endless test set would leave "
            "(Jordan 2023); by chance it may be negative, and the test set's share then exceeds 1. Defined for "
            f"accuracy, a mean over images; not for F1 and AUC. nd: {nd_noise(study)}."
        ),
        frame=pd.DataFrame(rows),
        notes=left_out(study),
    )


def classes_table(study: Study, groups: list[Agreement]) -> Table:
    """Per cell, arm and class: recall, its SD and the churn on the images of the class."""
    rows: list[dict[str, Any]] = []
    for one in groups:
        labels, names = study.labels(one.cell.task), study.info["tasks"][one.cell.task]["classes"]
        for index, name in enumerate(names):
            mine = labels == index
            flips = one.flips[mine] if one.n > 1 else np.empty(0)
            recalls = one.recalls[:, index] if mine.any() else np.empty(0)
            rows.append(
                {
                    **identity(one),
                    "class": str(name),
                    "n": one.n,
                    "images": int(mine.sum()),
                    "recall": statistics.mean(recalls),
                    "recall_sd": statistics.sample_sd(recalls),
                    "class_churn": statistics.mean(flips),
                    "flipping": int((flips > 0).sum()) if one.n > 1 and mine.any() else pd.NA,
                    "remark": remarks(
                        absence(study, one.cell, one.arm, wanted=2), "" if mine.any() else "no test image of this class"
                    ),
                }
            )
    return Table(
        name="classes",
        thesis_name="",
        title="Which classes flip",
        caption=(
            "Per true class: recall (mean and sample SD over the n runs of a cell and arm), churn on the images of the "
            f"class, and how many of them not all runs predict alike. nd: {nd_noise(study)}."
        ),
        frame=pd.DataFrame(rows).astype({"flipping": "Int64"}),
        notes=left_out(study),
    )


def flips_table(study: Study, groups: list[Agreement]) -> Table:
    """The images of each task on which twins disagree most."""
    rows = []
    notes = []
    for task in study.tasks:
        mine = [one for one in groups if one.cell.task == task and one.arm == "nd" and one.n > 1]
        labels, names, ids = study.labels(task), study.info["tasks"][task]["classes"], study.image_ids(task)
        if not mine or not len(labels):
            notes.append(f"{study.title(task)}: not available, no cell has two complete nd runs.")
            continue
        places, flips = most_flipping([one.flips for one in mine], TOP_IMAGES)
        runs = sum(one.n for one in mine)
        wrong = np.sum([np.rint(one.wrong * one.n) for one in mine], axis=0) / runs
        cells = np.sum([one.flips > 0 for one in mine], axis=0)
        if not places:
            notes.append(f"{study.title(task)}: no image flips.")
        for rank, place in enumerate(places, 1):
            rows.append(
                {
                    "task": task,
                    "rank": rank,
                    "place": place,
                    "image": ids[place],
                    "class": str(names[labels[place]]),
                    "flips": flips[place],
                    "cells_flipping": int(cells[place]),
                    "cells": len(mine),
                    "wrong": wrong[place],
                }
            )
    columns = ["task", "rank", "place", "image", "class", "flips", "cells_flipping", "cells", "wrong"]
    return Table(
        name="flips",
        thesis_name="",
        title="Images that flip most",
        caption=(
            f"The {TOP_IMAGES} test images of each task on which nd twins ({nd_noise(study)}) disagree most: share of "
            "the pairs of a cell's runs that disagree on the image, mean over the cells; share of all those runs that "
            "err on it. Ties in the order of the test set."
        ),
        frame=pd.DataFrame(rows, columns=columns),
        notes=tuple(notes),
    )
