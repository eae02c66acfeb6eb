"""`twinrun power`: how many runs a question takes and what n runs can show, from a study, twins or given SDs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from twinrun.collect.schema import read_twins
from twinrun.collect.study import METRIC_LABELS, Study, remarks
from twinrun.report.evidence import twins_runs
from twinrun.report.study_sd import StudySd, inverted, study_same_seed_sd, study_total_sd
from twinrun.stats import power
from twinrun.stats.digits import two_digits
from twinrun.stats.intervals import PooledSd
from twinrun.stats.power import Needed
from twinrun.study.errors import IncompleteError, InputError

GIVEN = "given"
NO_TOTAL = (
    "without it no plan for two models: the same-seed SD is too small for that; train the arm `all`, or several seeds"
)


@dataclass(frozen=True)
class Wanted:
    """What is asked: `precision` is relative; differences and margin are in the unit of the SD; None is not asked."""

    precision: float = 0.25
    difference: float | None = None
    margin: float | None = None
    true_difference: float = 0.0
    alpha: float = 0.05
    power: float = 0.8
    correlation: float | None = None
    runs: int | None = None
    sd_ratio: float | None = None


@dataclass(frozen=True)
class Source:
    """An SD to plan with; without `unit` it is in that of the metric, and with kind "given" it has no interval."""

    title: str
    sd: StudySd
    unit: str = ""
    remark: str = ""  # why a total SD is below the same-seed SD

    def amount(self, size: float) -> str:
        """A difference with the unit: `1 point`, `0.5 points`, `0.005`."""
        unit = self.unit.removesuffix("s") if size == 1 else self.unit
        return f"{size:g} {unit}".rstrip()

    @property
    def heading(self) -> str:
        """What it is, with its interval."""
        if self.sd.kind == GIVEN:
            return f"{self.title}: difference, margin and SD in one unit"
        return f"{self.title}: {self.sd.said(two_digits, self.unit)}"


def study_sources(study: Study) -> list[Source]:
    """The total and the same-seed SD of each task's main metric, in points."""
    sources = []
    for task in study.tasks:
        metric = study.main_metric(task)
        title = f"{study.title(task)}, {METRIC_LABELS[metric]}"
        for sd in (study_total_sd(study, task, metric), study_same_seed_sd(study, task, metric)):
            pooled = PooledSd(100 * sd.pooled.value, sd.pooled.df)
            remark = inverted(study, task, metric) if sd.kind == "total" else ""
            sources.append(Source(title, replace(sd, pooled=pooled), "points", remark))
    return sources


def study_wanted(study: Study) -> Wanted:
    """The margin and level of the study's params; a difference as large as the margin."""
    chosen = study.assumptions
    margin = chosen.equivalence_margin_points
    return Wanted(difference=margin, margin=margin, alpha=chosen.alpha)


def twins_sources(folder: Path, metric: str | None) -> list[Source]:
    """The SD of one metric over the twins of `twinrun twins`, in the metric's own unit; total if their arm is all."""
    if not (folder / "twins.json").is_file():
        hint = (
            "`twinrun compare` tells the SD of a table's runs: give it as --sd"
            if folder.is_file()
            else "it holds no twins.json"
        )
        raise InputError(f"{folder} is no folder of `twinrun twins`", hint)
    runs = twins_runs([folder], metric)
    (values,) = runs.values.values()
    arm = read_twins(folder).arm
    kind = "total" if arm == "all" else "same-seed"
    return [Source(f"{folder}, {runs.metric}", StudySd(kind, PooledSd.of([values]), f"{len(values)} twins, arm {arm}"))]


def given_sources(values: Sequence[float]) -> list[Source]:
    """SDs given by hand. Raises InputError for one that is not above 0.

    >>> given_sources([0.2])[0].title
    'SD 0.2'
    """
    for value in values:
        power.positive("--sd", value)
    return [Source(f"SD {value:g}", StudySd(GIVEN, PooledSd(value, 0), "")) for value in values]


def plan_text(sources: Sequence[Source], wanted: Wanted) -> str:
    """For each SD its plan, at its value and at both ends of its interval.

    Raises IncompleteError when no SD can be planned with, InputError when nothing is asked in the SDs' unit.
    """
    if not sources[0].unit and wanted.difference is None and wanted.runs is None and wanted.sd_ratio is None:
        raise InputError(
            f"{sources[0].title}: which difference, in the same unit?",
            "give --difference, --margin or --n: 0.005 beside an SD of 0.062, or 0.5 beside one of 6.2 points",
        )
    known = [source for source in sources if source.sd.kind == GIVEN or source.sd.pooled.value > 0]
    blocks = [_block(source, wanted) for source in sources]
    if not known:
        raise IncompleteError(f"no SD to plan with: {'; '.join(block[0] for block in blocks)}", "give one with --sd")
    percent = f"{100 * wanted.alpha:g} %"
    precise = power.replicates_for_sd(wanted.precision, 1 - wanted.alpha)
    notes = [
        f"Power {100 * wanted.power:g} %; two-sided t-test at {percent}, TOST at {percent}.",
        f"{_count(precise)} runs give an SD whose {100 * (1 - wanted.alpha):g} % interval ends at most "
        f"{100 * wanted.precision:g} % above it, whatever the SD.",
    ]
    if any(source.sd.kind != GIVEN for source in known):
        notes.insert(1, "An SD is an estimate: the number for its upper end is the safe one.")
    if wanted.sd_ratio is not None:
        needed = power.replicates_for_sd_ratio(wanted.sd_ratio, wanted.alpha, wanted.power)
        notes.append(
            f"{_count(needed)} runs of each show that one SD is {wanted.sd_ratio:g} times the other, if normal (F)."
            if needed.n is not None
            else f"SD ratio {wanted.sd_ratio:g}: {needed.reason}."
        )
    answers = [line for source in known for line in _answers(source, wanted)]
    return "\n".join([*answers, *([""] if answers else []), *("\n".join(block) for block in blocks), "", *notes])


def _answers(source: Source, wanted: Wanted) -> list[str]:
    """Each question answered: `Digits, accuracy: two models, 0.5 points apart: 126 runs of each (...)."""
    lines = list[str]()
    if not _columns(source):
        return lines
    for words, needed in _questions(source, wanted):
        what, _, unit = words.rpartition(": ")
        if source.sd.kind == GIVEN:
            answer, ends = needed(source.sd.pooled.value), ""
        else:
            planned = power.plan(source.sd.pooled, source.sd.kind, needed)
            answer, ends = planned.needed, planned.at_the_ends
        said = answer.reason if answer.n is None else f"{answer.n:,} {' '.join(filter(None, (unit, ends)))}"
        lines.append(f"{source.title}: {what}: {said}.")
    for words, shown in _detectable(source, wanted):
        size, *others = (two_digits(shown(value)) for value in _columns(source))
        between = f"({' to '.join(others)} at the ends of the SD's interval)" if others else ""
        what = words.removesuffix(f", {source.unit}")
        lines.append(f"{source.title}: {what}: {' '.join(filter(None, (size, source.unit, between)))}.")
    return lines


def _columns(source: Source) -> list[float]:
    """The SD, and the ends of its interval where it has one; none where it cannot be planned with."""
    sd = source.sd
    if sd.kind == GIVEN:
        return [sd.pooled.value]
    planned = power.plan(sd.pooled, sd.kind, lambda _: Needed(0))
    if planned.sd_low is None or planned.sd_high is None:
        return []
    return [sd.pooled.value, planned.sd_low, planned.sd_high]


def _block(source: Source, wanted: Wanted) -> list[str]:
    lines, sd = [source.heading], source.sd
    if not (columns := _columns(source)):
        why = NO_TOTAL if sd.kind == "total" and not sd.pooled.df else ""
        reason = power.plan(sd.pooled, sd.kind, lambda _: Needed(0)).needed.reason
        return [f"{lines[0]}: {remarks(reason, why)}"]
    rows, reasons = list[tuple[str, list[str]]](), []
    for words, needed in _questions(source, wanted):
        if sd.kind == GIVEN:
            answers = [needed(sd.pooled.value)]
        else:
            planned = power.plan(sd.pooled, sd.kind, needed)
            answers = [planned.needed, planned.needed_low, planned.needed_high]
        rows.append((words, [_count(answer) for answer in answers]))
        reasons += [f"    none: {answer.reason}" for answer in answers if answer.reason]
    rows += [(words, [two_digits(shown(value)) for value in columns]) for words, shown in _detectable(source, wanted)]
    if sd.kind == "same-seed":
        gap = " ".join(filter(None, (two_digits(sd.pooled.gap_of_two()), source.unit)))
        lines.append(f"  for two runs of one model only: they differ by less than {gap} 95 % of the time (t)")
    lines += [f"  {source.remark}"] if source.remark else []
    width = max((len(words) for words, _ in rows), default=0)
    number = "{:g}".format if sd.kind == GIVEN else two_digits
    heads = [" ".join(filter(None, (f"SD {number(value)}", source.unit))) for value in columns]
    cell = max(map(len, heads)) + 2
    if rows:
        lines.append(f"  {'':<{width}}" + "".join(f"{head:>{cell}}" for head in heads))
    lines += [f"  {words:<{width}}" + "".join(f"{text:>{cell}}" for text in texts) for words, texts in rows]
    return [*lines, *dict.fromkeys(reasons)]


def _questions(source: Source, wanted: Wanted) -> list[tuple[str, Callable[[float], Needed]]]:
    """What the SD answers, in words, and the runs that it takes as a function of the SD."""
    levels, asked = (wanted.alpha, wanted.power), []
    if (size := wanted.difference) is not None and source.sd.kind == "same-seed":
        asked.append(
            (
                f"one new run of the same model, {source.amount(size)} off: runs to hold it against",
                lambda sd: power.replicates_against_one(size, sd, *levels),
            )
        )
    elif size is not None:
        asked.append(
            (
                f"two models, {source.amount(size)} apart: runs of each",
                lambda sd: power.replicates_for_difference(size, sd, *levels),
            )
        )
        if (shared := wanted.correlation) is not None:
            asked.append(
                (
                    f"the same in pairs that correlate by {shared:g}: pairs",
                    lambda sd: power.replicates_of_pairs(size, _of_pairs(sd, shared), *levels),
                )
            )
    if (margin := wanted.margin) is not None and source.sd.kind != "same-seed":
        truth = wanted.true_difference
        asked.append(
            (
                f"two models equal to within {source.amount(margin)}{f', truly {truth:g} apart' if truth else ''}: "
                "runs of each",
                lambda sd: power.replicates_for_equivalence(margin, sd, *levels, truth),
            )
        )
    return asked


def _detectable(source: Source, wanted: Wanted) -> list[tuple[str, Callable[[float], float]]]:
    """What `wanted.runs` can show, as a function of the SD."""
    if (n := wanted.runs) is None or source.sd.kind == "same-seed":
        return []
    levels, unit = (wanted.alpha, wanted.power), f", {source.unit}" if source.unit else ""
    shown: list[tuple[str, Callable[[float], float]]] = [
        (
            f"{n} runs of each: smallest difference that they show{unit}",
            lambda sd: power.smallest_detectable(sd * math.sqrt(2 / n), 2 * n - 2, *levels),
        )
    ]
    if (shared := wanted.correlation) is not None:
        shown.append(
            (
                f"{n} pairs that correlate by {shared:g}: the same{unit}",
                lambda sd: power.smallest_detectable(_of_pairs(sd, shared) / math.sqrt(n), n - 1, *levels),
            )
        )
    return shown


def _of_pairs(sd: float, correlation: float) -> float:
    """The SD of the differences of pairs."""
    return sd * math.sqrt(2 * (1 - correlation))


def _count(needed: Needed) -> str:
    return "none" if needed.n is None else f"{needed.n:,}"
