"""Tables of what twins share: predictions (churn) and head weights."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from twinrun.analysis import predictions, statistics, weights
from twinrun.analysis.table import Cell, Study
from twinrun.analysis.tables import Table, remarks
from twinrun.analysis.tables_performance import absence
from twinrun.analysis.thesis_names import nd_noise


def _agreement(study: Study, task: str, rows: list[int]) -> dict[str, Any]:
    """Mean pairwise churn and mean error of some runs of a task, by their rows in its arrays."""
    probabilities, labels = study.probabilities(task), study.labels(task)
    predicted = (predictions.predicted_classes(probabilities[row]) for row in rows)
    errors = []

    def watched() -> Any:
        for classes in predicted:
            errors.append(predictions.error(classes, labels))
            yield classes

    counts = predictions.class_counts(watched(), len(labels), probabilities.shape[2])
    churn, error = predictions.mean_churn(counts, len(rows)), statistics.mean(errors)
    return {
        "n": len(rows),
        "pairs": len(rows) * (len(rows) - 1) // 2,
        "churn": churn,
        "error": error,
        "churn_over_error": predictions.churn_over_error(churn, error),
    }


def churn_table(study: Study) -> Table:
    """Churn, error and their ratio per cell and arm."""
    rows = []
    for cell in study.cells():
        for arm in _paired_arms(study):
            values = _agreement(study, cell.task, study.runs(cell, arm)["row"].tolist())
            flawless = "no errors: no ratio" if values["error"] == 0 else ""
            rows.append(
                {
                    "task": cell.task,
                    "optimizer": cell.optimizer,
                    "seed": cell.seed,
                    "arm": arm,
                    **values,
                    "remark": remarks(absence(study, cell, arm, wanted=2), flawless),
                }
            )
    return Table(
        name="churn",
        thesis_name="",
        title="Churn of identical runs",
        caption=(
            "Churn is the share of test examples whose predicted class differs between two runs, averaged over all "
            "n(n-1)/2 pairs of the n complete runs of a cell and arm; error is their mean test error. A ratio near 1 "
            f"means that twins differ about as often as they err. nd: {nd_noise(study)}."
        ),
        frame=pd.DataFrame(rows),
        notes=_left_out(study),
    )


def _paired_arms(study: Study) -> list[str]:
    """The arms with two runs or more in a cell, and nd in any case."""
    labels = study.info["grid"]["runs"]
    counts = {arm: sum(label.rpartition("_")[0] == arm for label in labels) for arm in study.arms}
    return [arm for arm, count in counts.items() if count > 1 or arm == "nd"] or study.arms[:1]


def _left_out(study: Study) -> tuple[str, ...]:
    single = [arm for arm in study.arms if arm not in _paired_arms(study)]
    return (f"Left out: {', '.join(single)}, with one run per cell: a pair needs two.",) if single else ()


def churn_arms_table(study: Study, cells: pd.DataFrame) -> Table:
    """Churn per arm, averaged over the cells of `cells` (the frame of `churn_table`), beside that of other seeds."""
    rows = []
    for task in study.tasks:
        for optimizer in study.optimizers:
            seeds = _seed_runs(study, task, optimizer)
            label, control = seeds["label"].iloc[0] if len(seeds) else "", _agreement(study, task, list(seeds["row"]))
            few = remarks("fewer than two seeds" if control["n"] < 2 else "")
            for arm in _paired_arms(study):
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


def _seed_runs(study: Study, task: str, optimizer: str) -> pd.DataFrame:
    """One complete run of each seed, all of the same label: the first label that the most seeds completed."""
    results = study.results
    mine = results[(results["task"] == task) & (results["optimizer"] == optimizer) & (results["status"] == "complete")]
    counts = {label: int((mine["label"] == label).sum()) for label in study.info["grid"]["runs"]}
    most: pd.DataFrame = mine[mine["label"] == max(counts, key=lambda label: counts[label])]
    return most


def weights_table(study: Study) -> Table:
    """The data of Figures 5.10-5.12: head SD and cosine similarity per cell, arm and checkpoint."""
    rows = []
    for cell in study.cells():
        for arm in _paired_arms(study):
            rows.extend(_weight_rows(study, cell, arm))
    columns = [
        "task", "optimizer", "seed", "arm", "epoch", "n", "head_sd", "cosine_mean", "cosine_min", "cosine_max",
        "remark",
    ]  # fmt: skip
    return Table(
        name="weights",
        thesis_name="data of Figures 5.10-5.12",
        title="Head weights of identical runs",
        caption=(
            "The last layer (weight and bias) at each checkpoint, over the n complete runs of a cell and arm: SD of "
            "each component with 1/n, averaged over the components; cosine similarity of all n(n-1)/2 pairs. Epoch 0 "
            f"is the initialization. nd: {nd_noise(study)}."
        ),
        frame=pd.DataFrame(rows, columns=columns),
        notes=(*_left_out(study), *_headless(study)),
    )


def _headless(study: Study) -> list[str]:
    return [f"{study.title(task)}: no run was completed." for task in study.tasks if not study.head_epochs(task)]


def _weight_rows(study: Study, cell: Cell, arm: str) -> list[dict[str, Any]]:
    chosen = study.runs(cell, arm)["row"].tolist()
    heads = study.heads(cell.task)[chosen] if study.head_epochs(cell.task) else None
    rows = []
    for index, epoch in enumerate(study.head_epochs(cell.task)):
        assert heads is not None
        vectors = heads[:, index, :]
        cosine = weights.pairwise_cosine(vectors)
        rows.append(
            {
                "task": cell.task,
                "optimizer": cell.optimizer,
                "seed": cell.seed,
                "arm": arm,
                "epoch": epoch,
                "n": len(chosen),
                "head_sd": weights.mean_component_sd(vectors) if len(chosen) > 1 else math.nan,
                "cosine_mean": cosine.mean,
                "cosine_min": cosine.minimum,
                "cosine_max": cosine.maximum,
                "remark": remarks(absence(study, cell, arm, wanted=2), "" if len(chosen) < 2 else cosine.reason),
            }
        )
    return rows
