"""Tables of churn: how often twins disagree, beside runs of other seeds."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from twinrun.analysis import predictions, statistics
from twinrun.analysis.agreement import Agreement, identity
from twinrun.analysis.cell_values import number
from twinrun.analysis.churn_interval import SCHEME
from twinrun.analysis.table import Study
from twinrun.analysis.tables import Table, remarks
from twinrun.analysis.tables_performance import absence
from twinrun.analysis.thesis_names import nd_noise


def _agreement(study: Study, task: str, rows: list[int]) -> dict[str, Any]:
    """Mean pairwise churn and mean error of some runs of a task, by their rows in its arrays."""
    labels = study.labels(task)
    predicted = map(predictions.predicted_classes, study.stream(task, rows))
    errors = []

    def watched() -> Any:
        for classes in predicted:
            errors.append(predictions.error(classes, labels))
            yield classes

    counts = predictions.class_counts(watched(), len(labels), len(study.info["tasks"][task]["classes"]))
    churn, error = predictions.mean_churn(counts, len(rows)), statistics.mean(errors)
    return {
        "n": len(rows),
        "pairs": len(rows) * (len(rows) - 1) // 2,
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
            seeds = seed_runs(study, task, optimizer)
            label, control = seeds["label"].iloc[0] if len(seeds) else "", _agreement(study, task, list(seeds["row"]))
            few = remarks("fewer than two seeds" if control["n"] < 2 else "")
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
                    "comparison": f"{label}, other seeds" if label else "other seeds",
                    "cells": len(seeds),
                    **{key: control[key] for key in ("pairs", "churn", "error", "churn_over_error")},
                    "churn_over_seeds": 1.0 if control["churn"] > 0 else math.nan,
                    "remark": remarks(few, "seeds do not differ: no ratio" if control["churn"] == 0 else ""),
                }
            )
    return Table(
        name="churn_arms",
        thesis_name="",
        title="Churn of twins beside churn of seeds",
        caption=(
            "`same seed`: churn within cells, mean over the cells; `other seeds`: one run of each seed, all pairs of "
            "seeds. A last column near 1 means that the noise alone makes as much difference as new seeds do."
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
