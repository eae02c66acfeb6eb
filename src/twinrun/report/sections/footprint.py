"""Table 6.1: energy and carbon of the study, measured where it was, and by the thesis's formula."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from twinrun.collect.load import check_measured, read_frame
from twinrun.collect.study import Study
from twinrun.report.table import Table, remarks

JOULES_PER_KWH = 3.6e6
# Board power limits in watts, from the manufacturers' data sheets; names as the driver gives them.
BOARD_POWER = {
    "NVIDIA RTX A6000": 300.0,
    "NVIDIA A100-SXM4-40GB": 400.0,
    "NVIDIA A100-SXM4-80GB": 400.0,
    "NVIDIA H100 80GB HBM3": 700.0,
    "NVIDIA H200": 700.0,
    "Tesla V100-SXM2-32GB": 300.0,
    "Tesla T4": 70.0,
}


@dataclass(frozen=True)
class Inputs:
    """What the formula takes and nobody measured; each is stated beside the result."""

    kg_per_kwh: float = 0.385  # carbon intensity, as in the thesis's Table 6.1
    pue: float = 1.0  # power usage effectiveness; the thesis's formula has none. Surveyed data centres: about 1.6
    watts: Mapping[str, float] = field(default_factory=lambda: BOARD_POWER)  # by the name of the GPU

    @property
    def sentence(self) -> str:
        """The inputs for a caption."""
        return f"{self.kg_per_kwh:g} kg CO2 per kWh (as in the thesis), PUE {self.pue:g}"


def formula_kwh(watts: float, seconds: float, pue: float) -> float:
    """Energy by the ML CO2 Impact calculator's formula: power x time (Lacoste et al. 2019), times PUE.

    >>> formula_kwh(300, 3600, 1.0)
    0.3
    """
    return watts * seconds * pue / JOULES_PER_KWH


def carbon_kg(kwh: float, kg_per_kwh: float) -> float:
    """Carbon dioxide equivalent of an energy; 233.14 kWh at 0.385 are 89.76 kg, not the thesis's 89.86.

    >>> round(carbon_kg(233.14, 0.385), 2)
    89.76
    """
    return kwh * kg_per_kwh


def footprint_table(study: Study, inputs: Inputs | None = None) -> Table:
    """Per task and in sum: kWh and kg CO2 of the experiment's runs and of all attempts."""
    inputs = inputs or Inputs()
    measured = study.measured.assign(task=study.results["task"].to_numpy())
    left = unfinished(study)
    groups = [(task, measured[measured["task"] == task], left[left["task"] == task]) for task in study.tasks]
    if len(groups) > 1:
        groups.append(("all tasks", measured, left))
    rows = [row for task, group, others in groups for row in _rows(task, group, others, inputs)]
    strange = sorted(set(left["task"]) - set(study.tasks))
    return Table(
        name="footprint",
        thesis_name="Table 6.1",
        title="Energy and carbon",
        caption=(
            "`measured`: joules read from the counters of the GPU or processor, times PUE. `formula`: board power x "
            "seconds of the whole run x PUE, as in the thesis; power from the manufacturer's data sheet. CO2 = kWh x "
            f"carbon intensity: {inputs.sentence}. `experiment`: the runs of the grid; `all, at most`: every attempt "
            "that was started, each counted as a whole run: those at the runs of the grid, and those left in work/ "
            "(interrupted, or of other grids), which are counted as mean runs of their task. The time and energy of "
            "an attempt that was killed is not recorded, so the truth lies between the two. Runs in other folders, "
            "preparation and analysis are in neither. Lost: attempts that left no record."
        ),
        frame=pd.DataFrame(rows),
        notes=(f"Attempts in work/ at tasks that this study has not: {', '.join(strange)}.",) if strange else (),
    )


def unfinished(study: Study) -> pd.DataFrame:
    """Attempts in work/ that left no record when the study was collected: id, task, attempts."""
    path = study.folder / "unfinished.csv"
    if not path.is_file():  # collected by an earlier version
        return pd.DataFrame({"id": [], "task": [], "attempts": np.empty(0)})
    frame = read_frame(path, ("id", "task"), ("id", "task", "attempts"))
    check_measured(frame, path)
    return frame


def _rows(task: str, group: pd.DataFrame, left: pd.DataFrame, inputs: Inputs) -> list[dict[str, Any]]:
    attempts = pd.to_numeric(_column(group, "attempts")).fillna(1).clip(lower=1)
    ways = {"measured": _measured(group, inputs), "formula": _formula(group, inputs)}
    rows = []
    for scope, times in (("experiment", attempts * 0 + 1), ("all, at most", attempts)):
        for way, (kwh, why) in ways.items():
            known = kwh.notna()
            # One run without a value makes the sum unknown: a part is never shown as the whole.
            total = math.fsum(kwh * times) if known.all() and len(kwh) else math.nan
            others = 0 if scope == "experiment" else int(left["attempts"].sum())
            if others:
                total += math.fsum(kwh) / len(kwh) * others if len(kwh) else math.nan
            rows.append(
                {
                    "task": task,
                    "scope": scope,
                    "way": way,
                    "runs": int(times.sum()) + others,
                    "lost": int(times.sum()) - len(times) + others,
                    "known": int(times[known].sum()),
                    "kwh": total,
                    "co2_kg": carbon_kg(total, inputs.kg_per_kwh),
                    "remark": "" if known.all() else remarks(why, f"known of {int(known.sum())} of {len(kwh)} runs"),
                }
            )
    return rows


def _column(group: pd.DataFrame, name: str) -> pd.Series:
    return group[name] if name in group else pd.Series(math.nan, index=group.index)


def _measured(group: pd.DataFrame, inputs: Inputs) -> tuple[pd.Series, str]:
    joules = pd.to_numeric(_column(group, "energy_joules"))
    notes = sorted(
        {str(note).removeprefix("not measured: ") for note in _column(group[joules.isna()], "energy_note").dropna()}
    )
    return joules * inputs.pue / JOULES_PER_KWH, f"not available: {'; '.join(notes) or 'no counter was read'}"


def _formula(group: pd.DataFrame, inputs: Inputs) -> tuple[pd.Series, str]:
    gpus, seconds = _column(group, "host.gpu"), pd.to_numeric(_column(group, "total_seconds"))
    kwh = gpus.map(dict(inputs.watts)).astype(float) * seconds * inputs.pue / JOULES_PER_KWH
    unknown = sorted({str(name) for name in gpus.dropna() if name not in inputs.watts})
    reasons = [
        f"the power of {', '.join(unknown)} is not known" if unknown else "",
        "runs without a GPU: a processor's power is not known" if gpus.isna().any() else "",
        "resumed runs have no time of the whole run" if seconds.isna().any() else "",
    ]
    return kwh, f"not available: {remarks(*reasons)}"
