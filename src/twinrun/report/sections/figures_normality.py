"""Normality shown: Q-Q plots of the runs of all cells, each on the scale of its own mean and SD."""

from __future__ import annotations

import numpy as np
from scipy import special

from twinrun.collect.study import Study
from twinrun.report import style as drawing
from twinrun.report.cell_values import CellValues
from twinrun.report.names import METRIC_LABELS, OPTIMIZER_LABELS, nd_phrase
from twinrun.report.style import Drawn
from twinrun.report.table import plural
from twinrun.stats.normality import normal_scores, plot_positions


def qq_figure(study: Study) -> Drawn:
    """Ordered scores of the nd runs' main metric against those of normal values, a panel per task and optimizer."""
    values, total, kept_cells = CellValues(study), 0, 0
    rows, columns = len(study.tasks), len(study.optimizers)
    with drawing.style():
        figure, grid = drawing.new_figure(0.7 + 1.9 * rows, rows, columns, sharex=True, sharey=True)
        for task, row in zip(study.tasks, grid, strict=True):
            metric = study.main_metric(task)
            for optimizer, axes in zip(study.optimizers, row, strict=True):
                axes.set_title(
                    f"{study.info['params'][task]['title'].partition(' (')[0]}, {OPTIMIZER_LABELS[optimizer]}"
                )
                cells = (cell for cell in study.cells(task) if cell.optimizer == optimizer)
                found = [normal_scores(values.free(cell, metric))[0] for cell in cells]
                found = [scores for scores in found if scores.size]
                if not found:
                    drawing.not_available(axes, "no cell with three\nnd runs that differ")
                    continue
                scores = np.sort(np.concatenate(found))
                n, total, kept_cells = scores.size, total + scores.size, kept_cells + len(found)
                places, ranks = plot_positions(n), np.arange(1, n + 1)
                # Where an ordered value of n independent normal ones lies 95 % of the time.
                low, high = (special.ndtri(special.betaincinv(ranks, n + 1 - ranks, tail)) for tail in (0.025, 0.975))
                axes.fill_between(places, low, high, color="#cccccc", linewidth=0, alpha=0.7)
                axes.axline((0, 0), slope=1, color=drawing.GREY, linewidth=0.8, linestyle="--")
                look = drawing.OPTIMIZER_STYLES[optimizer]
                axes.plot(places, scores, look["marker"], color=look["color"], markersize=3)
        limit = 3.6
        grid[0][0].set(xlim=(-limit, limit), ylim=(-limit, limit))
        figure.supxlabel("expected of normal values", fontsize=9)
        figure.supylabel("score of the run", fontsize=9)
    metrics = ", ".join(dict.fromkeys(METRIC_LABELS[study.main_metric(task)] for task in study.tasks))
    return Drawn(
        name="normality",
        thesis_name="",
        title="Are runs normally distributed?",
        caption=(
            f"Q-Q plot of the main metric ({metrics}) of the {nd_phrase(study)}, n = {plural(total, 'run')} of "
            f"{plural(kept_cells, 'cell')} of three or more that are not all equal. A run's "
            "score is its distance from the other runs of its "
            "cell, put on the standard normal scale by Student's t (externally studentized residual, n - 2 degrees of "
            "freedom), so that cells of few runs may be pooled. Normal values lie on the dashed line, 95 % of the time "
            "within the band (pointwise, for independent values; runs of one cell depend on each other a little). "
            "Steps are ties: a small test set allows few values. Scores beyond the frame are not shown."
        ),
        alt=(
            f"Grid of {rows} by {columns} Q-Q plots of {plural(total, 'run')} against the normal distribution, with a "
            "95 percent band."
        ),
        figure=figure,
    )
