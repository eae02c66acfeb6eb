"""Tables of churn: how often twins disagree, beside runs of other seeds."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from twinrun.collect.study import Cell, Study
from twinrun.report.cell_values import number
from twinrun.report.names import nd_noise
from twinrun.report.sections.agreement import Agreement, identity
from twinrun.report.sections.tables_performance import absence
from twinrun.report.table import Table, remarks
from twinrun.stats import churn as predictions
from twinrun.stats import describe as statistics
from twinrun.stats.churn import SCHEME


def _between_seeds(study: Study, task: str, optimizer: str, arm: str) -> dict[str, Any]:
    """Mean churn over the pairs of an arm's runs that have different seeds, and the mean error of these runs."""
    labels, classes = study.labels(task), len(study.info["tasks"][task]["classes"])
    errors: list[float] = []

    def watched(rows: list[int]) -> Any:
        for predicted in map(predictions.predicted_classes, study.stream(task, rows)):
            errors.append(predictions.error(predicted, labels))
            yield predicted

    rows = [study.runs(Cell(task, optimizer, seed), arm)["row"].tolist() for seed in study.seeds]
    counts = [predictions.class_counts(watched(mine), len(labels), classes) for mine in rows]
    sizes = [len(mine) for mine in rows]
    churn, error = predictions.churn_between(counts, sizes), statistics.mean(errors)
    return {
        "cells": sum(size > 0 for size in sizes),
        "pairs": predictions.pairs_between(sizes),
        "churn": churn,
        "error": error,
        "churn_over_error": predictions.churn_over_error(churn, error),
    }


def churn_table(study: Study, groups: list[Agreement]) -> Table:
    """Churn with its interval, error and their ratio per cell and arm."""
    rows = []
    for one in groups:
        flawless = "no errors: no ratio" if one.error == 0 else ""
        two = "of two runs only the images vary in the interval" if one.n == 2 else ""
        interval = f"interval {one.interval.reason}" if one.n > 1 and one.interval.reason else ""
        rows.append(
            {
                **identity(one),
                "n": one.n,
                "pairs": one.pairs,
                "churn": one.churn,
                "churn_low": number(one.interval.low),
                "churn_high": number(one.interval.high),
                "error": one.error,
                "churn_over_error": one.churn_over_error,
                "remark": remarks(absence(study, one.cell, one.arm, wanted=2), flawless, interval or two),
            }
        )
    return Table(
        name="churn",
        thesis_name="",
        title="Churn of identical runs",
        caption=(
            "Churn is the share of test examples whose predicted class differs between two runs, averaged over all "
            "n(n-1)/2 pairs of the n complete runs of a cell and arm; error is their mean test error. A ratio near 1 "
            f"means that twins differ about as often as they err. Interval: {SCHEME}. nd: {nd_noise(study)}."
        ),
        frame=pd.DataFrame(rows),
        notes=left_out(study),
    )


def paired_arms(study: Study) -> list[str]:
    """The arms with two runs or more in a cell, and nd in any case."""
    labels = study.info["grid"]["runs"]
    counts = {arm: sum(label.rpartition("_")[0] == arm for label in labels) for arm in study.arms}
    return [arm for arm, count in counts.items() if count > 1 or arm == "nd"] or study.arms[:1]


def left_out(study: Study) -> tuple[str, ...]:
    single = [arm for arm in study.arms if arm not in paired_arms(study)]
    return (f"Left out: {', '.join(single)}, with one run per cell: a pair needs two.",) if single else ()


def churn_arms_table(study: Study, cells: pd.DataFrame) -> Table:
    """Churn per arm, averaged over the cells of `cells` (the frame of `churn_table`), beside that of other seeds."""
    rows = []
    for task in study.tasks:
        for optimizer in study.optimizers:
            free = "nd" if "nd" in study.arms else study.arms[0]
            control = _between_seeds(study, task, optimizer, free)
            few = remarks("fewer than two seeds" if control["cells"] < 2 else "")
            for arm in paired_arms(study):
                mine = cells[(cells["task"] == task) & (cells["optimizer"] == optimizer) & (cells["arm"] == arm)]
                known = mine[mine["churn"].notna()]
                churn, error = statistics.mean(known["churn"]), statistics.mean(known["error"])
                rows.append(
                    {
                        "task": task,
                        "optimizer": optimizer,
                        "comparison": f"{arm}, same seed",
                        "cells": len(known),
                        "pairs": int(known["pairs"].sum()),
                        "churn": churn,
                        "error": error,
                        "churn_over_error": predictions.churn_over_error(churn, error),
                        "churn_over_seeds": predictions.churn_over_error(churn, control["churn"]),
                        "remark": remarks(
                            "no cell with two complete runs" if known.empty else "",
                            "no errors: no ratio" if error == 0 else "",
                            few or ("seeds do not differ: no ratio" if control["churn"] == 0 else ""),
                        ),
                    }
                )
            rows.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "comparison": f"{free}, other seeds",
                    **control,
                    "churn_over_seeds": 1.0 if control["churn"] > 0 else math.nan,
                    "remark": remarks(few, "seeds do not differ: no ratio" if control["churn"] == 0 else ""),
                }
            )
    return Table(
        name="churn_arms",
        thesis_name="",
        title="Churn of twins beside churn of seeds",
        caption=(
            "`same seed`: churn within cells, mean over the cells; `other seeds`: mean over all pairs of runs of two "
            "seeds, so that the noise is in both. A last column near 1 means that the noise alone makes as much "
            "difference as new seeds do; of few seeds the ratio is uncertain, however many the pairs."
        ),
        frame=pd.DataFrame(rows),
    )


def seed_runs(study: Study, task: str, optimizer: str) -> pd.DataFrame:
    """One complete run of each seed, all of the same label: the first label that the most seeds completed."""
    results = study.results
    mine = results[(results["task"] == task) & (results["optimizer"] == optimizer) & (results["status"] == "complete")]
    counts = {label: int((mine["label"] == label).sum()) for label in study.info["grid"]["runs"]}
    most: pd.DataFrame = mine[mine["label"] == max(counts, key=lambda label: counts[label])]
    return most
