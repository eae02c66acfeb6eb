"""Words for a paper: the paragraphs that checklists of venues ask for, filled from this study's numbers alone.

NeurIPS's paper checklist asks of error bars which factors of variability they hold, how they were made, under which
assumptions, whether they are SD or standard error. CLAIM (Mongan, Moy & Kahn 2020, Radiology: Artificial Intelligence
2, e200029) asks in its item 19 for the sample size, in its item 30 for robustness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from twinrun.collect.study import Setting, Study
from twinrun.report.names import METRIC_LABELS, OPTIMIZER_LABELS, nd_noise
from twinrun.report.section import Draft, Section
from twinrun.report.study_sd import StudySd, inverted, study_same_seed_sd, study_total_sd
from twinrun.report.table import in_points
from twinrun.stats import describe
from twinrun.stats.digits import with_ends
from twinrun.stats.intervals import mean_interval
from twinrun.stats.power import plan, replicates_for_difference, smallest_detectable
from twinrun.stats.samples import Sample
from twinrun.study.errors import plural

STREAMS = "initialization, order of the examples, augmentation, dropout"


class _Draws(NamedTuple):
    """What the error bar of one model is over: values in the unit of the metric, what each is, and what is free."""

    values: Sample
    each: str
    factors: str


def neurips(draft: Draft) -> list[str]:
    """For the item on error bars: a paragraph for each task."""
    study = draft.study
    return [" ".join(_error_bars(study, task)) for task in study.tasks]


def claim(draft: Draft) -> list[str]:
    """For the items on robustness and on sample size: two paragraphs for each task."""
    paragraphs = []
    for task in draft.study.tasks:
        paragraphs += [" ".join(_robustness(draft, task)), " ".join(_sample_size(draft.study, task))]
    return paragraphs


STATEMENTS: dict[str, tuple[str, Callable[[Draft], list[str]]]] = {
    "neurips": ("For the item on error bars of NeurIPS's checklist", neurips),
    "claim": ("For CLAIM's items on robustness (30) and sample size (19)", claim),
}


def statement(draft: Draft, kind: str) -> list[str]:
    """The paragraphs of one checklist; `kind` is a key of `STATEMENTS`."""
    return STATEMENTS[kind][1](draft)


def sentences(draft: Draft) -> list[str]:
    """The paragraphs of every checklist, each after the name of its item."""
    return [f"**{name}.** {text}" for name, make in STATEMENTS.values() for text in make(draft)]


def _error_bars(study: Study, task: str) -> Iterator[str]:
    metric, n_test = METRIC_LABELS[study.main_metric(task)], study.info["tasks"][task]["n_test"]
    settings = [(setting, _draws(setting)) for setting in study.settings(task)]
    known = [(setting, draws) for setting, draws in settings if draws is not None and draws.values.size > 1]
    if not known:
        yield (
            f"{study.title(task)}: no error bars can be given, because no model was trained twice with anything free; "
            "a single number says nothing of its variability."
        )
        return
    draws = known[0][1]
    each = f"{draws.each}; {metric} is that on {_tested(n_test)}{'' if study.imported else ' after the last epoch'}"
    yield f"{study.title(task)}: error bars hold the variability from {draws.factors}. n counts {each}."
    for setting, draws in known:
        interval, n = mean_interval(draws.values), draws.values.size
        sd = describe.sample_sd(draws.values)
        mean, ends = f"{100 * (interval.value or 0.0):.2f}", "no interval, all values are equal"
        if interval.value is not None and interval.low is not None and interval.high is not None and sd > 0:
            mean, low, high = with_ends(100 * interval.value, 100 * interval.low, 100 * interval.high)
            ends = f"95 % interval of the mean {low} to {high} %"
        yield (
            f"{_model(setting)}: mean {metric} {mean} %, SD {in_points(sd)} points, standard error of "
            f"the mean {in_points(sd / math.sqrt(n))} points, {ends}, n = {n}."
        )
    yield (
        "SD is the sample standard deviation with 1/(n-1); the interval is mean +- t SD / sqrt(n), with Student's t at "
        "n - 1 degrees of freedom. Both suppose independent draws, the interval that their mean is normally "
        "distributed. Not varied, and so not in the error bars: the split into training and test images, the choice of "
        f"the test images, and the hyperparameters.{_procedural(study, task)}"
    )


def _draws(setting: Setting) -> _Draws | None:
    """Runs with everything free; else means over seeds; else identical runs."""
    metric, noise = setting.metric, nd_noise(setting.study)
    everything = setting.samples("all", metric)
    together = np.concatenate(everything) if everything else np.empty(0)
    if together.size > 1:
        free = f"{STREAMS} and implementation noise ({noise}), all free at once"
        if setting.study.imported:
            free = "everything in which the trainings differed, which was not recorded"
        return _Draws(together, "trainings", free)
    seeds = setting.samples("nd", metric)
    if len(seeds) > 1:
        runs = sorted({values.size for values in seeds})
        many = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
        each = f"seeds, each the mean of {many} training{'s' if runs[-1] > 1 else ''}"
        means = np.array([describe.mean(values) for values in seeds])
        return _Draws(means, each, f"the seed ({STREAMS}) and implementation noise ({noise})")
    if len(seeds) == 1 and seeds[0].size > 1:
        what = f"implementation noise alone ({noise}); the seed ({STREAMS}) is the same, so other seeds are not in them"
        return _Draws(seeds[0], "trainings with that seed", what)
    return None


def _robustness(draft: Draft, task: str) -> Iterator[str]:
    study = draft.study
    metric, title = METRIC_LABELS[study.main_metric(task)], study.title(task)
    yield f"{title}, robustness: each model was trained repeatedly and tested on the same images."
    same, total = (find(study, task, study.main_metric(task)) for find in (study_same_seed_sd, study_total_sd))
    for sd, what in (
        (same, f"trainings with nothing free but implementation noise ({nd_noise(study)})"),
        (total, "trainings in which the seed differs, too"),
    ):
        if sd.pooled.df:
            yield f"SD of {metric} over {what}: {_said(sd)}."
    if why := inverted(study, task, study.main_metric(task), "the second"):
        yield why
    if agreements := draft.agreed(task, "nd"):
        churn, error = (100 * describe.mean([getattr(a, name) for a in agreements]) for name in ("churn", "error"))
        yield (
            f"Two trainings that differ in that noise alone predict another class for {churn:.1f} % of the "
            f"{plural(study.info['tasks'][task]['n_test'], 'test image')}, at an error of {error:.1f} % (mean over "
            f"{plural(len(agreements), 'cell')} of model and seed)."
        )
    det = [group for group in study.groups("det", task=task) if len(group.places) > 1]
    equal = sum(group.runs["fingerprint"].nunique() == 1 for group in det)
    if det:
        cells = plural(len(det), "cell")
        yield f"Trainings in deterministic mode ended with equal weights, to the last bit, in {equal} of {cells}."
    if not (same.pooled.df or total.pooled.df or agreements or det):
        yield "No model was trained twice under conditions that can be compared, so nothing is known of it."
    yield f"Other data, scanners or sites were not tried.{_procedural(study, task)}"


def _sample_size(study: Study, task: str) -> Iterator[str]:
    metric = METRIC_LABELS[study.main_metric(task)]
    runs = study.results[(study.results["task"] == task) & (study.results["status"] == "complete")]
    design = f" of {plural(runs['optimizer'].nunique(), 'model')}"
    if not study.imported:
        design = (
            f": {plural(runs['optimizer'].nunique(), 'model')} by {plural(runs['seed'].nunique(), 'seed')} by "
            f"{plural(runs['label'].nunique(), 'training')}"
        )
    yield (
        f"{study.title(task)}, sample size: {_tested(study.info['tasks'][task]['n_test'])} and "
        f"{plural(len(runs), 'training')}{design}."
    )
    total = study_total_sd(study, task, study.main_metric(task))
    sizes = [draws.values.size for setting in study.settings(task) if (draws := _draws(setting)) is not None]
    if not (total.pooled.df and total.pooled.value > 0 and sizes and min(sizes) > 1):
        yield "How many trainings a difference of two models takes cannot be said: the total SD is not known."
        return
    n = min(sizes)
    gap = smallest_detectable(total.pooled.value * math.sqrt(2 / n), 2 * n - 2)
    margin = study.assumptions.equivalence_margin_points / 100
    planned = plan(total.pooled, "total", lambda sd: replicates_for_difference(margin, sd))
    yield (
        f"By the total SD of {metric}, {_said(total)}, {n} independent trainings of each of two models show a "
        f"difference of {in_points(gap)} points with a power of 80 % at a level of 5 % (two-sided t-test)."
    )
    if planned.needed.n and planned.at_the_ends:
        yield f"A difference of {100 * margin:g} points would take {planned.needed.n:,} of each {planned.at_the_ends}."


def _said(sd: StudySd) -> str:
    interval = sd.pooled.interval()
    ends = ""
    if interval.low is not None and interval.high is not None:
        ends = f"95 % interval {in_points(interval.low)} to {in_points(interval.high)}; "
    return f"{in_points(sd.pooled.value)} points ({ends}{sd.source})"


def _tested(n_test: int | None) -> str:
    return "test images whose number was not recorded" if n_test is None else plural(n_test, "test image")


def _procedural(study: Study, task: str) -> str:
    return " The images are drawn by a program." if study.procedural(task) else ""


def _model(setting: Setting) -> str:
    return f"{setting.task}, {OPTIMIZER_LABELS[setting.optimizer]}"


SECTION = Section(
    "statement",
    "Words for a paper",
    about=(
        "To copy into a paper or its checklist; every number is this study's. `twinrun report --statement neurips` (or "
        "`claim`) prints them alone. What a study cannot know, such as why its size was chosen, is for you to add."
    ),
    sentences=sentences,
    needs="predictions",
)
