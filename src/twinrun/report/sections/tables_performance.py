"""Tables 5.1-5.4 and the data of Figures 5.1-5.6: metrics of the last epoch, deterministic against free."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from twinrun.collect.study import Cell, Study
from twinrun.report.names import METRIC_LABELS, nd_noise, nd_phrase, table_name
from twinrun.report.table import Table, remarks
from twinrun.stats import describe as statistics
from twinrun.stats.intervals import sd_chi_square

METRICS = ("accuracy", "f1", "auc")


def absence(study: Study, cell: Cell, arm: str, *, wanted: int = 1) -> str:
    """Why an arm of a cell has fewer than `wanted` complete runs, and which of its runs diverged."""
    runs = study.runs(cell, arm, complete=False)
    diverged = runs.loc[runs["status"] != "complete", "label"].tolist()
    complete = len(runs) - len(diverged)
    reasons = [f"{', '.join(diverged)} diverged" if diverged else ""]
    if runs.empty:
        reasons.append(f"no {arm} runs in this study")
    elif complete < wanted:
        reasons.append(f"{complete} complete {arm} run{'' if complete == 1 else 's'}, {wanted} needed")
    return remarks(*reasons)


def undefined_metric(metric: str, values: pd.Series) -> str:
    """Why a metric has no value in some of the runs."""
    if not values.isna().any():
        return ""
    why = "the test set lacks a class" if metric == "auc" else "it is missing in the record"
    return f"{METRIC_LABELS[metric]} not defined: {why}"


def comparison_rows(study: Study, task: str) -> list[dict[str, Any]]:
    """Rows of Tables 5.1-5.3 for one task: metric, optimizer, seed, the nd runs, the deterministic value."""
    rows = []
    for metric in METRICS:
        for cell in study.cells(task):
            free, fixed = (study.runs(cell, arm)[metric] for arm in ("nd", "det"))
            mean_nd, det = statistics.mean(free), statistics.mean(fixed)
            equal = "" if len(fixed) < 2 else "yes" if fixed.nunique(dropna=False) == 1 else "no"
            no_ratio = "the nd mean is 0: no relative difference" if mean_nd == 0 else ""
            rows.append(
                {
                    "metric": metric,
                    "optimizer": cell.optimizer,
                    "seed": cell.seed,
                    "n_nd": len(free),
                    "mean_nd": mean_nd,
                    "sd_nd": statistics.sample_sd(free),
                    "n_det": len(fixed),
                    "det": det,
                    "det_equal": equal or "one run" if len(fixed) else "no run",
                    "difference_percent": statistics.difference_percent(det, mean_nd),
                    "remark": remarks(
                        absence(study, cell, "nd", wanted=2),
                        absence(study, cell, "det"),
                        undefined_metric(metric, pd.concat([free, fixed])),
                        "deterministic runs differ" if equal == "no" else "",
                        no_ratio,
                    ),
                }
            )
    return rows


def performance_table(study: Study, task: str) -> Table:
    """Table 5.1, 5.2 or 5.3."""
    return Table(
        name=f"performance_{task}",
        thesis_name=table_name(study, task),
        title=f"{study.title(task)}: deterministic against free runs",
        caption=(
            f"Per metric, optimizer and seed: mean and sample SD (1/(n-1)) of the {nd_phrase(study)}, the value of the "
            "deterministic run (det), and the difference 100 (det - nd) / nd in percent. Test-set metrics after the "
            f"last epoch, {study.info['tasks'][task]['n_test']} test images; n is the number of runs."
        ),
        frame=pd.DataFrame(comparison_rows(study, task)),
    )


def summary_table(study: Study) -> Table:
    """Table 5.4: smallest, mean and largest metric of each task."""
    rows = []
    results = study.results
    for task in study.tasks:
        runs = results[(results["task"] == task) & results["arm"].isin(["det", "nd"])]
        complete = runs[runs["status"] == "complete"]
        for metric in METRICS:
            values = complete[metric]
            rows.append(
                {
                    "task": study.title(task),
                    "metric": metric,
                    "main": "yes" if metric == study.main_metric(task) else "no",
                    "n": len(values),
                    "minimum": values.min() if len(values) else math.nan,
                    "mean": statistics.mean(values),
                    "maximum": values.max() if len(values) else math.nan,
                    "remark": remarks(
                        "no complete det or nd run" if complete.empty else "",
                        f"{len(runs) - len(complete)} diverged" if len(complete) < len(runs) else "",
                        undefined_metric(metric, values),
                    ),
                }
            )
    return Table(
        name="summary",
        thesis_name="Table 5.4",
        title="Smallest, mean and largest result per task",
        caption=(
            "Over all n complete det and nd runs of a task, all optimizers and seeds together. Metrics in [0, 1]; the "
            "task's main metric is marked."
        ),
        frame=pd.DataFrame(rows),
    )


def spread_table(study: Study) -> Table:
    """The data of Figures 5.1-5.3: SD of two metrics per cell, for every arm in which something is free."""
    rows = []
    arms = [arm for arm in study.arms if arm != "det"] or ["nd"]
    for cell in study.cells():
        for arm in arms:
            runs = study.runs(cell, arm)
            for metric in study.metric_pair(cell.task):
                values = runs[metric]
                interval = sd_chi_square(values)
                ties = len(values) > 1 and values.nunique(dropna=False) == 1
                rows.append(
                    {
                        "task": cell.task,
                        "optimizer": cell.optimizer,
                        "seed": cell.seed,
                        "arm": arm,
                        "metric": metric,
                        "n": len(values),
                        "mean": statistics.mean(values),
                        "sd_population": statistics.population_sd(values),
                        "sd_sample": statistics.sample_sd(values),
                        "sd_low": math.nan if interval.low is None else interval.low,
                        "sd_high": math.nan if interval.high is None else interval.high,
                        "remark": remarks(
                            absence(study, cell, arm, wanted=2),
                            undefined_metric(metric, values),
                            "all runs have the same value: no interval" if ties else "",
                        ),
                    }
                )
    return Table(
        name="spread",
        thesis_name="data of Figures 5.1-5.3",
        title="Spread of identical runs",
        caption=(
            "SD over the n complete runs of a cell and arm: with 1/n as in the thesis's figures (eq. 5.1), with "
            "1/(n-1), and the 95 % chi-square interval of the latter, s sqrt((n-1)/q), which supposes a normal "
            f"distribution. nd: {nd_noise(study)}. Metrics in [0, 1]: 0.01 is one point."
        ),
        frame=pd.DataFrame(rows),
    )
