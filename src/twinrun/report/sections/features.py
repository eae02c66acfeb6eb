"""How alike twins and seeds represent the test images, by CKA without bias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from twinrun.collect.collect import LAYER_RUNS
from twinrun.collect.study import Setting, remarks
from twinrun.report.names import TWO_FREE, free_note, left_out
from twinrun.report.section import Draft, Section, chosen
from twinrun.report.table import CELLS, COMPARISON, PAIRS, REMARK, SETTING, Column, Table, span
from twinrun.stats import describe
from twinrun.stats.weights import CosineSummary, debiased_cka
from twinrun.study.errors import plural

COLUMNS = (
    *SETTING,
    COMPARISON,
    Column("images_recorded", "Images", "d", "test images whose features were recorded"),
    Column("features", "Features", "d", "length of a feature vector: the head's input"),
    CELLS,
    PAIRS,
    Column("cka_mean", "CKA mean", ".4f", "debiased linear CKA, mean over pairs and cells"),
    Column("cka_min", "CKA min", ".4f", "smallest"),
    Column("cka_max", "CKA max", ".4f", "largest"),
    REMARK,
)


def tables(draft: Draft) -> list[Table]:
    """Debiased CKA of the recorded test features per task, optimizer and arm, beside that of other seeds."""
    study = draft.study
    absent = [study.title(task) for task in study.tasks if not study.features_shape(task)]
    missing = f"Not recorded: {', '.join(absent)} (no `features` in the recipe, or no complete run)." if absent else ""
    table = Table(
        name="features",
        title="Features of twins beside features of seeds",
        caption=(
            "Linear CKA with the unbiased estimator of HSIC between the features (the head's input) of recorded test "
            "images after the last epoch: 1 for features that are equal up to rotation and scale, about 0 for "
            "unrelated ones. `same seed`: all pairs of the complete runs of a cell and arm (of more than "
            f"{LAYER_RUNS}, the first {LAYER_RUNS}), mean over the cells, least and greatest over all pairs; `other "
            f"seeds`: one run of each seed, all pairs. {free_note(study)}"
        ),
        columns=COLUMNS,
        rows=[row for setting in study.settings() for row in _rows(setting)],
        notes=(*left_out(study), *([missing] if missing else [])),
    )
    return [table]


def _rows(setting: Setting) -> Iterator[dict[str, Any]]:
    study, task = setting.study, setting.task
    shape = study.features_shape(task)
    if shape is None:
        return
    places = {row: place for place, row in enumerate(study.layer_rows(task))}

    def compared(rows: list[int]) -> tuple[int, CosineSummary]:
        kept = [places[row] for row in rows if row in places]
        return len(kept), debiased_cka(np.array(study.features(task)[kept]))

    def row(comparison: str, cells: int, pairs: int, summaries: list[CosineSummary], why: str) -> dict[str, Any]:
        means, least, most = (
            [value for summary in summaries if (value := getattr(summary, name)) is not None]
            for name in ("mean", "minimum", "maximum")
        )
        return {
            **{**setting.identity, "comparison": comparison, "images_recorded": shape[0], "features": shape[1]},
            **{"cells": cells, "pairs": pairs, "cka_mean": describe.mean(means)},
            "cka_min": min(least, default=None),
            "cka_max": max(most, default=None),
            "remark": why or remarks(*(summary.reason for summary in summaries)),
        }

    for arm in study.paired_arms:
        several = [
            (n, similarity) for n, similarity in (compared(group.rows) for group in setting.groups(arm)) if n > 1
        ]
        pairs, why = sum(n * (n - 1) // 2 for n, _ in several), "" if several else "no cell with two complete runs"
        yield row(f"{arm}, same seed", len(several), pairs, [similarity for _, similarity in several], why)
    label, rows = setting.one_run_a_seed
    n, similarity = compared(rows)
    comparison = f"{label}, other seeds" if label else "other seeds"
    yield row(comparison, n, n * (n - 1) // 2, [similarity], "fewer than two seeds" if n < 2 else "")


def sentences(draft: Draft) -> list[str]:
    """How alike the features of twins are, and those of seeds."""
    study, lines = draft.study, []
    for task in study.tasks:
        table = chosen(draft.frame("features"), task=task)
        table = table[table["cka_mean"].notna()]
        twins = chosen(table, comparison=f"{study.free_arm}, same seed")
        seeds = table[table["comparison"].str.endswith("other seeds")]
        if len(twins):
            text = f"{study.title(task)}: the features of {study.free_arm} twins have a debiased CKA of "
            text += span(twins["cka_mean"], ".2f")
            text += f", those of other seeds of {span(seeds['cka_mean'], '.2f')}" if len(seeds) else ""
            named = 'table "Features of twins beside features of seeds"'
            lines.append(f"{text} ({plural(len(twins), 'optimizer')}; {named}).")
    return lines


SECTION = Section(
    "features",
    "Features",
    tables=tables,
    sentences=sentences,
    needs="weights",
    filled_by=f"`features` in the recipe (0: none are recorded), and {TWO_FREE}",
)
