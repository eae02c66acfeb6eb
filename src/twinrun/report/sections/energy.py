"""Table 6.1: energy and carbon of the study, measured where it was, and by the thesis's formula."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from twinrun.collect.load import check_measured, read_frame
from twinrun.collect.study import Study, remarks
from twinrun.report.section import Draft, Section, chosen
from twinrun.report.table import REMARK, RUNS, TASK, Column, Table
from twinrun.report.thesis.tables import footprint_notes
from twinrun.stats import footprint
from twinrun.study.errors import plural

COLUMNS = (
    TASK,
    Column("scope", "Runs of", "", "the experiment's runs, or all attempts"),
    Column("way", "Way", "", "measured by counters, or by the thesis's formula"),
    RUNS,
    Column("lost", "Lost", "d", "attempts among them that left no record: interrupted, or still in work/"),
    Column("known", "Known", "d", "runs whose energy is known"),
    Column("kwh", "kWh", ".4g", "energy"),
    Column("co2_kg", "CO2 kg", ".4g", "carbon dioxide equivalent"),
    REMARK,
)


def tables(draft: Draft) -> list[Table]:
    """Per task and in sum: kWh and kg CO2 of the experiment's runs and of all attempts."""
    study = draft.study
    measured = study.measured.assign(task=study.results["task"].to_numpy())
    left = unfinished(study)
    groups = [(task, chosen(measured, task=task), chosen(left, task=task)) for task in study.tasks]
    if len(groups) > 1:
        groups.append(("all tasks", measured, left))
    strange = sorted(set(left["task"]) - set(study.tasks))
    notes = (f"Attempts in work/ at tasks that this study has not: {', '.join(strange)}.",) if strange else ()
    table = Table(
        name="footprint",
        title="Energy and carbon",
        caption=(
            "`measured`: joules read from the counters of the GPU or processor, times PUE. `formula`: board power x "
            "seconds of the whole run x PUE, as in the thesis; power from the manufacturer's data sheet. CO2 = kWh x "
            f"carbon intensity: {footprint.inputs_words()}. `experiment`: the runs of the grid; `all, at most`: every "
            "attempt that was started, each counted as a whole run: those at the runs of the grid, and those left in "
            "work/ (interrupted, or of other grids), which are counted as mean runs of their task. The time and energy "
            "of an attempt that was killed is not recorded, so the truth lies between the two. Runs in other folders, "
            "preparation and analysis are in neither. Lost: attempts that left no record."
        ),
        columns=COLUMNS,
        rows=[row for task, group, others in groups for row in _rows(task, group, others)],
        thesis_name="Table 6.1",
        notes=(*footprint_notes(), *notes),
    )
    return [table]


def unfinished(study: Study) -> pd.DataFrame:
    """Attempts in work/ that left no record when the study was collected: id, task, attempts."""
    path = study.folder / "unfinished.csv"
    if not os.path.lexists(path):  # collected by an earlier version
        return pd.DataFrame({"id": [], "task": [], "attempts": np.empty(0)})
    frame = read_frame(path, ("id", "task"), ("id", "task", "attempts"))
    check_measured(frame, path)
    return frame


def _rows(task: str, group: pd.DataFrame, left: pd.DataFrame) -> Iterator[dict[str, Any]]:
    attempts = pd.to_numeric(_column(group, "attempts")).fillna(1).clip(lower=1)
    ways = {"measured": _measured(group), "formula": _formula(group)}
    for scope, times in (("experiment", attempts * 0 + 1), ("all, at most", attempts)):
        others = 0 if scope == "experiment" else int(left["attempts"].sum())
        for way, (kwh, why) in ways.items():
            known = kwh.notna()
            # One run without a value makes the sum unknown: a part is never shown as the whole.
            total = math.fsum(kwh * times) if known.all() and len(kwh) else math.nan
            if others:
                total += math.fsum(kwh) / len(kwh) * others if len(kwh) else math.nan
            yield {
                "task": task,
                "scope": scope,
                "way": way,
                "runs": int(times.sum()) + others,
                "lost": int(times.sum()) - len(times) + others,
                "known": int(times[known].sum()),
                "kwh": total,
                "co2_kg": footprint.carbon_kg(total),
                "remark": "" if known.all() else remarks(why, f"known of {int(known.sum())} of {len(kwh)} runs"),
            }


def _column(group: pd.DataFrame, name: str) -> pd.Series:
    return group[name] if name in group else pd.Series(math.nan, index=group.index)


def _measured(group: pd.DataFrame) -> tuple[pd.Series, str]:
    joules = pd.to_numeric(_column(group, "energy_joules"))
    notes = sorted(
        {str(note).removeprefix("not measured: ") for note in _column(group[joules.isna()], "energy_note").dropna()}
    )
    return joules.map(footprint.kwh), f"not available: {'; '.join(notes) or 'no counter was read'}"


def _formula(group: pd.DataFrame) -> tuple[pd.Series, str]:
    gpus, seconds = _column(group, "host.gpu"), pd.to_numeric(_column(group, "total_seconds"))
    kwh = (gpus.map(footprint.BOARD_POWER).astype(float) * seconds).map(footprint.kwh)
    unknown = sorted({str(name) for name in gpus.dropna() if name not in footprint.BOARD_POWER})
    reasons = [
        f"the power of {', '.join(unknown)} is not known" if unknown else "",
        "runs without a GPU: a processor's power is not known" if gpus.isna().any() else "",
        "resumed runs have no time of the whole run" if seconds.isna().any() else "",
    ]
    return kwh, f"not available: {remarks(*reasons)}"


def sentences(draft: Draft) -> list[str]:
    """Energy and carbon of the experiment, by both ways."""
    table, lines = draft.frame("footprint"), []
    total = chosen(table, task=table["task"].iloc[-1], scope="experiment")
    for row in total.to_dict("records"):
        if pd.notna(row["kwh"]):
            lines.append(
                f"The experiment's {plural(int(row['runs']), 'run')} took {row['kwh']:.4g} kWh, "
                f'{row["co2_kg"]:.4g} kg CO2 ({row["way"]}; table "Energy and carbon").'
            )
        else:
            lines.append(f"Energy ({row['way']}): {row['remark']}.")
    return lines


SECTION = Section(
    "energy",
    "Energy and carbon",
    tables=tables,
    sentences=sentences,
    needs="measurements",
    filled_by="energy counters (NVML's of a GPU, RAPL's of a processor), or a GPU whose power is known",
)
