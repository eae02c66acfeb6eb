"""The first difference of two runs: what `twinrun locate` has for each task, in words, and how it grows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from twinrun.collect.first_difference import DifferingOperation, FirstDifference, place, read_first_difference
from twinrun.collect.study import Study
from twinrun.report import style as drawing
from twinrun.report.section import Draft, Section
from twinrun.report.style import Drawn
from twinrun.report.table import REMARK, TASK, Column, Table, missing
from twinrun.study.errors import ResourceError, TwinrunError
from twinrun.study.layout import Layout

ABSENT = "not located: run `twinrun locate --all`, or `dvc repro -sf locate` where DVC has noted an empty result"
NEEDS = "`twinrun locate --all`, or `dvc repro -sf locate` where DVC has noted an empty result"
STALE = "located for other runs than these: run `twinrun locate --all` again"
FIRST, ROUNDING = "first difference", "first other rounding"
COLUMNS = (
    TASK,
    Column("pair", "Runs", "", "the two runs"),
    Column(
        "found", "What", "", "the first difference of all, or the first that is more than another order of examples"
    ),
    Column("parted_in", "In", "", "epoch and step, counted from 1"),
    Column("phase", "Phase", "", "initialization, batch, augmentation, forward, backward or optimizer"),
    Column("operation", "Operation", "", "PyTorch's name; (draw) or (state): before any operation"),
    Column("module", "Module", "", "path and type in the model; (loss): outside of it"),
    Column("tensor", "Tensor", "", "a parameter, gradient or state by name, else the operation's own word"),
    Column("differing", "Elements", "", "how many differ"),
    Column("difference_kind", "Kind", "", "rounding and other values, another order, or another sign"),
    Column("ulps_max", "Ulps max", "d", "largest distance in units in the last place"),
    Column("ulps_median", "Ulps median", ".1f", "median distance over the elements that differ"),
    REMARK,
)


def tables(draft: Draft) -> list[Table]:
    """A row for the first difference of each task's pair, and one for the first that is more than another order.

    No rows and a note where no task was located.
    """
    located = _located(draft.study)
    answers = [(draft.study.title(task), answer) for task, answer in located.items()]
    absent = all(answer == ABSENT for answer in located.values())
    table = Table(
        name="parting",
        title="The first difference of a deterministic and a free run",
        caption=(
            "One pair of runs of each task (its first cell), trained again in lockstep: the first step and operation "
            "in which they differ to the last bit, and, where that is only the order of a batch's examples, the first "
            "operation that rounds otherwise. Ulps: representable numbers between the two values, over the elements "
            "that differ."
        ),
        columns=COLUMNS,
        rows=[row for title, answer in answers for row in _rows(title, answer) if not absent],
        notes=() if absent else ("By `twinrun locate --all`.",),
    )
    return [table]


def _located(study: Study) -> dict[str, FirstDifference | str]:
    """What was located for each task beside the collected study, or why there is nothing to show."""
    folder = Layout(study.folder.parent).located
    return {task: _read(study, folder / f"{task}.json") for task in study.tasks}


def _read(study: Study, path: Path) -> FirstDifference | str:
    if not os.path.lexists(path):
        return ABSENT
    try:
        difference = read_first_difference(path)
    except ResourceError:
        raise
    except TwinrunError as error:
        return error.message
    fingerprints = dict(zip(study.results["id"], study.results["fingerprint"], strict=True))
    same_runs = [fingerprints.get(run) for run in (difference.first, difference.second)] == difference.fingerprints
    return difference if same_runs and difference.code_digest == study.info["code_digest"] else STALE


def _rows(title: str, answer: FirstDifference | str) -> list[dict[str, Any]]:
    if isinstance(answer, str):
        return [{"task": title, "remark": answer}]
    pair: dict[str, Any] = {"task": title, "pair": f"`{answer.first}` and `{answer.second.rpartition('/')[2]}`"}
    if answer.outcome == "none":
        return [pair | {"remark": "none: no difference was found"}]
    pair["parted_in"] = f"epoch {answer.epoch}, step {answer.step}"
    rows = [pair | {"remark": "the step, but no operation of it, differed"}]
    if answer.parting:
        rows = [pair | {"found": FIRST} | _facts(answer.parting)]
    if answer.arithmetic and answer.arithmetic != answer.parting:
        rows.append(pair | {"found": ROUNDING} | _facts(answer.arithmetic))
    return rows


def _facts(difference: DifferingOperation) -> dict[str, Any]:
    return {
        "phase": difference.phase,
        "operation": difference.operation + (" (opaque)" if difference.opaque else ""),
        "module": place(difference) if difference.module else "",
        "tensor": difference.tensor,
        "differing": f"{difference.differ} of {difference.elements}" if difference.elements else "",
        "difference_kind": difference.kind,
        "ulps_max": difference.ulps_max,
        "ulps_median": difference.ulps_median,
    }


def figures(draft: Draft) -> list[Drawn]:
    """How the difference grows, for each task that was located."""
    return [
        growth_figure(answer, f"parting_{task}")
        for task, answer in _located(draft.study).items()
        if isinstance(answer, FirstDifference) and len(answer.growth) > 1
    ]


def growth_figure(difference: FirstDifference, name: str) -> Drawn:
    """Distance of the weights in length and in ulps, and predictions flipped, after the steps of `growth`."""
    steps = [row.step for row in difference.growth]
    with drawing.style():
        figure, grid = drawing.new_figure(5.4, rows=3, sharex=True)
        distance, ulps, flipped = (row[0] for row in grid)
        _line(distance, steps, [row.relative_l2 for row in difference.growth], drawing.BLUE, "o", None)
        distance.set_ylabel("|b - a| / |a|")
        _line(ulps, steps, [row.ulps_max for row in difference.growth], drawing.VERMILION, "s", "largest")
        _line(ulps, steps, [row.ulps_median for row in difference.growth], drawing.GREEN, "^", "median")
        ulps.set_ylabel("ulps")
        ulps.legend()
        predicted = [row for row in difference.growth if row.flipped is not None]
        shares = [100 * row.flipped / row.examples for row in predicted]  # type: ignore[operator]
        flipped.plot([row.step for row in predicted], shares, color=drawing.PURPLE, marker="D")
        flipped.set_ylabel("flipped (%)")
        flipped.set_ylim(bottom=0)
        flipped.set_xlabel("steps after the one in which they part")
        figure.suptitle(f"{difference.first} and {difference.second}", fontsize=9)
    return Drawn(
        name=name,
        title=f"{difference.first} and {difference.second}: how the difference grows",
        caption=(
            f"After the step of the first difference (step 0: epoch {difference.epoch}, step {difference.step}) and "
            "each of the following: relative distance of all weights (top), largest and median distance in units in "
            "the last place over the weights that differ (middle), share of the test examples with another predicted "
            "class, looked at after every tenth step, the last of an epoch and the last of all (bottom). A distance of "
            "0 does not show on the logarithmic axes; a weight that changes its sign is far in ulps. One pair of runs, "
            "n = 1."
        ),
        alt=(
            f"Three line charts over {steps[-1]} steps: distance of the weights, ulps, flipped predictions; at the end "
            f"{difference.growth[-1].flipped} of {difference.growth[-1].examples} predictions differ."
        ),
        figure=figure,
    )


def _line(
    axes: Axes,
    steps: list[int],
    values: list[float | None] | list[int | None],
    color: str,
    marker: str,
    label: str | None,
) -> None:
    points = [(step, value) for step, value in zip(steps, values, strict=True) if value]
    axes.plot([s for s, _ in points], [v for _, v in points], color=color, marker=marker, label=label)
    if points:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")


def sentences(draft: Draft) -> list[str]:
    """The table in words."""
    lines = []
    for row in draft.frame("parting").to_dict("records"):
        if not missing(row["remark"]) and row["remark"]:
            lines.append(f"{row['task']}: {row['remark']}.")
        elif row["found"] == FIRST:
            where = "" if missing(row["module"]) or not row["module"] else f" in {row['module']}"
            lines.append(
                f"{row['task']}: {row['pair']} first differ in {row['parted_in']}: {row['phase']}, {row['tensor']}"
                f"{where}, {row['differing']} elements ({row['difference_kind']})."
            )
        else:
            lines.append(
                f"{row['task']}: the first operation that rounds otherwise is `{row['operation']}` in {row['module']} "
                f"({row['phase']}): {row['tensor']}, {row['differing']} elements."
            )
    return lines


SECTION = Section(
    "first_difference",
    "The first difference",
    tables=tables,
    figures=figures,
    sentences=sentences,
    needs="weights",
    filled_by=NEEDS,
)
