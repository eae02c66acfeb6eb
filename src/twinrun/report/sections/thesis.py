"""The thesis's published cells beside the study's, for tasks whose data have the same format."""

from __future__ import annotations

from typing import Any

from twinrun.collect.study import Study, remarks
from twinrun.report.names import network
from twinrun.report.section import Draft, Section
from twinrun.report.table import METRIC, OPTIMIZER, REMARK, SEED, TASK, Column, Table
from twinrun.report.thesis.tables import DATA_SETS, PublishedCell, published_cells
from twinrun.stats.describe import difference_percent

COLUMNS = (
    TASK,
    METRIC,
    OPTIMIZER,
    SEED,
    Column("thesis_nd", "Thesis nd", ".4f", "the thesis's mean of five free runs"),
    Column("mean_nd", "Mean nd", ".4f", "mean of the nd runs"),
    Column("thesis_det", "Thesis det", ".4f", "the thesis's deterministic run"),
    Column("det", "Det", ".4f", "the deterministic value (their mean, should they differ)"),
    Column("thesis_difference", "Thesis diff. %", "+.2f", "100 (det - nd) / nd, as printed in the thesis"),
    Column("difference_percent", "Difference %", "+.2f", "100 (det - nd) / nd"),
    REMARK,
)


def tables(draft: Draft) -> list[Table]:
    """The thesis's cells of every corresponding task beside the study's."""
    published, rows, notes = published_cells(), [], []
    for task in draft.study.tasks:
        reader = draft.study.reader(task)
        if theirs := [cell for cell in published if cell.task == reader]:
            notes.append(_note(draft.study, task, reader))
            ours: dict[Any, Any] = (
                draft.frame(f"performance_{task}").set_index(["metric", "optimizer", "seed"]).to_dict("index")
            )
            rows += [_row(task, cell, ours) for cell in theirs]
    if not rows:
        return []
    table = Table(
        name="thesis",
        title="The thesis's numbers beside this study's",
        caption=(
            "The thesis's means of five free runs, its single deterministic run and its printed difference, beside "
            "the same cells of this study. Metrics in [0, 1]. Only tasks whose data are read by the same reader."
        ),
        columns=COLUMNS,
        rows=rows,
        thesis_name="Tables 5.1-5.3 as published",
        notes=tuple(notes),
    )
    return [table]


def _note(study: Study, task: str, reader: str) -> str:
    return (
        f"{study.title(task)} is read as {reader} is; the thesis trained {DATA_SETS[reader]}, this study "
        f"{network(study.info['params'][task]['model'])} on {study.info['tasks'][task]['n_train']} images: other data "
        "or networks give other numbers."
    )


def _row(task: str, theirs: PublishedCell, ours: dict[Any, Any]) -> dict[str, Any]:
    metric, optimizer, seed = theirs.metric.removesuffix("_percent"), theirs.optimizer, int(theirs.seed)
    nd, det = theirs.free_mean.value, theirs.deterministic.value
    if theirs.metric != metric:  # rounded: 92.66 / 100 is not the number that 0.9266 reads as
        nd, det = round(nd / 100, 6), round(det / 100, 6)
    printed = theirs.difference_percent.value
    own, recomputed = ours.get((metric, optimizer, seed)), difference_percent(det, nd).value
    return {
        "task": task,
        "metric": metric,
        "optimizer": optimizer,
        "seed": seed,
        "thesis_nd": nd,
        "thesis_det": det,
        "thesis_difference": printed,
        **{name: own[name] for name in ("mean_nd", "det", "difference_percent") if own},
        "remark": remarks(
            own["remark"] if own else "this cell is not in this study",
            f"the printed means give {recomputed:+.3f} %"
            if recomputed is not None and abs(recomputed - printed) > 0.02
            else "",
        ),
    }


SECTION = Section(
    "thesis",
    "The thesis's tables and figures",
    filled_by="a task that is read as one of the thesis's is (CIFAR-10, SDNET2018, CBIS-DDSM)",
    tables=tables,
)
