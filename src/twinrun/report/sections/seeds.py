"""Table 5.6 and what stands beside it: seeds against each other, optimizers against each other, where variance is."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

from twinrun.collect.study import Setting, remarks
from twinrun.report.names import IDENTICAL, OPTIMIZER_LABELS, nd_phrase
from twinrun.report.section import Draft, Section, generator, with_interval
from twinrun.report.table import METRIC, P_VALUE, REMARK, SETTING, TASK, TWO_DIGITS, Column, N, Table, ends
from twinrun.stats import describe, effects, hypothesis, permutation
from twinrun.stats.intervals import PooledSd
from twinrun.stats.samples import Sample
from twinrun.stats.variance import components
from twinrun.study.errors import plural

GROUPS = Column("groups", "Groups", "d", "seeds with two nd runs or more")
NOISE_COLUMNS = (
    Column("f_noise", "F noise", ".3f", "of the Brown-Forsythe test of equal noise"),
    Column("p_noise", "p noise", P_VALUE, "of the Brown-Forsythe test, structural zeros left out"),
    Column("p_noise_simulated", "p noise simulated", P_VALUE, "of the same F against simulated normal groups"),
)
SEED_COLUMNS = (
    *SETTING,
    METRIC,
    GROUPS,
    Column("n_groups", "n per group", "", "runs of each seed"),
    Column("f", "F", ".3f", "of the one-way ANOVA"),
    Column("p_f", "p ANOVA", P_VALUE, "of F"),
    Column("eta_squared", "eta2", ".3f", "share of the sum of squares that lies between the seeds"),
    Column("h", "H", ".3f", "of the Kruskal-Wallis test, corrected for ties"),
    Column("p_h", "p K-W", P_VALUE, "of H, by chi-square"),
    Column("p_h_permuted", "p K-W permuted", P_VALUE, "of H, by permutation of the values over the seeds"),
    Column("epsilon_squared", "epsilon2", ".3f", "H / (N - 1)"),
    *NOISE_COLUMNS,
    Column("p_noise_classic", "p noise classic", P_VALUE, "of the Brown-Forsythe test as published in 1974"),
    REMARK,
)
OPTIMIZER_COLUMNS = (
    TASK,
    METRIC,
    Column("first", "First", "", "optimizer"),
    Column("second", "Second", "", "optimizer"),
    Column("n_first", "Seeds first", "d", "seeds of the first"),
    Column("n_second", "Seeds second", "d", "seeds of the second"),
    Column("difference_points", "Difference", "+.3f", "first less second, in points of 100", factor=100),
    Column("t_welch", "t Welch", "+.2f", "of Welch's test of the seeds' means"),
    Column("p_welch", "p Welch", P_VALUE, "of Welch's test of the seeds' means"),
    Column("p_permutation", "p permutation", P_VALUE, "of the permutation test of the seeds' means"),
    Column("u", "U", ".1f", "Mann-Whitney's U of the second over the first, of the seeds' means"),
    Column("p_u", "p U", P_VALUE, "of U"),
    Column(
        "superiority",
        "P(second > first)",
        ".3f",
        "chance that a seed of the second is above one of the first",
        neutral=0.5,
    ),
    Column("superiority_low", "from", ".3f", "lower end of its 95 % interval", neutral=0.5),
    Column("superiority_high", "to", ".3f", "upper end of its 95 % interval", neutral=0.5),
    Column("hedges_g", "g", "+.2f", "Hedges' g: d without its bias"),
    Column("rank_biserial", "r", "+.2f", "rank-biserial correlation, -1 to 1"),
    Column("sd_first", "SD first", TWO_DIGITS, "SD of nd runs within a seed, pooled, in points of 100", factor=100),
    Column("sd_second", "SD second", TWO_DIGITS, "the same of the second", factor=100),
    *NOISE_COLUMNS,
    REMARK,
)
VARIANCE_COLUMNS = (
    *SETTING,
    METRIC,
    GROUPS,
    N,
    Column("sd_seeds", "SD seeds", TWO_DIGITS, "between seeds, in points of 100", factor=100),
    Column("sd_noise", "SD noise", TWO_DIGITS, "within a seed: implementation noise, in points of 100", factor=100),
    Column("icc", "ICC(1)", ".3f", "share of the variance that the seeds make"),
    *ends("icc", "ICC", "+.3f", "its 95 % interval"),
    Column("truncated", "Cut at 0", "", "whether the variance between seeds was estimated negative and set to 0"),
    REMARK,
)


def tables(draft: Draft) -> list[Table]:
    """Seeds, optimizers, variance components."""
    study = draft.study
    settings = study.settings()
    known = [setting for setting in settings if study.seeds != ["any"]]
    none = () if known else ("Not recorded: several runs of a seed.",)
    seeds = Table(
        name="seed_groups",
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
        columns=SEED_COLUMNS,
        rows=[_seeds_row(setting) for setting in known],
        thesis_name="" if study.imported else "Table 5.6",
        notes=none,
    )
    rows = [_optimizers_row(*pair) for task in study.tasks for pair in combinations(study.settings(task), 2)]
    means = (
        "One value per seed, the mean of its runs, or each run where everything is free;"
        if study.imported
        else "What the text of the thesis says of its Table 5.6. Means: one value per seed, the mean of its nd runs "
        "(runs of one seed are no independent draws of an optimizer);"
    )
    optimizers = Table(
        name="optimizers",
        title=f"{study.setting_word.capitalize()}s against each other",
        caption=(
            f"{means} Welch's t and the permutation of all splits, "
            "first less second, n seeds each; Mann-Whitney's U and P(second > first) = U / (n1 n2), ties half, with "
            "Newcombe's interval. Noise: SD of nd runs within a seed, pooled over the seeds, compared by "
            "Brown-Forsythe with deviations from each seed's own median (seeds of three nd runs or more), by the F "
            "table and against simulated normal groups."
        ),
        columns=OPTIMIZER_COLUMNS,
        rows=rows,
        filled_by=f"two {study.setting_word}s and their `nd` runs",
    )
    variance = Table(
        name="variance",
        title="Seed or implementation noise: where the variance is",
        caption=(
            "One-way random effects over the seeds with the nd runs as replicates, method of moments: noise variance = "
            "MSW, seed variance = (MSB - MSW) / n0, shown as SDs in points; a negative estimate is set to 0 and "
            "marked. ICC(1) = seed variance / (seed + noise variance), with its F interval (95 %, exact for equal "
            "numbers of runs; its ends may be negative). With few seeds the interval is wide: read it, not the point."
        ),
        columns=VARIANCE_COLUMNS,
        rows=[_variance_row(setting, metric) for setting in known for metric in study.metrics],
        notes=none,
    )
    return [seeds, optimizers, variance]


def _left_out(setting: Setting, groups: list[Sample]) -> str:
    absent = len(setting.study.seeds) - len(groups)
    seeds = plural(len(setting.study.seeds), "seed")
    return f"{absent} of {seeds} left out: fewer than two nd runs with a value" if absent else ""


def _told(name: str, reason: str) -> str:
    return f"{name} {reason}" if reason else ""


def _seeds_row(setting: Setting) -> dict[str, Any]:
    names = (setting.task, setting.optimizer, setting.metric)
    groups = setting.samples(setting.study.free_arm, setting.metric, least=2)
    cells = [[group] for group in groups]
    f, h = hypothesis.anova(groups), hypothesis.kruskal_wallis(groups)
    noise, classic = hypothesis.brown_forsythe(cells), hypothesis.brown_forsythe(cells, classic=True)
    return {
        **setting.identity,
        "metric": setting.metric,
        "groups": len(groups),
        "n_groups": ", ".join(str(group.size) for group in groups) or "none",
        "f": f.statistic,
        "p_f": f.p,
        "eta_squared": f.effect,
        "h": h.statistic,
        "p_h": h.p,
        "p_h_permuted": permutation.kruskal_wallis_permuted(groups, generator("ranks", *names)).p,
        "epsilon_squared": h.effect,
        "f_noise": noise.statistic,
        "p_noise": noise.p,
        "p_noise_simulated": permutation.brown_forsythe_simulated(cells, generator("noise", *names)).p,
        "p_noise_classic": classic.p,
        "remark": remarks(
            _left_out(setting, groups),
            _told("ANOVA", f.reason),
            _told("K-W", h.reason),
            _told("noise", noise.reason),
            _told("classic noise", classic.reason),
        ),
    }


def _optimizers_row(first: Setting, second: Setting) -> dict[str, Any]:
    """Two optimizers: their means with the seeds as draws, and their noise."""
    metric, names = first.metric, (first.task, first.optimizer, second.optimizer, first.metric)
    sides = [setting.samples(first.study.free_arm, metric) for setting in (first, second)]
    means = [setting.draws(metric) for setting in (first, second)]
    welch = hypothesis.welch_t(*means)
    permuted = permutation.permutation_test(means[0], means[1], generator("optimizers", *names))
    ranks, above = hypothesis.mann_whitney(*means), effects.superiority(means[1], means[0])
    several = [[group for group in side if group.size >= 3] for side in sides]
    noise = hypothesis.brown_forsythe(several)
    sd_first, sd_second = (PooledSd.of(side).value for side in sides)
    return {
        "task": first.task,
        "metric": metric,
        "first": OPTIMIZER_LABELS[first.optimizer],
        "second": OPTIMIZER_LABELS[second.optimizer],
        "n_first": len(means[0]),
        "n_second": len(means[1]),
        "difference_points": describe.mean(means[0]) - describe.mean(means[1]),
        "t_welch": welch.statistic,
        "p_welch": welch.p,
        "p_permutation": permuted.p,
        "u": ranks.statistic,
        "p_u": ranks.p,
        **with_interval("superiority", above),
        "hedges_g": welch.effect,
        "rank_biserial": permuted.effect,
        "sd_first": sd_first,
        "sd_second": sd_second,
        "f_noise": noise.statistic,
        "p_noise": noise.p,
        "p_noise_simulated": permutation.brown_forsythe_simulated(several, generator("noise", *names)).p,
        "remark": remarks(
            _told("Welch", welch.reason),
            _told("permutation", permuted.reason),
            _told("U", ranks.reason),
            _told("P(second > first)", above.reason),
            _told("noise", noise.reason),
        ),
    }


def _variance_row(setting: Setting, metric: str) -> dict[str, Any]:
    groups = setting.samples(setting.study.free_arm, metric, least=2)
    parts = components(groups)
    return {
        **setting.identity,
        "metric": metric,
        "groups": len(groups),
        "n": parts.n,
        "sd_seeds": None if parts.between is None else math.sqrt(parts.between),
        "sd_noise": None if parts.within is None else math.sqrt(parts.within),
        "icc": parts.icc,
        "icc_low": parts.icc_low,
        "icc_high": parts.icc_high,
        "truncated": "yes" if parts.truncated else "no",
        "remark": remarks(_left_out(setting, groups), parts.reason),
    }


SECTION = Section("seeds", "Seeds and optimizers", filled_by=IDENTICAL, tables=tables)
