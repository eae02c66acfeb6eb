"""The first screen: four questions, each with a large answer, a sentence and a small picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from twinrun.collect.study import Group, Study
from twinrun.report.alike import findings
from twinrun.report.names import METRIC_LABELS, nd_noise
from twinrun.report.section import Answer, Draft, Row, Section, image
from twinrun.report.study_sd import StudySd, inverted, study_same_seed_sd, study_total_sd
from twinrun.report.table import in_points
from twinrun.stats.cost import CostEstimate, judge
from twinrun.stats.digits import with_ends
from twinrun.stats.intervals import PooledSd
from twinrun.stats.power import Needed, Planned, plan, replicates_for_difference
from twinrun.stats.samples import Sample
from twinrun.study.errors import ResourceError, TwinrunError, plural
from twinrun.study.files import read_json
from twinrun.study.layout import Layout

MOST_ROWS = 4  # tasks, or costs, in one picture
MOST_SQUARES = 120
MOST_NAMED = 3  # cells named in a sentence
POINT = 0.01  # the difference whose runs are counted: one point


class TaskSpread(NamedTuple):
    """A task and one of its SDs."""

    task: str
    sd: StudySd

    @property
    def pooled(self) -> PooledSd:
        """In the unit of the metric."""
        return self.sd.pooled


def answers(draft: Draft) -> list[Answer]:
    """The four answers in the order of the page."""
    study = draft.study
    return [deterministic(study), identical_runs(draft), real_difference(study), cost_of_determinism(study)]


def deterministic(study: Study) -> Answer:
    """Whether deterministic runs of a cell end with the same bits, cell by cell."""
    question = "Is training deterministic?"
    if not study.records("weights"):
        words = (
            "Imported results say nothing of the weights: `twinrun twins` holds starts of a program against each other."
        )
        return Answer("deterministic", question, "Not recorded", words)
    groups = list(study.groups("det"))
    several = [group for group in groups if len(group.places) > 1]
    single = sum(len(group.places) == 1 for group in groups)
    apart = [group for group in several if group.runs["fingerprint"].nunique() > 1]
    rest = f" {plural(single, 'more cell')} had one deterministic run: not tested." if single and several else ""
    if not several and not single:
        value = "Not tested"
        words = "This study has no deterministic runs: add `det_1` and `det_2` to `runs` in `params.yaml`."
    elif not several:
        value = "Not tested"
        words = (
            f"{'The' if single == 1 else 'Each'} cell has one deterministic run, and it takes two. "
            "`twinrun verify` trains them again and compares; `det_2` in `runs` of `params.yaml` puts it on this page."
        )
    elif apart:
        first, second = apart[0].runs["id"].iloc[0], apart[0].runs["label"].iloc[1]
        value = f"No: {len(apart)} of {plural(len(several), 'cell')} {'differs' if len(apart) == 1 else 'differ'}"
        words = (
            f"Deterministic runs end with different bits in {_listed(apart)}. Find the cause before you read on: "
            f"`twinrun locate {first} {second}` names the first operation."
        )
    else:
        value = f"Yes: {len(several)} of {plural(len(several), 'cell')}"
        runs = sum(len(group.places) for group in several)
        words = f"{plural(runs, 'deterministic run')}: within each cell all weights are equal to the last bit."
    return Answer("deterministic", question, value, words + rest, _cell_squares(study, groups))


def _listed(groups: Sequence[Group]) -> str:
    names = [f"`{group.cell.task}/{group.cell.optimizer}/{group.cell.seed}`" for group in groups[:MOST_NAMED]]
    more = len(groups) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _cell_squares(study: Study, groups: Sequence[Group]) -> tuple[Row, ...]:
    """A square a cell, task by task: full when equal, crossed when not, hollow when not tested."""
    if not any(len(group.places) for group in groups) or len(groups) > MOST_SQUARES:
        return ()
    rows = []
    for task in study.tasks[:MOST_ROWS]:
        of_task = [group for group in groups if group.cell.task == task]
        tested = [group for group in of_task if len(group.places) > 1]
        equal = sum(group.runs["fingerprint"].nunique() == 1 for group in tested)
        note = f"{equal} of {len(tested)} equal" if tested else "not tested"
        rows.append(Row(_title(study, task), note, image([_square(*pair) for pair in enumerate(of_task)], note)))
    return tuple(rows)


def _square(place: int, group: Group) -> str:
    left = 1 + 15 * place
    if len(group.places) < 2:
        return f'<rect class="hollow" x="{left}" y="2" width="11" height="11"/>'
    if group.runs["fingerprint"].nunique() == 1:
        return f'<rect class="full" x="{left}" y="2" width="11" height="11"/>'
    return f'<path class="cross" d="M{left} 2l11 11m0-11l-11 11"/>'


def identical_runs(draft: Draft) -> Answer:
    """How far runs with the same seed are apart: SD of the main metric, and churn beside the error.

    In a study without `nd`, the same of the arm `all`, under its name.
    """
    study, question = draft.study, "How far are identical runs apart?"
    everything = study.free_arm == "all"
    if everything:
        question = "How far apart are runs in which everything is free?"
    measure = study_total_sd if everything else study_same_seed_sd
    spreads = [TaskSpread(task, measure(study, task, study.main_metric(task))) for task in study.tasks]
    known = _widest(spread for spread in spreads if _is_known(spread.sd))
    if not known:
        words = "No cell has two complete `nd` runs: add `nd_1` to `nd_3` to `runs` in `params.yaml`."
        if study.imported:
            words = "No two of the imported runs share a seed: what identical runs do is not told apart from the seeds."
        return Answer("identical", question, "Not measured", words)
    first = known[0]
    metric, interval = METRIC_LABELS[study.main_metric(first.task)], first.pooled.interval()
    if first.pooled.value == 0:
        value = "SD 0 points"
        words = f"All {study.free_arm} runs of a cell ({nd_noise(study)}) have the same {metric}."
    else:
        value = f"SD {in_points(first.pooled.value)} points"
        low, high = in_points(interval.low), in_points(interval.high)
        free = f"over runs that share the seed; only {nd_noise(study)} is free ({first.sd.source})."
        if everything:
            free = f"{nd_noise(study)} ({first.sd.source}). Identical runs, `nd`, were not tried."
        words = f"of {metric}{_on(study, first.task)}, 95 % interval {low} to {high}, {free}"
    churn = _churn_words(draft, first.task)
    deviations = {spread.task: _deviations(study, spread.task) for spread in known[:MOST_ROWS]}
    limit = max(1.1 * float(np.abs(np.concatenate(list(deviations.values()))).max()), 1e-9)
    rows = [
        Row(
            _title(study, spread.task),
            f"SD {in_points(spread.pooled.value)}{_churn_note(draft, spread.task)}",
            _dots(deviations[spread.task] / limit, spread.pooled.value / limit),
        )
        for spread in known[:MOST_ROWS]
    ]
    scale = (
        f"\N{MINUS SIGN}{in_points(limit)}",
        f"a dot a run, from its {study.setting_word if everything else 'cell'}'s mean",
        f"+{in_points(limit)} points",
    )
    drawn = tuple(rows) if first.pooled.value else ()
    return Answer("identical", question, value, f"{words}{churn}", drawn, scale if drawn else ())


def _deviations(study: Study, task: str) -> Sample:
    """Of each run's main metric from the mean of those that it is a twin of: its cell, in `all` its optimizer."""
    metric, arm = study.main_metric(task), study.free_arm
    sets = [setting.samples(arm, metric) for setting in study.settings(task)]
    twins = [np.concatenate(cells) for cells in sets if cells] if arm == "all" else [x for cells in sets for x in cells]
    return np.concatenate([values - values.mean() for values in twins if values.size > 1])


def _churn_and_error(draft: Draft, task: str) -> tuple[float, float] | None:
    known = [item for item in draft.agreed(task, draft.study.free_arm) if item.churn is not None]
    churn, error = ([getattr(item, name) for item in known] for name in ("churn", "error"))
    return (100 * float(np.mean(churn)), 100 * float(np.mean(error))) if known else None


def _churn_words(draft: Draft, task: str) -> str:
    pair = _churn_and_error(draft, task)
    if pair is None:
        return ""
    return (
        f" Two of them name different classes for {pair[0]:.1f} % of the test images, at an error of {pair[1]:.1f} %."
    )


def _churn_note(draft: Draft, task: str) -> str:
    pair = _churn_and_error(draft, task)
    return "" if pair is None else f" \N{MIDDLE DOT} churn {pair[0]:.1f} % \N{MIDDLE DOT} error {pair[1]:.1f} %"


def real_difference(study: Study) -> Answer:
    """The difference of two single runs that noise stays below, and the runs that would show one point."""
    question = "What difference between two models is real here?"
    spreads = [spread for task in study.tasks if (spread := _for_models(study, task))]
    known = _widest(spreads)
    if not known:
        words = (
            "That takes runs with other seeds: add seeds to the grid, or `all_1` to `all_5` to `runs` in "
            "`params.yaml`. For results from anywhere: `twinrun compare`."
        )
        if study.imported:
            words = "That takes two runs or more of a " + study.setting_word + "."
        return Answer("difference", question, "Not known", words)
    first = known[0]
    metric = METRIC_LABELS[study.main_metric(first.task)]
    if first.pooled.value == 0:
        words = (
            f"The {first.sd.kind} SD of {metric} is 0, no two runs differ ({first.sd.source}): nothing to plan with."
        )
        return Answer("difference", question, "Not known", words)
    gap, interval, planned = first.pooled.gap_of_two(), first.pooled.interval(), _one_point(first)
    narrow = ""
    if first.sd.kind == "same-seed":
        narrow = " Other seeds were not tried and would widen it: this holds for two runs with one seed."
    elif why := inverted(study, first.task, study.main_metric(first.task)):
        narrow = f" {why}"
    words = (
        f"of {metric}{_on(study, first.task)}, if each model is one run: 95 % of the time noise alone stays below ("
        f"{first.sd.kind} SD {in_points(first.pooled.value)}, interval {in_points(interval.low)} to "
        f"{in_points(interval.high)}; {first.sd.source}).{narrow} {_point_words(planned)}"
    )
    widest = max(spread.pooled.gap_of_two() for spread in known)
    rows = []
    for spread in known[:MOST_ROWS]:
        share = in_points(spread.pooled.gap_of_two())
        note = f"{share} points \N{MIDDLE DOT} 1 point takes {_needed(_one_point(spread))}"
        rows.append(Row(_title(study, spread.task), note, _bar(spread.pooled.gap_of_two() / widest, f"{share} points")))
    return Answer("difference", question, f"More than {in_points(gap)} points", words, tuple(rows))


def _for_models(study: Study, task: str) -> TaskSpread | None:
    """The total SD of a task; the same-seed SD where there is none, and None where there is neither."""
    for measure in (study_total_sd, study_same_seed_sd):
        sd = measure(study, task, study.main_metric(task))
        if _is_known(sd):
            return TaskSpread(task, sd)
    return None


def _is_known(sd: StudySd) -> bool:
    return bool(sd.pooled.df) and not math.isnan(sd.pooled.value)


def _one_point(spread: TaskSpread) -> Planned:
    return plan(spread.pooled, spread.sd.kind, lambda sd: replicates_for_difference(POINT, sd))


def _needed(planned: Planned) -> str:
    return f"{_count(planned.needed)} each" if planned.needed.n else planned.needed.reason


def _count(needed: Needed) -> str:
    return f"{needed.n:,} runs" if needed.n else needed.reason


def _point_words(planned: Planned) -> str:
    ends = f" {planned.at_the_ends}" if planned.at_the_ends else ""
    return f"To see 1 point it takes {_count(planned.needed)} of each model{ends}, with a power of 80 %."


def cost_of_determinism(study: Study) -> Answer:
    """What `twinrun cost` measured beside the study; whole-run times prove no cost and are not shown here."""
    question = "What did determinism cost?"
    if not study.records("measurements"):
        return Answer("cost", question, "Not recorded", "Imported results have no times; `twinrun cost` measures them.")
    measured = _measured(study)
    if not measured:
        words = (
            f"`twinrun cost {study.tasks[0]}` measures it: interleaved fresh processes with a control, one flag at a "
            "time. Times of whole runs are confounded and prove no cost."
        )
        return Answer("cost", question, "Not measured", words)
    name, estimate, device = max(measured, key=lambda item: abs(math.log(item[1].ratio)))
    percent, ends = f"{100 * (estimate.ratio - 1):+.1f}", ""
    if estimate.low is not None and estimate.high is not None:
        shares = (100 * (end - 1) for end in (estimate.ratio, estimate.low, estimate.high))
        percent, low, high = with_ends(*shares, sign="+")
        ends = f", 95 % interval {low} to {high} %"
    words = (
        f"more time for a training step of {name} on {device}{ends}; {plural(estimate.blocks, 'block')} with a "
        f"control, by `twinrun cost`. Verdict: {estimate.verdict}."
    )
    widest = max(abs(item.ratio - 1) for _, item, _ in measured) or 1.0
    rows = [
        Row(label, f"{100 * (item.ratio - 1):+.1f} %, {item.verdict}", _bar(abs(item.ratio - 1) / widest, item.verdict))
        for label, item, _ in measured[:MOST_ROWS]
    ]
    return Answer("cost", question, f"{percent} %", words, tuple(rows))


def _measured(study: Study) -> list[tuple[str, CostEstimate, str]]:
    """Task and optimizer, ratio of deterministic over free steps, and device, of each file of these runs' code."""
    folder, costs = Layout(study.folder.parent).cost("any").parent, []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            content = read_json(path)
            settings, blocks, ladder = content["settings"], content["blocks"], content["ladder"]
            task, optimizer = settings["run"].split("/")[:2]
            if settings["code"] != study.info["code_digest"] or task not in study.tasks:
                continue
            times = [[(item["rung"], float(np.median(item["step_seconds"]))) for item in block] for block in blocks]
            estimate = judge(times, ladder["base"], ladder["control"])[ladder["deterministic"]]
            host = blocks[0][0]["host"]
        except ResourceError:
            raise
        except (TwinrunError, LookupError, TypeError, ValueError, AttributeError):
            continue  # a file that is damaged or of another version says nothing; `twinrun cost` names it
        costs.append((f"{task}, {optimizer}", estimate, str(host.get("gpu") or host.get("cpu"))))
    return costs


def _widest(spreads: Iterable[TaskSpread]) -> list[TaskSpread]:
    return sorted(spreads, key=lambda spread: -spread.pooled.value)


def _title(study: Study, task: str) -> str:
    return study.title(task).replace("(procedural images)", "(procedural)")


def _on(study: Study, task: str) -> str:
    """The task, where there are several: then it is the one with the most spread."""
    return f" on {_title(study, task)}" if len(study.tasks) > 1 else ""


def _dots(places: Sample, sd: float) -> str:
    """A dot for each place in [-1, 1], in five lines so that equal values show, over a band of one SD either way."""
    dots = dict.fromkeys((f"{50 + 50 * place:.1f}", 3.5 + 2 * (n % 5)) for n, place in enumerate(places))
    band = f'<rect class="band" x="{50 - 50 * sd:.1f}%" y="0" width="{100 * sd:.1f}%" height="15"/>'
    marks = [f'<circle class="dot" cx="{x}%" cy="{y}" r="2.2"/>' for x, y in dots]
    return image([band, '<rect class="middle" x="50%" y="0" width="1" height="15"/>', *marks], f"{len(places)} runs")


def _bar(share: float, label: str) -> str:
    return image([f'<rect class="full" x="0" y="3" width="{100 * share:.1f}%" height="9"/>'], label)


SECTION = Section("answers", "Answers", folded=False, answers=answers, sentences=findings)
