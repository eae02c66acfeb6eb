"""Figures 5.7-5.9: runtime of deterministic against free runs, whole runs, marked as confounded."""

from __future__ import annotations

import pandas as pd

from twinrun.collect.study import Study
from twinrun.report import style as drawing
from twinrun.report.names import nd_phrase, runtime_figure_name
from twinrun.report.sections.figures import counts, difference_panel, optimizer_legend
from twinrun.report.style import Drawn
from twinrun.report.table import span


def runtime_figure(study: Study, task: str, table: pd.DataFrame) -> Drawn:
    """Figure 5.7, 5.8 or 5.9 from the frame of `runtime_table`: difference in percent, with the SD of the nd runs."""
    data = table[table["task"] == task]
    shared = int(data["shared"].sum())
    with drawing.style():
        figure, grid = drawing.new_figure(3.0)
        axes = grid[0][0]
        if data["overhead_percent"].notna().any():
            # Pale: nothing here is a measured cost.
            difference_panel(axes, data, study, ("overhead_percent", "seconds_nd", "seconds_sd_nd"), 0.6)
        else:
            drawing.not_available(axes, "no cell with timed det and nd runs")
        axes.set_xlabel("seed")
        axes.set_ylabel("100 (det - nd) / nd  (%)")
        figure.suptitle(drawing.fitted(f"{study.title(task)}: runtime (confounded)"), fontsize=10)
        optimizer_legend(axes, study)
    return Drawn(
        name=f"runtime_{task}",
        thesis_name=runtime_figure_name(study, task),
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
    )
