"""The data of Figures 5.7-5.9: whole-run times, deterministic against free, with what confounds them."""

from __future__ import annotations

import pandas as pd

from twinrun.collect.study import Cell, Study
from twinrun.report.names import nd_noise
from twinrun.report.sections.tables_performance import absence
from twinrun.report.table import Table, plural, remarks
from twinrun.stats import describe as statistics

CONFOUNDED = (
    "Whole-run times are confounded: single runs, not interleaved, on machines whose load and clocks vary, without an "
    "A/A control. They are shown as the thesis showed them and prove no cost; the paired measurement is `twinrun cost`."
)


def truth(values: pd.Series) -> pd.Series:
    """A column of measured.csv that is true or false, as booleans."""
    return values.astype(str).str.lower().eq("true")


def timed_runs(study: Study, cell: Cell, arm: str) -> pd.DataFrame:
    """The complete runs of an arm of a cell with what was measured of them."""
    runs = study.runs(cell, arm)[["id"]]
    return study.measured.iloc[[study.place(one) for one in runs["id"]]]


def runtime_table(study: Study) -> Table:
    """Per cell: seconds of the nd and the deterministic runs, their difference, and the runs that were set aside."""
    rows = []
    for cell in study.cells():
        sides = {arm: timed_runs(study, cell, arm) for arm in ("nd", "det")}
        both = pd.concat(sides.values())
        resumed = truth(both["resumed"])
        shared = truth(both["shared"]) if "shared" in both else resumed & False
        seconds = {
            arm: pd.to_numeric(side.loc[~truth(side["resumed"]), "train_seconds"]).dropna()
            for arm, side in sides.items()
        }
        mean_nd, mean_det = statistics.mean(seconds["nd"]), statistics.mean(seconds["det"])
        rows.append(
            {
                "task": cell.task,
                "optimizer": cell.optimizer,
                "seed": cell.seed,
                "n_nd": len(seconds["nd"]),
                "seconds_nd": mean_nd,
                "seconds_sd_nd": statistics.sample_sd(seconds["nd"]),
                "n_det": len(seconds["det"]),
                "seconds_det": mean_det,
                "overhead_percent": statistics.difference_percent(mean_det, mean_nd),
                "resumed": int(resumed.sum()),
                "shared": int(shared.sum()),
                "cost_claim": "no: shared" if shared.any() else "no: resumed" if resumed.any() else "no: confounded",
                "remark": remarks(
                    *(absence(study, cell, arm) for arm in ("nd", "det")),
                    *(
                        f"no {arm} run has a time of its own: resumed or not measured"
                        for arm in ("nd", "det")
                        if len(sides[arm]) and seconds[arm].empty
                    ),
                    "one timed nd run: no SD" if len(seconds["nd"]) == 1 else "",
                ),
            }
        )
    frame = pd.DataFrame(rows)
    notes = [CONFOUNDED]
    if frame["shared"].sum():
        notes.append(
            f"{plural(int(frame['shared'].sum()), 'run')} shared a machine with other runs: their seconds are shown, "
            "no cost is claimed from them."
        )
    if frame["resumed"].sum():
        notes.append(f"{int(frame['resumed'].sum())} resumed runs have no time of their own and are left out.")
    return Table(
        name="runtime",
        thesis_name="data of Figures 5.7-5.9",
        title="Runtime of whole runs",
        caption=(
            "Training seconds of the complete runs of a cell: mean and sample SD of the nd runs "
            f"({nd_noise(study)}), mean of the deterministic ones, and 100 (det - nd) / nd in percent."
        ),
        frame=frame,
        notes=tuple(notes),
    )
