"""Table 5.5 and what is valid in its place: deterministic against free runs, cell by cell and across the seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from twinrun.collect.study import Group, Setting, Study, remarks
from twinrun.report.names import DET_AND_ND, nd_phrase
from twinrun.report.section import Draft, Section, generator
from twinrun.report.table import CELL, COMPARISON, METRIC, N_ND, P_VALUE, REMARK, SETTING, TWO_DIGITS, Column, N, Table
from twinrun.stats import describe, effects, hypothesis
from twinrun.stats.digits import p_value
from twinrun.stats.equivalence import Equivalence, tost_against_one, tost_paired
from twinrun.stats.multiplicity import benjamini_hochberg, holm
from twinrun.stats.samples import Sample
from twinrun.study.errors import plural

COHENS_D = Column("cohens_d", "d", "+.2f", "Cohen's d, a difference in SDs")
RANK_BISERIAL = Column("rank_biserial", "r", "+.2f", "rank-biserial correlation, -1 to 1")
DIFFERENCE = Column("difference_points", "Difference", "+.3f", "in points of 100", factor=100)
ONE_RUN_COLUMNS = (
    *CELL,
    METRIC,
    N_ND,
    Column("mean_nd", "Mean nd", ".4f", "mean of the nd runs", digits_of="sd_nd"),
    Column("sd_nd", "SD nd", TWO_DIGITS, "sample SD of the nd runs, 1/(n-1)"),
    Column("det", "Det", ".4f", "the one deterministic value"),
    Column("t_thesis", "t", "+.2f", "of the one-sample t-test, as in the thesis"),
    Column("p_thesis", "p", P_VALUE, "of the one-sample t-test, as in the thesis: not valid against one run"),
    Column("t_valid", "T valid", "+.2f", "of the prediction-interval test, t / sqrt(n + 1)"),
    Column("p_valid", "p valid", P_VALUE, "of the prediction-interval test"),
    COHENS_D,
    Column("hedges_g", "g", "+.2f", "Hedges' g: d without its bias"),
    RANK_BISERIAL,
    Column("p_holm", "Holm", P_VALUE, "p valid, adjusted over all cells of the study (Holm)"),
    Column("p_bh", "BH", P_VALUE, "p valid, adjusted over all cells of the study (Benjamini-Hochberg)"),
    Column("p_holm_task", "Holm, task", P_VALUE, "p valid, adjusted over the cells of the task (Holm)"),
    Column("p_bh_task", "BH, task", P_VALUE, "p valid, adjusted over the cells of the task (Benjamini-Hochberg)"),
    REMARK,
)
PAIRED_COLUMNS = (
    *SETTING,
    METRIC,
    Column("seeds_paired", "Seeds", "d", "seeds that have both"),
    DIFFERENCE,
    Column("sd_points", "SD", TWO_DIGITS, "sample SD, in points of 100", factor=100),
    Column("t_paired", "t", "+.2f", "of the paired t-test"),
    Column("p_paired", "p paired t", P_VALUE, "of the paired t-test"),
    COHENS_D,
    Column("w_signed", "W", ".1f", "sum of the positive ranks"),
    Column("p_signed", "p signed rank", P_VALUE, "of Wilcoxon's signed-rank test"),
    RANK_BISERIAL,
    Column("p_signs", "p signs", P_VALUE, "of the permutation of signs"),
    REMARK,
)
BESIDE_MARGIN = DIFFERENCE._replace(margin="margin_points")
TOST_INTERVAL = "1 - 2 alpha interval, in points of 100"
EQUIVALENCE_COLUMNS = (
    *SETTING,
    METRIC,
    COMPARISON._replace(meaning="one seed, or all seeds paired"),
    N._replace(meaning="nd runs of the seed, or seeds"),
    Column("margin_points", "Margin", ".2f", "difference that does not matter, in points of 100", factor=100),
    BESIDE_MARGIN,
    BESIDE_MARGIN._replace(name="difference_points_low", label="from", meaning=f"lower end of the {TOST_INTERVAL}"),
    BESIDE_MARGIN._replace(name="difference_points_high", label="to", meaning=f"upper end of the {TOST_INTERVAL}"),
    Column("p_tost", "p TOST", P_VALUE, "of the two one-sided tests; below alpha: equivalent"),
    Column("equivalence", "Verdict", "", "equivalent, different, or undecided"),
    REMARK,
)


def tables(draft: Draft) -> list[Table]:
    """One run against the free ones, the same paired across the seeds, and equivalence."""
    return [_one_run_table(draft.study), _paired_table(draft.study), _equivalence_table(draft.study)]


def _compared(study: Study, cell_groups: tuple[Group, Group], metric: str) -> tuple[Sample, float, str, str]:
    """The free values of a cell, its deterministic value or NaN, and why values of either side are missing."""
    free, fixed = cell_groups
    det = fixed.single(metric)
    return free.known(metric), math.nan if det.value is None else det.value, free.why(2, metric), det.reason


def _one_run_table(study: Study) -> Table:
    """Table 5.5: the thesis's one-sample t-test and, beside it, the test of one new run against n."""
    rows: list[dict[str, Any]] = []
    for cell in study.cells():
        metric = study.main_metric(cell.task)
        free, det, why_free, why_det = _compared(study, (study.group(cell, "nd"), study.group(cell, "det")), metric)
        thesis, valid = hypothesis.one_sample_t(free, det), hypothesis.prediction_test(free, det)
        correction = effects.g_against_one(free, det)
        rows.append(
            {
                "task": cell.task,
                "optimizer": cell.optimizer,
                "seed": cell.seed,
                "metric": metric,
                "n_nd": free.size,
                "mean_nd": describe.mean(free),
                "sd_nd": describe.sample_sd(free),
                "det": det,
                "t_thesis": thesis.statistic,
                "p_thesis": thesis.p,
                "t_valid": valid.statistic,
                "p_valid": valid.p,
                "cohens_d": valid.effect,
                "hedges_g": correction.value,
                "rank_biserial": effects.rank_biserial([det], free).value,
                # The cell's own reasons say more than that a value is missing.
                "remark": remarks(why_free, why_det, "" if why_det else valid.reason or correction.reason),
            }
        )
    _adjust(rows, "")
    for task in study.tasks:
        _adjust([row for row in rows if row["task"] == task], "_task")
    alpha = study.assumptions.alpha
    sizes = ", ".join(
        f"{100 * hypothesis.size_if_a_draw(n):.0f} % at n = {n}" for n in sorted({row["n_nd"] for row in rows}) if n > 1
    )
    below = ", ".join(
        f"{label} {sum(row[name] is not None and row[name] < alpha for row in rows)}"
        for label, name in (("p", "p_thesis"), ("p valid", "p_valid"), ("Holm", "p_holm"), ("BH", "p_bh"))
    )
    tested = sum(row["p_valid"] is not None for row in rows)
    return Table(
        name="det_test",
        title="One deterministic run against the free runs",
        caption=(
            f"Per cell, on the task's main metric: the n {nd_phrase(study)} and the one deterministic value. t = "
            "(det - mean) / (s / sqrt(n)) with n - 1 degrees of freedom is the thesis's test; it takes the "
            f"deterministic run for a known mean. If that run is one more draw, it rejects not 5 % "
            f"of the time but {sizes or 'too often'}. Valid is T = (det - mean) / (s sqrt(1 + 1/n)), the "
            "prediction-interval test. Effect sizes: Cohen's d = (det - mean) / s, Hedges' g, and the "
            "rank-biserial correlation."
        ),
        columns=ONE_RUN_COLUMNS,
        rows=rows,
        thesis_name="Table 5.5",
        notes=(
            f"Below {alpha:g} among {plural(tested, 'cell')}: {below}. Holm and BH adjust p valid over all cells of "
            "the study, `task` over those of one task.",
        ),
    )


def _adjust(rows: Sequence[dict[str, Any]], suffix: str) -> None:
    for name, method in (("p_holm", holm), ("p_bh", benjamini_hochberg)):
        for row, p in zip(rows, method([row["p_valid"] for row in rows]), strict=True):
            row[name + suffix] = p


def _gaps(setting: Setting) -> list[float]:
    """det - mean of nd of every seed that has both."""
    gaps = []
    for free, fixed in zip(setting.groups("nd"), setting.groups("det"), strict=True):
        values, det = free.known(setting.metric), fixed.single(setting.metric).value
        if values.size and det is not None:
            gaps.append(det - describe.mean(values))
    return gaps


def _paired_table(study: Study) -> Table:
    """Deterministic against free, paired across the seeds."""
    return Table(
        name="det_paired",
        title="Deterministic against free, paired across the seeds",
        caption=(
            "One difference per seed, det less the mean of its nd runs, on the task's main metric; n is the number of "
            "seeds. t = mean / (s / sqrt(n)), df n - 1; Wilcoxon's signed ranks and the permutation of signs are exact "
            "up to 14 seeds. d = mean / s. Valid where Table 5.5 is not: the seeds are the draws."
        ),
        columns=PAIRED_COLUMNS,
        rows=[_paired_row(setting) for setting in study.settings()],
    )


def _paired_row(setting: Setting) -> dict[str, Any]:
    gaps = _gaps(setting)
    t, ranks = hypothesis.paired_t(gaps), hypothesis.signed_rank(gaps)
    signs = hypothesis.sign_permutation(gaps, generator("signs", setting.task, setting.optimizer, setting.metric))
    least = 2 ** (1 - len(gaps))
    floor = f"no p of ranks or signs is below {p_value(least)} with {plural(len(gaps), 'seed')}"
    return {
        **setting.identity,
        "metric": setting.metric,
        "seeds_paired": len(gaps),
        "difference_points": describe.mean(gaps),
        "sd_points": describe.sample_sd(gaps),
        "t_paired": t.statistic,
        "p_paired": t.p,
        "cohens_d": t.effect,
        "w_signed": ranks.statistic,
        "p_signed": ranks.p,
        "rank_biserial": ranks.effect,
        "p_signs": signs.p,
        "remark": remarks(t.reason, ranks.reason, floor if gaps and least > setting.study.assumptions.alpha else ""),
    }


def _equivalence_table(study: Study) -> Table:
    """Whether deterministic and free runs are equal to within the margin of the params."""
    margin, alpha = study.assumptions.equivalence_margin_points, study.assumptions.alpha
    return Table(
        name="equivalence",
        title="Are deterministic and free runs equivalent?",
        caption=(
            f"Two one-sided tests (TOST) against a margin of {margin:g} points (params: "
            "analysis.equivalence_margin_points) on the task's main metric: p = max of P(T > (d + m) / se) and P(T < "
            "(d - m) / se). One seed: the deterministic run taken for a draw with the nd runs' SD, se = s sqrt(1 + 1/n)"
            ", df n - 1; all seeds: paired differences, se = s / sqrt(n). Equivalent when the "
            f"{100 * (1 - 2 * alpha):g} % interval lies within the margin; different when the test of no difference "
            f"has p below {alpha:g} (unadjusted) and equivalence is not shown; undecided otherwise."
        ),
        columns=EQUIVALENCE_COLUMNS,
        rows=[row for setting in study.settings() for row in _equivalence_rows(setting, margin / 100, alpha)],
    )


def _equivalence_rows(setting: Setting, margin: float, alpha: float) -> list[dict[str, Any]]:
    metric, rows = setting.metric, []
    for groups in zip(setting.groups("nd"), setting.groups("det"), strict=True):
        free, det, why_free, why_det = _compared(setting.study, groups, metric)
        tost, p = tost_against_one(free, det, margin, alpha), hypothesis.prediction_test(free, det).p
        name = f"seed {groups[0].cell.seed}"
        rows.append(_equivalence_row(setting, name, tost, p, alpha, remarks(why_free, why_det)))
    gaps = _gaps(setting)
    tost, p = tost_paired(gaps, margin, alpha), hypothesis.paired_t(gaps).p
    return [*rows, _equivalence_row(setting, "all seeds, paired", tost, p, alpha, "")]


def _equivalence_row(
    setting: Setting, comparison: str, tost: Equivalence, p: float | None, alpha: float, reason: str
) -> dict[str, Any]:
    if tost.p is None:
        verdict = "not defined"
    elif tost.p < alpha:
        verdict = "equivalent"
    else:
        verdict = "different" if p is not None and p < alpha else "undecided"
    return {
        **setting.identity,
        "metric": setting.metric,
        "comparison": comparison,
        "n": tost.n[0],
        "margin_points": tost.margin if tost.p is not None else None,
        "difference_points": tost.difference,
        "difference_points_low": tost.low,
        "difference_points_high": tost.high,
        "p_tost": tost.p,
        "equivalence": verdict,
        "remark": reason or tost.reason,
    }


SECTION = Section(
    "tests",
    "Deterministic against free: what holds",
    about=(
        "Beside the thesis's test its valid counterparts: a prediction interval instead of a test against one run, "
        "pairs of seeds, corrections for many cells, sizes of effects beside p-values, and equivalence."
    ),
    filled_by=DET_AND_ND,
    tables=tables,
    needs="deterministic",
)
