"""Where the runs part: what `twinrun locate` found for each task, as a table and in words."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from twinrun.collect.first_difference import Located, Parting, place, read_located
from twinrun.collect.study import Study
from twinrun.report.sections.figures_parting import growth_figure
from twinrun.report.style import Drawn
from twinrun.report.table import Table, missing
from twinrun.study.errors import TwinrunError
from twinrun.study.layout import Layout

ABSENT = "not located: run `twinrun locate --all`, or `dvc repro -sf locate` where DVC has noted an empty result"
STALE = "located for other runs than these: run `twinrun locate --all` again"
FIRST, ROUNDING = "first difference", "first other rounding"
COLUMNS = (
    "task", "pair", "found", "parted_in", "phase", "operation", "module", "tensor", "differing", "difference_kind",
    "ulps_max", "ulps_median", "remark",
)  # fmt: skip


def partings(study: Study) -> dict[str, Located | str]:
    """What was located for each task beside the collected study, or why there is nothing to show."""
    folder = Layout(study.folder.parent).located
    return {task: _read(study, folder / f"{task}.json") for task in study.tasks}


def _read(study: Study, path: Path) -> Located | str:
    if not path.is_file():
        return ABSENT
    try:
        found = read_located(path)
    except TwinrunError as error:
        return error.message
    fingerprints = dict(zip(study.results["id"], study.results["fingerprint"], strict=True))
    mine = [fingerprints.get(run) for run in (found.first, found.second)]
    return found if mine == found.fingerprints and found.code_digest == study.info["code_digest"] else STALE


def parting_table(study: Study) -> Table:
    """A row for the first difference of each task's pair, and one for the first that is more than another order."""
    rows: list[dict[str, object]] = []
    for task, found in partings(study).items():
        if isinstance(found, str):
            rows.append({"task": study.title(task), "remark": found})
            continue
        pair: dict[str, object] = {
            "task": study.title(task),
            "pair": f"`{found.first}` and `{found.second.rpartition('/')[2]}`",
        }
        if found.outcome == "none":
            rows.append(pair | {"remark": "none: no difference was found"})
            continue
        pair["parted_in"] = f"epoch {found.epoch}, step {found.step}"
        if found.parting:
            rows.append(pair | {"found": FIRST} | _facts(found.parting))
        else:
            rows.append(pair | {"remark": "the step, but no operation of it, differed"})
        if found.arithmetic and found.arithmetic != found.parting:
            rows.append(pair | {"found": ROUNDING} | _facts(found.arithmetic))
    return Table(
        name="parting",
        thesis_name="",
        title="Where a deterministic and a free run part",
        caption=(
            "One pair of runs of each task (its first cell), trained again in lockstep: the first step and operation "
            "in which they differ to the last bit, and, where that is only the order of a batch's examples, the first "
            "operation that rounds otherwise. Ulps: representable numbers between the two values, over the elements "
            "that differ."
        ),
        frame=pd.DataFrame(rows, columns=list(COLUMNS)),
        notes=("By `twinrun locate --all`.",),
    )


def _facts(one: Parting) -> dict[str, object]:
    return {
        "phase": one.phase,
        "operation": one.operation + (" (opaque)" if one.opaque else ""),
        "module": place(one) if one.module else "",
        "tensor": one.tensor,
        "differing": f"{one.differ} of {one.elements}" if one.elements else "",
        "difference_kind": one.kind,
        "ulps_max": one.ulps_max,
        "ulps_median": one.ulps_median,
    }


def parting_figures(study: Study) -> list[Drawn]:
    """How the difference grows, for each task that was located."""
    found = partings(study).items()
    return [
        growth_figure(one, f"parting_{task}") for task, one in found if isinstance(one, Located) and len(one.growth) > 1
    ]


def parting_sentences(frame: pd.DataFrame) -> list[str]:
    """The table in words."""
    lines = []
    for row in frame.to_dict("records"):
        if not missing(row["remark"]) and row["remark"]:
            lines.append(f"{row['task']}: {row['remark']}.")
        elif row["found"] == FIRST:
            where = "" if missing(row["module"]) or not row["module"] else f" in {row['module']}"
            lines.append(
                f"{row['task']}: {row['pair']} part in {row['parted_in']}: {row['phase']}, {row['tensor']}{where}, "
                f"{row['differing']} elements ({row['difference_kind']})."
            )
        else:
            lines.append(
                f"{row['task']}: the first operation that rounds otherwise is `{row['operation']}` in {row['module']} "
                f"({row['phase']}): {row['tensor']}, {row['differing']} elements."
            )
    return lines
