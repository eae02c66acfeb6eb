"""Guidelines derived by stated rules from the numbers of this study; where the numbers do not decide, none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from twinrun.report.names import IDENTICAL, METRIC_LABELS, noise_kinds, said
from twinrun.report.section import Draft, Section, chosen
from twinrun.report.study_sd import StudySd, inverted, study_same_seed_sd, study_total_sd
from twinrun.report.table import in_points
from twinrun.stats.digits import with_ends
from twinrun.stats.intervals import PooledSd, mean_interval
from twinrun.stats.power import replicates_for_mean
from twinrun.study.errors import plural

PRECISION = 0.005  # half a point: the precision that the number of replicates is given for
LEAST_FREEDOM = 5  # degrees of freedom below which an SD is no ground for advice
DETERMINISM = 'table "Do the deterministic runs agree to the last bit?"'
ALIKE, APART = 0.8, 0.5  # churn of twins over churn of seeds: from here alike, to here apart
NONE_DECIDED = "The numbers of this study decide none of the rules."


class Guideline(NamedTuple):
    """One piece of advice with the numbers behind it; `rule` says when it is given."""

    advice: str
    ground: str  # the numbers and the table that they come from
    rule: str


def guidelines(draft: Draft) -> list[Guideline]:
    """Every guideline that this study's numbers decide, general ones first."""
    tasks, rules = draft.study.tasks, (_spread, _churn, _seeds, _ensembles)
    return [*_deterministic(draft), *(guideline for rule in rules for task in tasks for guideline in rule(draft, task))]


def sentences(draft: Draft) -> list[str]:
    """Advice, ground and rule of each."""
    study = draft.study
    lines = [
        f"**{guideline.advice}** {said(study, guideline.ground)} Rule: {guideline.rule}."
        for guideline in guidelines(draft)
    ]
    without = study.free_arm == "all" and study.records("weights")
    return [
        *(lines or [NONE_DECIDED]),
        *([f"Whether the seed matters or the noise alone needs {IDENTICAL}."] if without else []),
    ]


def _deterministic(draft: Draft) -> Iterator[Guideline]:
    if "determinism" not in draft.tables:
        return
    table = draft.frame("determinism")
    several, free = table[table["n_det"] > 1], table[table["n_nd"] > 1]
    equal, apart = int((several["distinct_det"] == 1).sum()), int((free["distinct_nd"] > 1).sum())
    of_several = plural(len(several), "cell")
    if len(several) and equal == len(several):
        yield Guideline(
            "Use deterministic mode where a result must be obtained again to the last bit.",
            f"Deterministic runs agreed to the last bit in {equal} of {of_several} ({DETERMINISM}).",
            "given when all cells with two or more deterministic runs agree",
        )
    if len(several) and equal < len(several):
        yield Guideline(
            "Do not rely on this study's deterministic mode: verify before you claim reproducibility.",
            f"Deterministic runs differed in {len(several) - equal} of {of_several} ({DETERMINISM}).",
            "given when any cell's deterministic runs differ",
        )
    # Emulated noise is put in on purpose: that it makes a difference says nothing about a fixed seed.
    if len(free) and apart == len(free) and noise_kinds(draft.study) == ["native"]:
        yield Guideline(
            "Do not expect a fixed seed alone to give the same network.",
            f"Runs with the same seed ended with different weights in {apart} of {plural(len(free), 'cell')} "
            f"({DETERMINISM}).",
            "given when the nd runs, free by CUDA's own noise, differ in all cells with two or more of them",
        )


def _spread(draft: Draft, task: str) -> Iterator[Guideline]:
    """A difference of two runs of one model, by the same-seed SD; of two models, by the total SD; runs for a mean."""
    study = draft.study
    metric, title = study.main_metric(task), study.title(task)
    sds = [find(study, task, metric) for find in (study_same_seed_sd, study_total_sd)]
    decided = [sd for sd in sds if sd.pooled.df >= LEAST_FREEDOM and sd.pooled.value > 0]
    below = f" {why}" if (why := inverted(study, task, metric)) else ""
    of = {"same-seed": "two runs of one model", "total": "two models, with one run of each,"}
    for sd in decided:
        gap = f"{in_points(sd.pooled.gap_of_two())} points of {METRIC_LABELS[metric]}"
        yield Guideline(
            f"{title}: do not take {of[sd.kind]} for different for less than {gap}.",
            f"{_sd_ground(sd)} t sqrt(2) SD, with t at these degrees of freedom, is what two runs that differ "
            f"by chance alone stay below 95 % of the time, if normal.{below if sd.kind == 'total' else ''}",
            f"given when the pooled {sd.kind} SD has at least {LEAST_FREEDOM} degrees of freedom",
        )
    # A published mean is one over seeds: the total SD where there is one.
    for sd in decided[-1:]:
        interval = sd.pooled.interval()
        ends = (interval.low or 0.0, sd.pooled.value, interval.high or math.inf)
        least, wanted, most = (replicates_for_mean(PRECISION, end).n for end in ends)
        runs = "runs" if sd.kind == "total" else "runs of one seed"
        if wanted and wanted > 2:
            yield Guideline(
                f"{title}: train at least {wanted:,} {runs} to know mean {METRIC_LABELS[metric]} to "
                f"{100 * PRECISION:g} points either way (95 %).",
                f"{_sd_ground(sd)} The smallest n with t SD / sqrt(n) of at most that; at the ends of the SD's "
                f"interval {' and '.join(f'{n:,}' if n else 'no number' for n in (least, most))}.",
                f"given when the pooled {sd.kind} SD has at least {LEAST_FREEDOM} degrees of freedom, and more than "
                "two runs are needed",
            )


def _sd_ground(sd: StudySd) -> str:
    table = (
        "Spread of identical runs"
        if sd.source.startswith("arm")
        else "Seed or implementation noise: where the variance is"
    )
    words = sd.said().removesuffix(")")
    return f'{words[0].upper()}{words[1:]}; table "{table}").'


def _churn(draft: Draft, task: str) -> Iterator[Guideline]:
    if "churn" not in draft.tables:
        return
    study = draft.study
    cells, spread = (chosen(draft.frame(name), task=task, arm=study.free_arm) for name in ("churn", "hidden"))
    cells, spread = cells[cells["churn"].notna()], spread[spread["sd_accuracy"].notna()]
    if cells.empty or spread.empty:
        return
    # The mean absolute difference in accuracy of two runs, if normal.
    typical = 2 / math.sqrt(math.pi) * PooledSd.of_sds(spread["sd_accuracy"], spread["n"]).value
    least = float(cells["churn_low"].min(skipna=False))  # a cell without an interval decides nothing
    if least > 2 * typical:
        yield Guideline(
            f"{study.title(task)}: report churn beside accuracy: runs of almost equal accuracy name different "
            "classes for many images.",
            f"{'Runs' if study.free_arm == 'all' else 'Identical runs'} of a cell disagree on "
            f"{100 * cells['churn'].mean():.1f} % of the images, at least "
            f"{100 * least:.1f} % in every cell's interval, while their accuracies differ by "
            f"{in_points(typical)} points on average "
            '(tables "Churn of identical runs", "What accuracy hides").',
            "given when every cell's interval of churn lies above twice the mean difference in accuracy",
        )


def _seeds(draft: Draft, task: str) -> Iterator[Guideline]:
    title, ends = draft.study.title(task), []
    if "churn" not in draft.tables:
        return
    for optimizer in draft.study.optimizers:
        arms = chosen(draft.frame("churn_arms"), task=task, optimizer=optimizer, comparison="nd, same seed")
        known = arms[["over_seeds_low", "over_seeds_high"]].dropna()
        if known.empty:
            return
        ends.append(tuple(known.iloc[0]))
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    ground = (
        f"Churn of identical runs is {low:.2f} to {high:.2f} of that between other seeds (95 % intervals over seeds "
        f'and images, {plural(len(ends), "optimizer")}; table "Churn of twins beside churn of seeds").'
    )
    if low >= ALIKE:
        yield Guideline(
            f"{title}: count implementation noise as a source of variance as large as the seed.",
            ground,
            f"given when the interval lies above {ALIKE} for every optimizer",
        )
    if high <= APART:
        yield Guideline(
            f"{title}: vary the seeds, not the replicates, to see the variance of training.",
            ground,
            f"given when the interval lies below {APART} for every optimizer",
        )


def _ensembles(draft: Draft, task: str) -> Iterator[Guideline]:
    if "hidden" not in draft.tables:
        return
    gains = chosen(draft.frame("hidden"), task=task, arm=draft.study.free_arm)["ensemble_gain"].dropna()
    interval = mean_interval(gains)
    if len(gains) > LEAST_FREEDOM and gains.nunique() > 1 and (interval.low or 0) > 0:
        gain, low, high = with_ends(*(100 * (end or 0.0) for end in (interval.value, interval.low, interval.high)))
        yield Guideline(
            f"{draft.study.title(task)}: average the runs' probabilities rather than choosing one run.",
            f"The average is more accurate than its members by {gain} points, 95 % t interval "
            f"{low} to {high} over {len(gains)} cells "
            '(table "What accuracy hides").',
            f"given when there are more than {LEAST_FREEDOM} cells and the interval of the mean gain lies above 0",
        )


SECTION = Section(
    "guidelines",
    "Guidelines",
    about="Each is derived by the rule beside it from this study's numbers; where they do not decide, nothing is said.",
    folded=False,
    sentences=sentences,
)
