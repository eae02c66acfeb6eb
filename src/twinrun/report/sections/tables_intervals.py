"""Mean and SD of every cell with their intervals, and what can be said of normality."""

from __future__ import annotations

from typing import Any

import pandas as pd

from twinrun.report.cell_values import CellValues, generator, number
from twinrun.report.names import nd_phrase
from twinrun.report.table import Table, remarks
from twinrun.stats import describe as statistics
from twinrun.stats.intervals import mean_interval, sd_bootstrap, sd_chi_square
from twinrun.stats.normality import shapiro_wilk


def intervals_table(values: CellValues) -> Table:
    """Per cell and metric of the figures: mean, SD, their intervals, Shapiro-Wilk."""
    study = values.study
    rows: list[dict[str, Any]] = []
    for cell in study.cells():
        for metric in study.metric_pair(cell.task):
            runs = values.free(cell, metric)
            mean, chi_square = mean_interval(runs), sd_chi_square(runs)
            bootstrap = sd_bootstrap(runs, generator("sd", cell.task, cell.optimizer, cell.seed, metric))
            shapiro = shapiro_wilk(runs)
            rows.append(
                {
                    "task": cell.task,
                    "optimizer": cell.optimizer,
                    "seed": cell.seed,
                    "metric": metric,
                    "n": runs.size,
                    "mean": number(mean.value),
                    "mean_low": number(mean.low),
                    "mean_high": number(mean.high),
                    "sd_sample": statistics.sample_sd(runs),
                    "sd_low": number(chi_square.low),
                    "sd_high": number(chi_square.high),
                    "boot_low": number(bootstrap.low),
                    "boot_high": number(bootstrap.high),
                    "w_shapiro": number(shapiro.statistic),
                    "p_shapiro": number(shapiro.p),
                    "remark": remarks(
                        values.free_absence(cell, metric),
                        f"SD interval {chi_square.reason}" if chi_square.reason else "",
                        f"bootstrap {bootstrap.reason}" if bootstrap.reason else "",
                        f"Shapiro-Wilk {shapiro.reason}" if shapiro.reason else "",
                    ),
                }
            )
    return Table(
        name="intervals",
        thesis_name="",
        title="How well mean and SD are known",
        caption=(
            f"The n {nd_phrase(study)} of each cell, 95 % intervals. Mean: mean +- t s / sqrt(n). SD: s sqrt((n-1) "
            "/ q) with chi-square quantiles q, exact for normal values; and a studentized bootstrap of log s^2, which "
            "does not assume them and needs five runs (percentile and BCa bootstraps of an SD cover 64 and 65 % "
            "instead of 95 % at n = 5). W and p of the Shapiro-Wilk test: with 3 to 5 runs it finds only gross "
            "departures, so a large p is no evidence of normality."
        ),
        frame=pd.DataFrame(rows),
    )
