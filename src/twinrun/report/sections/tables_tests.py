"""Table 5.5 and what is valid in its place: deterministic against free runs, cell by cell and across the seeds."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from twinrun.collect.study import Study
from twinrun.report.cell_values import (
    CellValues,
    assumptions,
    generator,
    number,
    points,
)
from twinrun.report.names import nd_phrase
from twinrun.report.sections.tables_groups import groups_table, optimizers_table, variance_table
from twinrun.report.sections.tables_intervals import intervals_table
from twinrun.report.table import Table, missing, plural, remarks
from twinrun.stats import describe as statistics
from twinrun.stats import effects, hypothesis
from twinrun.stats.equivalence import Equivalence, tost_against_one, tost_paired
from twinrun.stats.multiplicity import benjamini_hochberg, holm


def build_test_tables(study: Study) -> list[Table]:
    """Every table of tests and intervals, in the order of the report."""
    values = CellValues(study)
    return [
        one_run_table(values),
        paired_table(values),
        equivalence_table(values),
        groups_table(values),
        optimizers_table(values),
        variance_table(values),
        intervals_table(values),
    ]


def one_run_table(values: CellValues) -> Table:
    """Table 5.5: the thesis's one-sample t-test and, beside it, the test of one new run against n."""
    study = values.study
    rows: list[dict[str, Any]] = []
    for cell in study.cells():
        metric = study.main_metric(cell.task)
        free, (fixed, why) = values.free(cell, metric), values.fixed(cell, metric)
        thesis, valid = (test(free, fixed) for test in (hypothesis.one_sample_t, hypothesis.prediction_test))
        correction, ranks = effects.g_against_one(free, fixed), effects.rank_biserial([fixed], free)
        rows.append(
            {
                "task": cell.task,
                "optimizer": cell.optimizer,
                "seed": cell.seed,
                "metric": metric,
                "n_nd": free.size,
                "mean_nd": statistics.mean(free),
                "sd_nd": statistics.sample_sd(free),
                "det": fixed,
                "t_thesis": number(thesis.statistic),
                "p_thesis": number(thesis.p),
                "t_valid": number(valid.statistic),
                "p_valid": number(valid.p),
                "cohens_d": number(valid.effect),
                "hedges_g": number(correction.value),
                "rank_biserial": number(ranks.value),
                # The cell's own reasons say more than that a value is missing.
                "remark": remarks(
                    values.free_absence(cell, metric), why, "" if why else valid.reason or correction.reason
                ),
            }
        )
    frame = pd.DataFrame(rows)
    _adjust(frame, frame.index.tolist(), "")
    for task in study.tasks:
        _adjust(frame, frame.index[frame["task"] == task].tolist(), "_task")
    n = sorted({int(count) for count in frame["n_nd"] if count > 1})
    sizes = ", ".join(f"{100 * hypothesis.size_if_a_draw(count):.0f} % at n = {count}" for count in n)
    tested = int(frame["p_valid"].notna().sum())
    alpha = assumptions(study).alpha
    counts = ", ".join(
        f"{label} {int((frame[name] < alpha).sum())}"
        for label, name in (("p", "p_thesis"), ("p valid", "p_valid"), ("Holm", "p_holm"), ("BH", "p_bh"))
    )
    return Table(
        name="det_test",
        thesis_name="Table 5.5",
        title="One deterministic run against the free runs",
        caption=(
            f"Per cell, on the task's main metric: the n {nd_phrase(study)} and the one deterministic value. t = "
            "(det - mean) / (s / sqrt(n)) with n - 1 degrees of freedom is the thesis's test; it takes the "
            f"deterministic run for a known mean. If that run is one more draw, it rejects not 5 % "
            f"of the time but {sizes or 'too often'}. Valid is T = (det - mean) / (s sqrt(1 + 1/n)), the "
            "prediction-interval test. Effect sizes: Cohen's d = (det - mean) / s, Hedges' g, and the "
            "rank-biserial correlation."
        ),
        frame=frame[[column for column in frame if column != "remark"] + ["remark"]],
        notes=(
            f"Below {alpha:g} among {plural(tested, 'cell')}: {counts}. Holm and BH adjust p valid over all cells of "
            "the study, `task` over those of one task.",
        ),
    )


def _adjust(frame: pd.DataFrame, chosen: list[int], suffix: str) -> None:
    p = [None if missing(value) else float(value) for value in frame.loc[chosen, "p_valid"]]
    for name, method in (("p_holm", holm), ("p_bh", benjamini_hochberg)):
        frame.loc[chosen, name + suffix] = [number(value) for value in method(p)]


def paired_table(values: CellValues) -> Table:
    """Deterministic against free, paired across the seeds."""
    study = values.study
    rows = []
    for task in study.tasks:
        metric = study.main_metric(task)
        for optimizer in study.optimizers:
            gaps = values.differences(task, optimizer, metric)
            t, ranks = hypothesis.paired_t(gaps), hypothesis.signed_rank(gaps)
            signs = hypothesis.sign_permutation(gaps, generator("signs", task, optimizer, metric))
            floor = f"no p of ranks or signs is below {2 ** (1 - len(gaps)):.3g} with {len(gaps)} seeds"
            rows.append(
                {
                    "task": task,
                    "optimizer": optimizer,
                    "metric": metric,
                    "seeds_paired": len(gaps),
                    "difference_points": points(statistics.mean(gaps)),
                    "sd_points": points(statistics.sample_sd(gaps)),
                    "t_paired": number(t.statistic),
                    "p_paired": number(t.p),
                    "cohens_d": number(t.effect),
                    "w_signed": number(ranks.statistic),
                    "p_signed": number(ranks.p),
                    "rank_biserial": number(ranks.effect),
                    "p_signs": number(signs.p),
                    "remark": remarks(
                        t.reason,
                        ranks.reason,
                        floor if gaps and 2 ** (1 - len(gaps)) > assumptions(study).alpha else "",
                    ),
                }
            )
    return Table(
        name="det_paired",
        thesis_name="",
        title="Deterministic against free, paired across the seeds",
        caption=(
            "One difference per seed, det less the mean of its nd runs, on the task's main metric; n is the number of "
            "seeds. t = mean / (s / sqrt(n)), df n - 1; Wilcoxon's signed ranks and the permutation of signs are exact "
            "up to 14 seeds. d = mean / s. Valid where Table 5.5 is not: the seeds are the draws."
        ),
        frame=pd.DataFrame(rows),
    )


def equivalence_table(values: CellValues) -> Table:
    """Whether deterministic and free runs are equal to within the margin of the params."""
    study = values.study
    chosen = assumptions(study)
    margin, alpha, rows = chosen.equivalence_margin_points / 100, chosen.alpha, []
    for task in study.tasks:
        metric = study.main_metric(task)
        for optimizer in study.optimizers:
            for cell in (cell for cell in study.cells(task) if cell.optimizer == optimizer):
                free, (fixed, why) = values.free(cell, metric), values.fixed(cell, metric)
                found = tost_against_one(free, fixed, margin, alpha)
                p, reason = hypothesis.prediction_test(free, fixed).p, remarks(values.free_absence(cell, metric), why)
                rows.append(_equivalence_row(task, optimizer, metric, f"seed {cell.seed}", found, p, alpha, reason))
            gaps = values.differences(task, optimizer, metric)
            found = tost_paired(gaps, margin, alpha)
            p = hypothesis.paired_t(gaps).p
            rows.append(_equivalence_row(task, optimizer, metric, "all seeds, paired", found, p, alpha, ""))
    return Table(
        name="equivalence",
        thesis_name="",
        title="Are deterministic and free runs equivalent?",
        caption=(
            f"Two one-sided tests (TOST) against a margin of {chosen.equivalence_margin_points:g} points (params: "
            "analysis.equivalence_margin_points) on the task's main metric: p = max of P(T > (d + m) / se) and P(T < "
            "(d - m) / se). One seed: the deterministic run taken for a draw with the nd runs' SD, se = s sqrt(1 + 1/n)"
            ", df n - 1; all seeds: paired differences, se = s / sqrt(n). Equivalent when the "
            f"{100 * (1 - 2 * alpha):g} % interval lies within the margin; different when the test of no difference "
            f"has p below {alpha:g} (unadjusted) and equivalence is not shown; undecided otherwise."
        ),
        frame=pd.DataFrame(rows),
    )


def _equivalence_row(
    task: str, optimizer: str, metric: str, which: str, found: Equivalence, p: float | None, alpha: float, reason: str
) -> dict[str, Any]:
    if found.p is None:
        verdict = "not defined"
    elif found.p < alpha:
        verdict = "equivalent"
    else:
        verdict = "different" if p is not None and p < alpha else "undecided"
    return {
        "task": task,
        "optimizer": optimizer,
        "metric": metric,
        "comparison": which,
        "n": found.n[0],
        "margin_points": points(found.margin),
        "difference_points": points(found.difference),
        "low_points": points(found.low),
        "high_points": points(found.high),
        "p_tost": math.nan if found.p is None else found.p,
        "equivalence": verdict,
        "remark": reason or found.reason,
    }
