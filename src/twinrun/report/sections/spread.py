"""Figures 5.1-5.3 and their data: the SD of identical runs, per cell and arm."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from twinrun.collect.study import Group, Study, remarks
from twinrun.report import style as drawing
from twinrun.report.names import METRIC_LABELS, TWO_FREE, free_note, free_runs, nd_phrase, said, thesis_name
from twinrun.report.section import Draft, Section, chosen
from twinrun.report.style import Drawn
from twinrun.report.table import GROUP, METRIC, REMARK, TWO_DIGITS, Column, N, Table, counts, ends, span
from twinrun.stats import describe
from twinrun.stats.coverage import coverage_words
from twinrun.stats.intervals import robust_spread, sd_chi_square

COLUMNS = (
    *GROUP,
    METRIC,
    N,
    Column("mean", "Mean", ".4f", "mean", digits_of="sd_sample"),
    Column("sd_population", "SD 1/n", TWO_DIGITS, "population SD, as in the thesis's figures (eq. 5.1)"),
    Column("sd_sample", "SD 1/(n-1)", TWO_DIGITS, "sample SD"),
    *ends("sd", "95 %", TWO_DIGITS, "the chi-square interval of the sample SD"),
    Column("spread_robust", "Robust", TWO_DIGITS, "1.4826 times the median absolute deviation from the median"),
    Column("beyond", "Beyond 3", "d", "runs that lie more than 3 robust spreads from the median"),
    REMARK,
)
# An SD of three values is known to a factor of 6: whole whiskers would flatten the bars.
WHISKER_LIMIT = 3.0


def tables(draft: Draft) -> list[Table]:
    """SD of two metrics per cell, for every arm in which something is free."""
    study = draft.study
    arms = [arm for arm in study.arms if arm != "det"] or [study.free_arm]
    runs = max((group.n for group in study.groups(*arms)), default=0)
    table = Table(
        name="spread",
        title="Spread of identical runs",
        caption=(
            "SD over the n complete runs of a cell and arm: with 1/n as in the thesis's figures (eq. 5.1), with "
            "1/(n-1), and the 95 % chi-square interval of the latter, s sqrt((n-1)/q), which supposes a normal "
            f"distribution: it {coverage_words('SD, chi-square', runs)}. Robust: the median absolute deviation times "
            "1.4826, which is the SD of normal values and which single bad runs do not move (of few values too small, "
            "by a fifth at n = 5); where it is far below the SD, the runs beyond 3 of it make the SD. "
            f"{free_note(study)} Metrics in [0, 1]: 0.01 is one point."
        ),
        columns=COLUMNS,
        rows=[_row(group, metric) for group in study.groups(*arms) for metric in study.metric_pair(group.cell.task)],
        thesis_name="data of Figures 5.1-5.3",
        filled_by=TWO_FREE,
    )
    return [table]


def _row(group: Group, metric: str) -> dict[str, object]:
    values = group.values(metric)
    interval, robust = sd_chi_square(values), robust_spread(values)
    ties = group.n > 1 and len(np.unique(values)) == 1
    return {
        **group.identity,
        "metric": metric,
        "n": group.n,
        "mean": describe.mean(values),
        "sd_population": describe.population_sd(values),
        "sd_sample": describe.sample_sd(values),
        "sd_low": interval.low,
        "sd_high": interval.high,
        "spread_robust": robust.value,
        "beyond": robust.beyond,
        "remark": remarks(
            group.why(2, metric),
            "all runs have the same value: no interval" if ties else "",
            f"robust spread {robust.reason}" if robust.value is None and group.n > 1 and not ties else "",
        ),
    }


def figures(draft: Draft) -> list[Drawn]:
    """Figures 5.1-5.3, of the tasks with identical runs."""
    spread = chosen(draft.frame("spread"), arm=draft.study.free_arm)
    by_task = ((task, chosen(spread, task=task)) for task in draft.study.tasks)
    return [_sd_figure(draft.study, task, data) for task, data in by_task if data["sd_sample"].notna().any()]


def _sd_figure(study: Study, task: str, data: pd.DataFrame) -> Drawn:
    """Bars per seed and optimizer, one panel per metric."""
    spans = "; ".join(
        f"SD of {METRIC_LABELS[metric]} {span(chosen(data, metric=metric)['sd_sample'], '.2f', 100)} points"
        for metric in study.metric_pair(task)
    )
    limit = 100 * WHISKER_LIMIT * drawing.finite_max(data["sd_sample"].tolist()) or 1.0
    return Drawn(
        name=f"sd_{task}",
        title=f"{study.title(task)}: spread of identical runs",
        caption=(
            f"How far runs with the same {'' if study.free_arm == 'all' else 'seed and '}settings scatter. Bars: "
            "sample SD s, with 1/(n-1), over the "
            f"{nd_phrase(study)} of each seed and optimizer ({counts(data['n'])} per bar), in points (0.01 of a metric "
            "in [0, 1]). Black ticks: the thesis's SD with 1/n (eq. 5.1). Whiskers: 95 % chi-square interval of the "
            "SD, s sqrt((n-1)/q), for normal values; a triangle marks one that leaves the frame. Where "
            "whiskers overlap widely, unequal bars prove nothing. No bar: no two complete runs."
        ),
        alt=f"Bar chart per seed and optimizer; {spans}.",
        figure=drawing.metric_panels(
            study,
            task,
            lambda axes, metric: _sd_panel(axes, chosen(data, metric=metric), study, limit),
            said(study, "spread of identical runs"),
            f"SD of the {free_runs(study)} (points)",
            sharey=True,
        ),
        thesis_name=thesis_name(study, task, "sd"),
    )


def _sd_panel(axes: Axes, data: pd.DataFrame, study: Study, limit: float) -> None:
    if data["sd_sample"].notna().sum() == 0:
        drawing.not_available(axes, "no two complete runs")
        return
    places, width = drawing.grouped_positions(len(study.seeds), len(study.optimizers))
    for optimizer, centres in zip(study.optimizers, places, strict=True):
        bars, look = chosen(data, optimizer=optimizer), drawing.look(study, optimizer)
        columns = ("sd_sample", "sd_population", "sd_low", "sd_high")
        values, thesis, low, high = (
            [100 * value for value in drawing.by_seed(bars, study.seeds, name)] for name in columns
        )
        axes.bar(centres, values, 0.92 * width, color=look["color"], hatch=look["hatch"])
        axes.hlines(thesis, [c - 0.3 * width for c in centres], [c + 0.3 * width for c in centres], color="black")
        axes.vlines(centres, low, [min(value, limit) for value in high], color="#333333", linewidth=1)
        outside = [centre for centre, value in zip(centres, high, strict=True) if value > limit]
        if outside:  # an empty unclipped line would upset the layout
            axes.plot(outside, [limit] * len(outside), "^", color="#333333", markersize=4, clip_on=False)
        # A bar of height 0 cannot be seen: it is written.
        for centre, value in zip(centres, values, strict=True):
            if value == 0:
                axes.text(centre, 0.02 * limit, "0", ha="center", va="bottom", fontsize=8)
    axes.set_ylim(0, limit * 1.02)
    drawing.seed_ticks(axes, study.seeds)


SECTION = Section("spread", "Spread of identical runs", filled_by=TWO_FREE, tables=tables, figures=figures)
