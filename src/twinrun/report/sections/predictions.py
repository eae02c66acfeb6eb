"""Churn: how often twins disagree, beside how often they err and how often runs of other seeds disagree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from twinrun.collect.study import Group, Setting, Study, remarks
from twinrun.report import style as drawing
from twinrun.report.names import (
    OPTIMIZER_LABELS,
    TWO_FREE,
    free_note,
    free_runs,
    left_out,
    nd_phrase,
    same_seed,
)
from twinrun.report.section import Draft, Section, chosen, with_interval
from twinrun.report.style import Drawn
from twinrun.report.table import CELLS, COMPARISON, GROUP, PAIRS, REMARK, SETTING, Column, N, Table, counts, ends, span
from twinrun.stats import churn, describe
from twinrun.stats.agreement import Agreement
from twinrun.stats.coverage import coverage_words
from twinrun.stats.pairs import churn_over_seeds
from twinrun.study.errors import plural

CHURN = Column("churn", "Churn", ".4f", "share of test examples on which two runs disagree, mean over all pairs")
ERROR = Column("error", "Error", ".4f", "share of test examples classified wrongly, mean of runs", digits_of="churn")
OVER_ERROR = Column("churn_over_error", "Churn / error", ".2f", "churn divided by error")
CELL_COLUMNS = (
    *GROUP,
    N,
    PAIRS,
    CHURN,
    *ends("churn", "Churn", ".4f", "the 95 % interval of churn, over images and runs"),
    ERROR,
    OVER_ERROR,
    REMARK,
)
ARM_COLUMNS = (
    *SETTING,
    COMPARISON,
    CELLS,
    PAIRS,
    CHURN,
    *ends("churn", "Churn", ".4f", "the 95 % interval of churn, over seeds and images"),
    ERROR,
    OVER_ERROR,
    Column(
        "churn_over_seeds",
        "Churn / churn of seeds",
        ".2f",
        "divided by churn between other seeds",
        digits_of="over_seeds",
        neutral=1,
    ),
    *ends("over_seeds", "Ratio", ".2f", "that ratio's 95 % interval, over seeds and images", neutral=1),
    REMARK,
)


def tables(draft: Draft) -> list[Table]:
    """Churn of twins beside that of seeds, then cell by cell."""
    study = draft.study
    seeds, runs = len(study.seeds), max((agreement.n for _, agreement in draft.agreements), default=0)
    arms = Table(
        name="churn_arms",
        title="Churn of twins beside churn of seeds",
        caption=(
            "`same seed`: churn within cells, mean over the cells; `other seeds`: mean over all pairs of runs of two "
            "seeds, so that the noise is in both. A last column near 1 means that the noise alone makes as much "
            "difference as new seeds do. Intervals, from three seeds on: t of the logarithm, its variance the "
            f"jackknife's over the seeds and that over the images; {coverage_words('churn, over seeds', seeds)}."
        ),
        columns=ARM_COLUMNS,
        rows=[row for setting in study.settings() for row in _arm_rows(draft, setting)],
        main=True,
    )
    cells = Table(
        name="churn",
        title="Churn of identical runs",
        caption=(
            "Churn is the share of test examples whose predicted class differs between two runs, averaged over all "
            "n(n-1)/2 pairs of the n complete runs of a cell and arm; error is their mean test error. A ratio near 1 "
            "means that twins differ about as often as they err. Interval: t of log churn, its variance the "
            "jackknife's over the runs and that over the images; two runs have none, for one pair says nothing of "
            "how runs differ (over several seeds they have: table above). It "
            f"{coverage_words('churn', runs)}. {free_note(study)}"
        ),
        columns=CELL_COLUMNS,
        rows=[_cell_row(group, agreement) for group, agreement in draft.agreements],
        notes=left_out(study),
    )
    return [arms, cells]


def _cell_row(group: Group, agreement: Agreement) -> dict[str, Any]:
    interval = f"interval {agreement.interval.reason}" if agreement.n > 1 and agreement.interval.reason else ""
    return {
        **group.identity,
        "n": agreement.n,
        "pairs": group.pairs,
        **with_interval("churn", agreement.interval),
        "error": agreement.error,
        "churn_over_error": agreement.churn_over_error,
        "remark": remarks(group.why(2), "no errors: no ratio" if agreement.error == 0 else "", interval),
    }


def _arm_rows(draft: Draft, setting: Setting) -> Iterator[dict[str, Any]]:
    """Churn per arm, averaged over the cells, and that between the seeds of the free arm."""
    study = setting.study
    free = study.free_arm if study.free_arm in study.arms else study.arms[0]
    control, counts = _between_seeds(setting.groups(free))
    few = "fewer than two seeds" if control["cells"] < 2 and study.seeds != ["any"] else ""
    no_ratio = few or ("seeds do not differ: no ratio" if control["churn"] == 0 else "")
    sizes = [group.n for group in setting.groups(free)]
    over_seeds = churn_over_seeds(counts, sizes)
    for arm in study.paired_arms:
        of_arm = [
            (group.pairs, agreement)
            for group, agreement in draft.agreements
            if (group.cell.task, group.cell.optimizer, group.arm) == (setting.task, setting.optimizer, arm)
        ]
        known = [(pairs, agreement) for pairs, agreement in of_arm if agreement.churn is not None]
        mean_churn, error = (
            describe.mean([getattr(agreement, name) for _, agreement in known]) for name in ("churn", "error")
        )
        over = churn_over_seeds(counts, sizes, [agreement.flips for _, agreement in of_arm])
        yield {
            **setting.identity,
            "comparison": same_seed(study, arm),
            "cells": len(known),
            "pairs": sum(pairs for pairs, _ in known),
            "churn": mean_churn,
            "churn_low": over.same.low,
            "churn_high": over.same.high,
            "error": error,
            "churn_over_error": churn.churn_ratio(mean_churn, error).value,
            "churn_over_seeds": churn.churn_ratio(mean_churn, control["churn"]).value,
            "over_seeds_low": over.ratio.low,
            "over_seeds_high": over.ratio.high,
            "remark": remarks(
                "" if known else "no cell with two complete runs",
                "no errors: no ratio" if error == 0 else "",
                no_ratio,
                f"interval {over.ratio.reason}" if known and over.ratio.reason else "",
            ),
        }
    if study.seeds == ["any"]:
        return
    yield {
        **setting.identity,
        "comparison": f"{free}, other seeds",
        **control,
        "churn_low": over_seeds.other.low,
        "churn_high": over_seeds.other.high,
        **dict.fromkeys(("churn_over_seeds", "over_seeds_low", "over_seeds_high"), 1.0 if control["churn"] else None),
        "remark": remarks(no_ratio, f"interval {over_seeds.other.reason}" if over_seeds.other.reason else ""),
    }


def _between_seeds(groups: list[Group]) -> tuple[dict[str, Any], list[NDArray[np.int64]]]:
    """Mean churn over the pairs of runs that have different seeds, the mean error of these runs, and their counts."""
    study, task = groups[0].study, groups[0].cell.task
    labels, classes = study.labels(task), len(study.classes(task))
    errors: list[float] = []

    def watched(rows: list[int]) -> Iterator[Any]:
        for predicted in map(churn.predicted_classes, study.stream(task, rows)):
            errors.append(churn.error(predicted, labels))
            yield predicted

    class_counts = [churn.class_counts(watched(group.rows), len(labels), classes) for group in groups]
    sizes = [group.n for group in groups]
    between, error = churn.churn_between(class_counts, sizes).value, describe.mean(errors)
    row = {
        "cells": sum(size > 0 for size in sizes),
        "pairs": churn.pairs_between(sizes),
        "churn": between,
        "error": error,
        "churn_over_error": churn.churn_ratio(between, error).value,
    }
    return row, class_counts


def figures(draft: Draft) -> list[Drawn]:
    """Churn of each cell against its error, with the line on which both are equal."""
    study, table = draft.study, draft.frame("churn")
    arms = [arm for arm in dict.fromkeys(table["arm"]) if arm != "det"]
    known = table[table["churn"].notna() & table["arm"].isin(arms)]
    if known.empty:
        return []
    limit = 100 * 1.3 * max(drawing.finite_max(known[name].tolist()) for name in ("churn", "error"))
    with drawing.style():
        figure, grid = drawing.new_figure(3.9 * len(arms) + 0.4, len(arms), 1)
        for arm, (axes,) in zip(arms, grid, strict=True):
            of_arm = chosen(known, arm=arm)
            if of_arm.empty or limit == 0:
                why = "no cell with two complete runs" if of_arm.empty else "no run errs and no two runs differ"
                drawing.not_available(axes, why)
                continue
            axes.plot([0, limit], [0, limit], color=drawing.GREY, linewidth=0.9, linestyle="--")
            for setting in study.settings():
                look, points = _look(setting), 100 * chosen(of_arm, **setting.identity)[list(_DRAWN)]
                axes.vlines(
                    points["error"], points["churn_low"], points["churn_high"], color=look["color"], linewidth=0.8,
                    alpha=0.6,
                )  # fmt: skip
                axes.plot(points["error"], points["churn"], linestyle="", **look)
            axes.set(xlim=(0, limit), ylim=(0, limit), xlabel="test error (%)", ylabel="churn (% of test images)")
            axes.set_aspect("equal")
            axes.grid(True, axis="both")
            axes.set_title(nd_phrase(study) if arm == study.free_arm else f"arm {arm}", loc="left")
        handles = [
            Line2D([], [], linestyle="", label=_label(setting), **_look(setting)) for setting in study.settings()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=1 if len(study.tasks) > 2 else 2)
    return [
        Drawn(
            name="churn_error",
            title="Churn against error",
            caption=(
                "One point per cell (task, optimizer, seed). Vertical: churn, the share of test images that two runs "
                f"of the cell classify differently, mean over all its n(n-1)/2 pairs ({counts(known['n'])} runs, "
                f"{int(known['pairs'].sum())} pairs in all). Horizontal: mean test error of the same runs. On the "
                "dashed line twins disagree as often as they err, which is what the literature finds for well-trained "
                "networks; below it they agree more. Whiskers: 95 % interval over images and runs (table "
                '"Churn of identical runs"), cut at the frame.'
            ),
            alt=(
                f"Scatter of {plural(len(known), 'cell')}: churn {span(known['churn'], '.1f', 100)} percent, error "
                f"{span(known['error'], '.1f', 100)} percent, churn over error "
                f"{span(known['churn_over_error'], '.2f')}."
            ),
            figure=figure,
        )
    ]


_DRAWN = ("churn", "churn_low", "churn_high", "error")


def _look(setting: Setting) -> dict[str, Any]:
    """A colour per task; a marker per optimizer, filled for Adam."""
    colour = drawing.SERIES[setting.study.tasks.index(setting.task) % len(drawing.SERIES)][0]
    return {
        "marker": drawing.look(setting.study, setting.optimizer)["marker"],
        "color": colour,
        "mfc": colour if setting.optimizer == "adam" or setting.study.imported else "none",
        "mew": 1.4,
        "markersize": 6,
    }


def _label(setting: Setting) -> str:
    return f"{drawing.title_of(setting.study, setting.task)}, {OPTIMIZER_LABELS[setting.optimizer]}"


def sentences(draft: Draft) -> list[str]:
    """How often twins disagree, beside how often they err and how often other seeds disagree."""
    return [_sentence(draft.study, task, chosen(draft.frame("churn_arms"), task=task)) for task in draft.study.tasks]


def _sentence(study: Study, task: str, table: pd.DataFrame) -> str:
    known = table[table["churn"].notna()]
    twins, other = (
        chosen(known, comparison=same_seed(study, study.free_arm)),
        known[known["comparison"].str.endswith("other seeds")],
    )
    if twins.empty:
        return f"{study.title(task)}: churn not available, no cell has two complete {free_runs(study)}."
    images, pairs = plural(study.info["tasks"][task]["n_test"], "test image"), int(twins["pairs"].sum())
    text = (
        f"{study.title(task)}: two {free_runs(study)}{'' if study.free_arm == 'all' else ' of the same seed'} disagree "
        f"on {100 * twins['churn'].mean():.1f} % of the {images} ({plural(pairs, 'pair')}), at an error of "
        f"{100 * twins['error'].mean():.1f} %"
    )
    if len(other):
        labels = " and ".join(dict.fromkeys(other["comparison"].str.removesuffix(", other seeds")))
        text += (
            f"; runs of different seeds disagree on {100 * other['churn'].mean():.1f} % "
            f"({plural(int(other['pairs'].sum()), 'pair')} of {labels} runs)"
        )
    return f"{text}."


SECTION = Section(
    "predictions",
    "Predictions",
    about=(
        "Two runs of equal accuracy may be wrong on different images. Churn counts the images on which they disagree."
    ),
    filled_by=TWO_FREE,
    tables=tables,
    figures=figures,
    sentences=sentences,
    needs="predictions",
)
