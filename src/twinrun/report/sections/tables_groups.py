"""Table 5.6 and what stands beside it: seeds against each other, optimizers against each other, where variance is."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pandas as pd

from twinrun.collect.study import Study
from twinrun.report.cell_values import CellValues, generator, number, points
from twinrun.report.names import OPTIMIZER_LABELS, nd_phrase
from twinrun.report.sections.tables_performance import METRICS
from twinrun.report.table import Table, plural, remarks
from twinrun.stats import describe as statistics
from twinrun.stats import hypothesis, permutation
from twinrun.stats.samples import Sample
from twinrun.stats.variance import components


def seed_groups(values: CellValues, task: str, optimizer: str, metric: str, least: int = 2) -> list[Sample]:
    """The nd runs of each seed that has at least `least` of them."""
    cells = (cell for cell in values.study.cells(task) if cell.optimizer == optimizer)
    found = (values.free(cell, metric) for cell in cells)
    return [group for group in found if group.size >= least]


def _left_out(study: Study, found: list[Sample]) -> str:
    absent = len(study.seeds) - len(found)
    return (
        f"{absent} of {plural(len(study.seeds), 'seed')} left out: fewer than two nd runs with a value"
        if absent
        else ""
    )


def groups_table(values: CellValues) -> Table:
    """Table 5.6: ANOVA and Kruskal-Wallis over the seeds, and whether the seeds are equally noisy."""
    study = values.study
    rows = []
    for task in study.tasks:
        metric = study.main_metric(task)
        for optimizer in study.optimizers:
            found = seed_groups(values, task, optimizer, metric)
            f, h = hypothesis.anova(found), hypothesis.kruskal_wallis(found)
            permuted = permutation.kruskal_wallis_permuted(found, generator("ranks", task, optimizer, metric))
            noise = hypothesis.brown_forsythe([[cell] for cell in found])
            simulated = permutation.brown_forsythe_simulated(
                [[cell] for cell in found], generator("noise", task, optimizer, metric)
            )
            classic = hypothesis.brown_forsythe([[cell] for cell in found], classic=True)
            rows.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "metric": metric,
                    "groups": len(found),
                    "n_groups": ", ".join(str(group.size) for group in found) or "none",
                    "f": number(f.statistic),
                    "p_f": number(f.p),
                    "eta_squared": number(f.effect),
                    "h": number(h.statistic),
                    "p_h": number(h.p),
                    "p_h_permuted": number(permuted.p),
                    "epsilon_squared": number(h.effect),
                    "f_noise": number(noise.statistic),
                    "p_noise": number(noise.p),
                    "p_noise_simulated": number(simulated.p),
                    "p_noise_classic": number(classic.p),
                    "remark": remarks(
                        _left_out(study, found), _told("ANOVA", f.reason), _told("K-W", h.reason),
                        _told("noise", noise.reason), _told("classic noise", classic.reason),
                    ),
                }
            )  # fmt: skip
    return Table(
        name="seed_groups",
        thesis_name="Table 5.6",
        title="Seeds against each other",
        caption=(
            f"The groups are the seeds, as in the thesis (whose text says optimizers), their values the "
            f"{nd_phrase(study)}, on the task's main metric. F = (SSB / (k-1)) / (SSW / (N-k)); eta2 = SSB / (SSB + "
            "SSW); H of the ranks, corrected for ties, by chi-square with k - 1, which is cautious for few runs (at "
            "n = 5 it rejects 3.5 to 4 % instead of 5 %), and by permutation; epsilon2 = H / (N - 1). Noise: "
            "Brown-Forsythe test of equal spread, ANOVA of the absolute deviations from each seed's median, without "
            "the deviations that are 0 by construction (Hines & Hines 2000), by the F table (3 to 4 % at n = 5) and "
            "against simulated normal groups of these sizes (exact); the classic form hardly ever rejects at n = 5."
        ),
        frame=pd.DataFrame(rows),
    )


def _told(name: str, reason: str) -> str:
    return f"{name} {reason}" if reason else ""


def optimizers_table(values: CellValues) -> Table:
    """Optimizers against each other: their means with the seeds as draws, and their noise."""
    study = values.study
    rows: list[dict[str, Any]] = []
    for task in study.tasks:
        metric = study.main_metric(task)
        for first, second in combinations(study.optimizers, 2):
            ones, twos = (seed_groups(values, task, name, metric, least=1) for name in (first, second))
            means = [[statistics.mean(group) for group in side] for side in (ones, twos)]
            welch = hypothesis.welch_t(*means)
            permuted = permutation.permutation_test(
                means[0], means[1], generator("optimizers", task, first, second, metric)
            )
            several = [[group for group in side if group.size >= 3] for side in (ones, twos)]
            noise = hypothesis.brown_forsythe(several)
            simulated = permutation.brown_forsythe_simulated(several, generator("noise", task, first, second, metric))
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "first": OPTIMIZER_LABELS[first],
                    "second": OPTIMIZER_LABELS[second],
                    "n_first": len(ones),
                    "n_second": len(twos),
                    "difference_points": points(statistics.mean(means[0]) - statistics.mean(means[1])),
                    "t_welch": number(welch.statistic),
                    "p_welch": number(welch.p),
                    "p_permutation": number(permuted.p),
                    "hedges_g": number(welch.effect),
                    "rank_biserial": number(permuted.effect),
                    "sd_first": points(_pooled_sd(ones)),
                    "sd_second": points(_pooled_sd(twos)),
                    "f_noise": number(noise.statistic),
                    "p_noise": number(noise.p),
                    "p_noise_simulated": number(simulated.p),
                    "remark": remarks(
                        _told("Welch", welch.reason),
                        _told("permutation", permuted.reason),
                        _told("noise", noise.reason),
                    ),
                }
            )
    columns = list(rows[0]) if rows else ["task", "metric", "remark"]
    return Table(
        name="optimizers",
        thesis_name="",
        title="Optimizers against each other",
        caption=(
            "What the text of the thesis says of its Table 5.6. Means: one value per seed, the mean of its nd runs "
            "(runs of one seed are no independent draws of an optimizer); Welch's t and the permutation of all splits, "
            "first less second, n seeds each. Noise: SD of nd runs within a seed, pooled over the seeds, compared by "
            "Brown-Forsythe with deviations from each seed's own median (seeds of three nd runs or more), by the F "
            "table and against simulated normal groups."
        ),
        frame=pd.DataFrame(rows, columns=columns),
        notes=() if rows else ("Not available: the study has one optimizer.",),
    )


def _pooled_sd(found: list[Sample]) -> float:
    several = [values for values in found if values.size > 1]
    free = sum(values.size - 1 for values in several)
    squares = math.fsum((values.size - 1) * statistics.sample_sd(values) ** 2 for values in several)
    return math.sqrt(squares / free) if free else math.nan


def variance_table(values: CellValues) -> Table:
    """Variance components: seed and implementation noise, per task, optimizer and metric."""
    study = values.study
    rows = []
    for task in study.tasks:
        for optimizer in study.optimizers:
            for metric in METRICS:
                found = seed_groups(values, task, optimizer, metric)
                parts = components(found)
                rows.append(
                    {
                        "task": task,
                        "optimizer": optimizer,
                        "metric": metric,
                        "groups": len(found),
                        "n": parts.n,
                        "sd_seeds": points(None if parts.between is None else math.sqrt(parts.between)),
                        "sd_noise": points(None if parts.within is None else math.sqrt(parts.within)),
                        "icc": number(parts.icc),
                        "icc_low": number(parts.icc_low),
                        "icc_high": number(parts.icc_high),
                        "truncated": "yes" if parts.truncated else "no",
                        "remark": remarks(_left_out(study, found), parts.reason),
                    }
                )
    return Table(
        name="variance",
        thesis_name="",
        title="Seed or implementation noise: where the variance is",
        caption=(
            "One-way random effects over the seeds with the nd runs as replicates, method of moments: noise variance = "
            "MSW, seed variance = (MSB - MSW) / n0, shown as SDs in points; a negative estimate is set to 0 and "
            "marked. ICC(1) = seed variance / (seed + noise variance), with its F interval (95 %, exact for equal "
            "numbers of runs; its ends may be negative). With few seeds the interval is wide: read it, not the point."
        ),
        frame=pd.DataFrame(rows),
    )
