"""Tables 5.1-5.4 and Figures 5.4-5.6: metrics after the last epoch, deterministic against free runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from twinrun.collect.study import Group, Study, remarks, undefined_metric
from twinrun.report import style as drawing
from twinrun.report.names import DET_AND_ND, METRIC_LABELS, free_runs, nd_phrase, thesis_name
from twinrun.report.section import Draft, Section, chosen
from twinrun.report.study_sd import study_same_seed_sd, study_total_sd
from twinrun.report.style import Drawn
from twinrun.report.table import (
    METRIC,
    N_DET,
    N_ND,
    OPTIMIZER,
    REMARK,
    SEED,
    TASK,
    TWO_DIGITS,
    Column,
    N,
    Table,
    counts,
    span,
)
from twinrun.report.thesis.tables import summary_notes
from twinrun.stats import churn, describe
from twinrun.study.errors import plural

PERFORMANCE_COLUMNS = (
    METRIC,
    OPTIMIZER,
    SEED,
    N_ND,
    Column("mean_nd", "Mean nd", ".4f", "mean of the nd runs", digits_of="sd_nd"),
    Column("sd_nd", "SD nd", TWO_DIGITS, "sample SD of the nd runs, 1/(n-1)"),
    N_DET,
    Column("det", "Det", ".4f", "the deterministic value (their mean, should they differ)"),
    Column("det_equal", "Det equal", "", "whether all deterministic replicates have this value"),
    Column("difference_percent", "Difference %", "+.2f", "100 (det - nd) / nd"),
    REMARK,
)
DETERMINISTIC_COLUMNS = ("n_det", "det", "det_equal", "difference_percent")
SUMMARY_COLUMNS = (
    TASK,
    METRIC,
    Column("main", "Main", "", "whether it is the task's main metric"),
    N,
    Column("minimum", "Min", ".4f", "smallest"),
    Column("mean", "Mean", ".4f", "mean"),
    Column("maximum", "Max", ".4f", "largest"),
    REMARK,
)
LITTLE = 0.2  # of what always naming the largest class gets wrong; less than that made good is little
TINY = 100  # test images; of fewer one image is more than a point


def tables(draft: Draft) -> list[Table]:
    """Table 5.4, then Tables 5.1-5.3."""
    study = draft.study
    summary = Table(
        name="summary",
        title="Smallest, mean and largest result per task",
        caption=(
            f"Over all n complete {'' if study.free_arm == 'all' else 'det and '}{free_runs(study)} of a task, all "
            f"{study.setting_word}s and seeds together. Metrics in [0, 1]; the task's main metric is marked."
        ),
        columns=SUMMARY_COLUMNS,
        rows=[row for task in study.tasks for row in _summary_rows(study, task)],
        thesis_name="Table 5.4",
        notes=summary_notes(study),
        main=True,
    )
    return [summary, *(_performance_table(study, task) for task in study.tasks)]


def _performance_table(study: Study, task: str) -> Table:
    pairs = list(zip(study.groups(study.free_arm, task=task), study.groups("det", task=task), strict=True))
    rows = [_performance_row(metric, free, fixed) for metric in study.metrics for free, fixed in pairs]
    if not study.records("deterministic"):
        return Table(
            name=f"performance_{task}",
            title=f"{study.title(task)}: mean and spread",
            caption=f"Per metric and {study.setting_word}: mean and sample SD (1/(n-1)) of n {free_runs(study)}.",
            columns=tuple(column for column in PERFORMANCE_COLUMNS if column.name not in DETERMINISTIC_COLUMNS),
            rows=rows,
            main=True,
        )
    return Table(
        name=f"performance_{task}",
        title=f"{study.title(task)}: deterministic against free runs",
        caption=(
            f"Per metric, optimizer and seed: mean and sample SD (1/(n-1)) of the {nd_phrase(study)}, the value of the "
            "deterministic run (det), and its difference from that mean in percent of it. Test-set metrics after the "
            f"last epoch, {study.info['tasks'][task]['n_test']} test images; n is the number of runs."
        ),
        columns=PERFORMANCE_COLUMNS,
        rows=rows,
        thesis_name=thesis_name(study, task, "performance"),
        filled_by=DET_AND_ND,
        main=True,
    )


def _performance_row(metric: str, free: Group, fixed: Group) -> dict[str, Any]:
    values, det_values = free.values(metric), fixed.values(metric)
    mean_nd, det = describe.mean(values), describe.mean(det_values)
    equal = "yes" if len(set(map(str, det_values))) == 1 else "no"
    return {
        "metric": metric,
        "optimizer": free.cell.optimizer,
        "seed": free.cell.seed,
        "n_nd": free.n,
        "mean_nd": mean_nd,
        "sd_nd": describe.sample_sd(values),
        "n_det": fixed.n,
        "det": det,
        "det_equal": equal if fixed.n > 1 else "one run" if fixed.n else "no run",
        "difference_percent": describe.difference_percent(det, mean_nd).value,
        "remark": remarks(
            free.why(2),
            fixed.why() if fixed.study.records("deterministic") else "",
            undefined_metric(metric, np.concatenate([values, det_values])),
            "deterministic runs differ" if fixed.n > 1 and equal == "no" else "",
            "the nd mean is 0: no relative difference" if mean_nd == 0 else "",
        ),
    }


def _summary_rows(study: Study, task: str) -> list[dict[str, Any]]:
    groups = list(study.groups("det", study.free_arm, task=task))
    diverged = sum(len(group.places) - group.n for group in groups)
    rows = []
    for metric in study.metrics:
        values = np.concatenate([group.values(metric) for group in groups])
        known = values[~np.isnan(values)]
        rows.append(
            {
                "task": study.title(task),
                "metric": metric,
                "main": "yes" if metric == study.main_metric(task) else "no",
                "n": values.size,
                "minimum": known.min() if known.size else None,
                "mean": describe.mean(values),
                "maximum": known.max() if known.size else None,
                "remark": remarks(
                    "" if values.size else f"no complete det or {study.free_arm} run",
                    f"{diverged} diverged" if diverged else "",
                    undefined_metric(metric, values),
                ),
            }
        )
    return rows


def figures(draft: Draft) -> list[Drawn]:
    """Figures 5.4-5.6, of the tasks with runs of both kinds."""
    by_task = ((task, draft.frame(f"performance_{task}")) for task in draft.study.tasks)
    return [
        _difference_figure(draft.study, task, table)
        for task, table in by_task
        if draft.study.records("deterministic") and table["difference_percent"].notna().any()
    ]


def _difference_figure(study: Study, task: str, table: pd.DataFrame) -> Drawn:
    """Deterministic against free, in percent."""
    pair = study.metric_pair(task)
    data = table[table["metric"].isin(pair)]

    def draw(axes: Axes, metric: str) -> None:
        bars = chosen(data, metric=metric)
        if bars["difference_percent"].notna().any():
            drawing.difference_panel(axes, bars, study, ("difference_percent", "mean_nd", "sd_nd"), 1.0)
        else:
            drawing.not_available(axes, "no cell with det and nd runs")

    spans = "; ".join(
        f"{METRIC_LABELS[metric]} {span(chosen(data, metric=metric)['difference_percent'], '+.2f')} percent"
        for metric in pair
    )
    return Drawn(
        name=f"difference_{task}",
        title=f"{study.title(task)}: deterministic against free runs",
        caption=(
            "Difference of the deterministic run (det) from the mean of the "
            f"{nd_phrase(study)} with the same seed and optimizer, 100 (det - nd) / nd; nd {counts(data['n_nd'])}, "
            f"det {counts(data['n_det'])}. Grey whiskers around 0: one sample SD of the nd runs, in percent of their "
            "mean. A single deterministic run is itself one draw: bars of about the whiskers' length are what chance "
            "gives. No bar: one side is missing."
        ),
        alt=f"Bar chart per seed and optimizer of the difference in percent; {spans}.",
        figure=drawing.metric_panels(
            study, task, draw, "deterministic against free", "100 (det - nd) / nd  (%)", sharey=True
        ),
        thesis_name=thesis_name(study, task, "difference"),
    )


def sentences(draft: Draft) -> list[str]:
    """What makes a task's results say little, then its spread and difference on the main metric."""
    study = draft.study
    return [line for task in study.tasks for line in (*cautions(study, task), _spread_sentence(draft, task))]


def _spread_sentence(draft: Draft, task: str) -> str:
    study = draft.study
    metric, title = study.main_metric(task), study.title(task)
    same_seed = (study_total_sd if study.free_arm == "all" else study_same_seed_sd)(study, task, metric)
    interval = same_seed.pooled.interval()
    if interval.value is None:
        return f"{title}: spread not available, no cell has two complete {free_runs(study)}."
    who = f"{title}: {'' if study.free_arm == 'all' else 'identical '}{free_runs(study)}"
    if interval.value == 0:
        text = f"{who} all have the same {METRIC_LABELS[metric]} ({same_seed.source})"
    else:
        said = same_seed.said()
        text = f"{who} differ in {METRIC_LABELS[metric]}: pooled {said}"
    table = chosen(draft.frame(f"performance_{task}"), metric=metric)
    differences = table["difference_percent"].dropna() if "difference_percent" in table else pd.Series(dtype=float)
    if len(differences):
        named = thesis_name(study, task, "performance") or "table above"
        text += f"; the deterministic run lies {span(differences, '+.2f')} % from their mean ({named})"
    return f"{text}."


def cautions(study: Study, task: str) -> list[str]:
    """What a reader must know first: that nothing was learned, that the test set is tiny; none without complete runs.

    Runs that all name the same class agree perfectly: their SD and churn of 0 are no reproducibility of training.
    """
    if not study.records("predictions"):
        return []
    labels = study.labels(task)
    rows = sorted(row for group in study.groups(*study.arms, task=task) for row in group.rows)
    if not rows or not len(labels):
        return []
    accuracies, constant = [], 0
    for probabilities in study.stream(task, rows):
        predicted = churn.predicted_classes(probabilities)
        accuracies.append(1 - churn.error(predicted, labels))
        constant += bool((predicted == predicted[0]).all())
    title, runs, images = study.title(task), plural(len(rows), "complete run"), plural(len(labels), "test image")
    mean, share = describe.mean(accuracies), float(np.bincount(labels).max() / len(labels))
    error = math.sqrt(share * (1 - share) / len(labels))
    lines = []
    if mean - share <= error:
        lines.append(
            f"{title}: caution, no sign of learning: the mean accuracy of {runs} is {100 * mean:.1f} %, and always "
            f"naming the largest class of the {images} gives {100 * share:.1f} % (binomial standard error "
            f"{100 * error:.1f} points). Small differences between such runs are no sign of reproducible training."
        )
    elif mean - share < LITTLE * (1 - share):
        lines.append(
            f"{title}: caution, hardly better than naming one class: the mean accuracy of {runs} is "
            f"{100 * mean:.1f} %, and always naming the largest class of the {images} gives {100 * share:.1f} %."
        )
    if constant:
        lines.append(
            f"{title}: caution, {constant} of {runs} {'names' if constant == 1 else 'name'} one and the same class "
            f"for all of the {images}. Such runs agree because they tell nothing apart."
        )
    if len(labels) < TINY:
        lines.append(
            f"{title}: the test set is small, {images}: one image is {100 / len(labels):.2f} points of accuracy, and "
            "SDs below that say little."
        )
    return lines


SECTION = Section("results", "Results", tables=tables, figures=figures, sentences=sentences)
