"""Figures 5.7-5.9 and their data: whole-run times, deterministic against free, with what confounds them."""

from __future__ import annotations

import pandas as pd

from twinrun.collect.study import Group, Study, remarks
from twinrun.report import style as drawing
from twinrun.report.names import DET_AND_ND, nd_noise, nd_phrase, thesis_name
from twinrun.report.section import Draft, Section, chosen
from twinrun.report.style import Drawn
from twinrun.report.table import CELL, REMARK, Column, Table, counts, span
from twinrun.stats import describe
from twinrun.study.errors import plural

CONFOUNDED = (
    "Whole-run times are confounded: single runs, not interleaved, on machines whose load and clocks vary, without an "
    "A/A control. They are shown as the thesis showed them and prove no cost; the paired measurement is `twinrun cost`."
)
COLUMNS = (
    *CELL,
    Column("n_nd", "n nd", "d", "complete nd runs with a time of their own"),
    Column("seconds_nd", "Seconds nd", ".2f", "training seconds, mean of the nd runs"),
    Column("seconds_sd_nd", "SD nd", ".2f", "sample SD of the nd runs' training seconds"),
    Column("n_det", "n det", "d", "complete deterministic runs with a time of their own"),
    Column("seconds_det", "Seconds det", ".2f", "training seconds, mean of the deterministic runs"),
    Column("overhead_percent", "Difference %", "+.1f", "100 (det - nd) / nd of the training seconds; confounded"),
    Column("resumed", "Resumed", "d", "runs that were interrupted and resumed; they have no time of their own"),
    Column("shared", "Shared", "d", "runs that shared their machine with others"),
    Column("cost_claim", "Cost claim", "", "whether a cost may be read off"),
    REMARK,
)


def truth(values: pd.Series) -> pd.Series:
    """A column of measured.csv that is true or false, as booleans."""
    return values.astype(str).str.lower().eq("true")


def tables(draft: Draft) -> list[Table]:
    """Per cell: seconds of the nd and the deterministic runs, their difference, and the runs that were set aside."""
    study = draft.study
    pairs = zip(study.groups("nd"), study.groups("det"), strict=True)
    rows = [_row({"nd": free, "det": fixed}) for free, fixed in pairs]
    shared, resumed = (sum(row[name] for row in rows) for name in ("shared", "resumed"))
    notes = [CONFOUNDED]
    if shared:
        notes.append(
            f"{plural(shared, 'run')} shared a machine with other runs: their seconds are shown, "
            "no cost is claimed from them."
        )
    if resumed:
        notes.append(f"{resumed} resumed runs have no time of their own and are left out.")
    table = Table(
        name="runtime",
        title="Runtime of whole runs",
        caption=(
            "Training seconds of the complete runs of a cell: mean and sample SD of the nd runs "
            f"({nd_noise(study)}), mean of the deterministic ones, and 100 (det - nd) / nd in percent."
        ),
        columns=COLUMNS,
        rows=rows,
        thesis_name="data of Figures 5.7-5.9",
        notes=tuple(notes),
    )
    return [table]


def _row(sides: dict[str, Group]) -> dict[str, int]:
    both = pd.concat([group.measured for group in sides.values()])
    resumed = truth(both["resumed"])
    shared = truth(both["shared"]) if "shared" in both else resumed & False
    seconds = {
        arm: pd.to_numeric(group.measured.loc[~truth(group.measured["resumed"]), "train_seconds"]).dropna()
        for arm, group in sides.items()
    }
    mean_nd, mean_det = describe.mean(seconds["nd"]), describe.mean(seconds["det"])
    return {
        **sides["nd"].identity,
        "n_nd": len(seconds["nd"]),
        "seconds_nd": mean_nd,
        "seconds_sd_nd": describe.sample_sd(seconds["nd"]),
        "n_det": len(seconds["det"]),
        "seconds_det": mean_det,
        "overhead_percent": describe.difference_percent(mean_det, mean_nd).value,
        "resumed": int(resumed.sum()),
        "shared": int(shared.sum()),
        "cost_claim": "no: shared" if shared.any() else "no: resumed" if resumed.any() else "no: confounded",
        "remark": remarks(
            *(group.why() for group in sides.values()),
            *(
                f"no {arm} run has a time of its own: resumed or not measured"
                for arm, group in sides.items()
                if group.n and seconds[arm].empty
            ),
            "one timed nd run: no SD" if len(seconds["nd"]) == 1 else "",
        ),
    }


def figures(draft: Draft) -> list[Drawn]:
    """Figures 5.7-5.9, of the tasks with timed runs of both kinds."""
    by_task = ((task, chosen(draft.frame("runtime"), task=task)) for task in draft.study.tasks)
    return [_figure(draft.study, task, data) for task, data in by_task if data["overhead_percent"].notna().any()]


def _figure(study: Study, task: str, data: pd.DataFrame) -> Drawn:
    """Difference in percent, with the SD of the nd runs."""
    shared = int(data["shared"].sum())
    with drawing.style():
        figure, grid = drawing.new_figure(3.0)
        axes = grid[0][0]
        # Pale: nothing here is a measured cost.
        drawing.difference_panel(axes, data, study, ("overhead_percent", "seconds_nd", "seconds_sd_nd"), 0.6)
        axes.set_xlabel("seed")
        axes.set_ylabel("100 (det - nd) / nd  (%)")
        figure.suptitle(drawing.fitted(f"{drawing.title_of(study, task)}: runtime (confounded)"), fontsize=10)
        drawing.optimizer_legend(axes, study)
    return Drawn(
        name=f"runtime_{task}",
        title=f"{study.title(task)}: runtime of deterministic against free runs",
        caption=(
            f"Difference of the training seconds of the deterministic run from the mean of the {nd_phrase(study)} with "
            f"the same seed and optimizer, 100 (det - nd) / nd; nd {counts(data['n_nd'])}, det "
            f"{counts(data['n_det'])}. Grey whiskers around 0: one sample SD of the nd runs in percent of their mean. "
            "Confounded: whole runs, not interleaved, without an A/A control; bars of about the whiskers' length, and "
            "negative ones, are noise."
            + (f" {shared} of these runs shared their machine with others: no cost can be read off." if shared else "")
        ),
        alt=(
            "Bar chart per seed and optimizer of the runtime difference in percent; "
            f"{span(data['overhead_percent'], '+.1f')} percent."
        ),
        figure=figure,
        thesis_name=thesis_name(study, task, "runtime"),
    )


def sentences(draft: Draft) -> list[str]:
    """What may be said of runtime."""
    study = draft.study
    shared, resumed = (int(study.measured[key].astype(str).eq("True").sum()) for key in ("shared", "resumed"))
    known = draft.frame("runtime")["overhead_percent"].dropna()
    lines = ["No cost of deterministic mode is claimed here: whole-run times of single runs are confounded."]
    if shared or resumed:
        lines.append(
            f"Of {plural(len(study.results), 'run')} {shared} shared {'its' if shared == 1 else 'their'} machine with "
            f"others and {resumed} {'was' if resumed == 1 else 'were'} resumed."
        )
    if shared:
        lines.append(
            "What runs that share a machine take depends on the others: the differences in table "
            '"Runtime of whole runs" are noise of the machine.'
        )
    elif len(known):
        lines.append(
            f"The deterministic runs' training time differs from the nd runs' mean by {span(known, '+.1f')} "
            f"%; it is shorter in {int((known < 0).sum())} of {plural(len(known), 'cell')} "
            '(table "Runtime of whole runs").'
        )
    return lines


SECTION = Section(
    "runtime",
    "Runtime",
    tables=tables,
    figures=figures,
    sentences=sentences,
    needs="measurements",
    filled_by=DET_AND_ND,
)
