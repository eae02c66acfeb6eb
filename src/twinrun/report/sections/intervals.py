"""How well mean and SD of every cell are known, and what can be said of normality."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from scipy import special

from twinrun.collect.study import Group, Setting, remarks
from twinrun.report import style as drawing
from twinrun.report.names import METRIC_LABELS, OPTIMIZER_LABELS, TWO_FREE, nd_phrase
from twinrun.report.section import Draft, Section, generator, with_interval
from twinrun.report.style import Drawn
from twinrun.report.table import CELL, METRIC, P_VALUE, REMARK, TWO_DIGITS, Column, N, Table, ends
from twinrun.stats import describe
from twinrun.stats.coverage import coverage_words
from twinrun.stats.intervals import mean_interval, sd_bootstrap, sd_chi_square
from twinrun.stats.normality import normal_scores, plot_positions, shapiro_wilk
from twinrun.study.errors import plural

COLUMNS = (
    *CELL,
    METRIC,
    N,
    Column("mean", "Mean", ".4f", "mean"),
    *ends("mean", "Mean", ".4f", "the 95 % t interval of the mean"),
    Column("sd_sample", "SD 1/(n-1)", TWO_DIGITS, "sample SD"),
    *ends("sd", "95 %", TWO_DIGITS, "the chi-square interval of the sample SD"),
    *ends("boot", "Bootstrap", TWO_DIGITS, "the 95 % studentized-bootstrap interval of the SD"),
    Column("w_shapiro", "W", ".3f", "of the Shapiro-Wilk test; near 1 for normal values"),
    Column("p_shapiro", "p Shapiro", P_VALUE, "of the Shapiro-Wilk test"),
    REMARK,
)
FRAME = 3.6  # scores beyond it are not drawn


def tables(draft: Draft) -> list[Table]:
    """Per cell and metric of the figures: mean, SD, their intervals, Shapiro-Wilk."""
    study = draft.study
    runs = max((group.n for group in study.groups("nd")), default=0)
    table = Table(
        name="intervals",
        title="How well mean and SD are known",
        caption=(
            f"The n {nd_phrase(study)} of each cell, 95 % intervals. Mean: mean +- t s / sqrt(n). SD: s sqrt((n-1) "
            "/ q) with chi-square quantiles q, exact for normal values; and a studentized bootstrap of log s^2, which "
            "does not assume them and needs five runs (percentile and BCa bootstraps of an SD cover 64 and 65 % "
            f"instead of 95 % at n = 5). The first {coverage_words('SD, chi-square', runs)}; the second "
            f"{coverage_words('SD, bootstrap', runs)}. W and p of the Shapiro-Wilk test: with 3 to 5 runs it finds "
            "only gross departures, so a large p is no evidence of normality."
        ),
        columns=COLUMNS,
        rows=[
            _row(group, metric)
            for group in study.groups(study.free_arm)
            for metric in study.metric_pair(group.cell.task)
        ],
    )
    return [table]


def _row(group: Group, metric: str) -> dict[str, Any]:
    cell, runs = group.cell, group.known(metric)
    mean, chi_square, shapiro = mean_interval(runs), sd_chi_square(runs), shapiro_wilk(runs)
    bootstrap = sd_bootstrap(runs, generator("sd", cell.task, cell.optimizer, cell.seed, metric))
    return {
        **group.identity,
        "metric": metric,
        "n": runs.size,
        **with_interval("mean", mean),
        "sd_sample": describe.sample_sd(runs),
        "sd_low": chi_square.low,
        "sd_high": chi_square.high,
        "boot_low": bootstrap.low,
        "boot_high": bootstrap.high,
        "w_shapiro": shapiro.statistic,
        "p_shapiro": shapiro.p,
        "remark": remarks(
            group.why(2, metric),
            f"SD interval {chi_square.reason}" if chi_square.reason else "",
            f"bootstrap {bootstrap.reason}" if bootstrap.reason else "",
            f"Shapiro-Wilk {shapiro.reason}" if shapiro.reason else "",
        ),
    }


def figures(draft: Draft) -> list[Drawn]:
    """Q-Q plots of the runs of all cells, each on the scale of its own mean and SD: a panel per task and optimizer."""
    study, total, kept_cells = draft.study, 0, 0
    rows, columns = len(study.tasks), len(study.optimizers)
    with drawing.style():
        figure, grid = drawing.new_figure(0.7 + 1.9 * rows, rows, columns, sharex=True, sharey=True)
        panels = [axes for row in grid for axes in row]
        # An import may lack a model of a task: its panel says so.
        for axes, (task, optimizer) in zip(panels, product(study.tasks, study.optimizers), strict=True):
            setting = Setting(study, task, optimizer)
            title = drawing.title_of(study, setting.task).partition(" (")[0]
            axes.set_title(f"{title}, {OPTIMIZER_LABELS[setting.optimizer]}")
            cells = [normal_scores(values)[0] for values in setting.samples(study.free_arm, setting.metric)]
            cells = [scores for scores in cells if scores.size]
            if not cells:
                drawing.not_available(axes, "no cell with three\nruns that differ")
                continue
            scores = np.sort(np.concatenate(cells))
            n, total, kept_cells = scores.size, total + scores.size, kept_cells + len(cells)
            places, ranks = plot_positions(n), np.arange(1, n + 1)
            # Where an ordered value of n independent normal ones lies 95 % of the time.
            low, high = (special.ndtri(special.betaincinv(ranks, n + 1 - ranks, tail)) for tail in (0.025, 0.975))
            axes.fill_between(places, low, high, color="#cccccc", linewidth=0, alpha=0.7)
            axes.axline((0, 0), slope=1, color=drawing.GREY, linewidth=0.8, linestyle="--")
            look = drawing.look(study, setting.optimizer)
            axes.plot(places, scores, look["marker"], color=look["color"], markersize=3)
        grid[0][0].set(xlim=(-FRAME, FRAME), ylim=(-FRAME, FRAME))
        figure.supxlabel("expected of normal values", fontsize=9)
        figure.supylabel("score of the run", fontsize=9)
    if not total:
        return []
    metrics = ", ".join(dict.fromkeys(METRIC_LABELS[study.main_metric(task)] for task in study.tasks))
    return [
        Drawn(
            name="normality",
            title="Are runs normally distributed?",
            caption=(
                f"Q-Q plot of the main metric ({metrics}) of the {nd_phrase(study)}, n = {plural(total, 'run')} of "
                f"{plural(kept_cells, 'cell')} of three or more that are not all equal. A run's "
                "score is its distance from the other runs of its "
                "cell, put on the standard normal scale by Student's t (externally studentized residual, n - 2 degrees "
                "of freedom), so that cells of few runs may be pooled. Normal values lie on the dashed line, 95 % of "
                "the time within the band (pointwise, for independent values; runs of one cell depend on each other a "
                "little). Steps are ties: a small test set allows few values. Scores beyond the frame are not shown."
            ),
            alt=(
                f"Grid of {rows} by {columns} Q-Q plots of {plural(total, 'run')} against the normal distribution, "
                "with a 95 percent band."
            ),
            figure=figure,
        )
    ]


SECTION = Section("intervals", "How well mean and SD are known", filled_by=TWO_FREE, tables=tables, figures=figures)
