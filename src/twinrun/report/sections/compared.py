"""What was compared: tasks on the same data as models, optimizers as recipes, by the machinery of `twinrun compare`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from twinrun.collect.study import Study, remarks
from twinrun.report.comparison import Compared, compare_runs, need_words
from twinrun.report.evidence import runs_of
from twinrun.report.names import METRIC_LABELS, OPTIMIZER_LABELS
from twinrun.report.section import Answer, Draft, Row, Section, image, with_interval
from twinrun.report.table import METRIC, P_VALUE, REMARK, Column, Table, ends
from twinrun.stats.compare import Comparison, Verdict
from twinrun.stats.digits import with_ends
from twinrun.study.errors import InputError, plural

MOST_CARDS = 6
POINTS = 100
NEEDS = (
    "two optimizers, or two tasks with the same data block, and free runs of each: `all_1` to `all_5`, or `nd_1` to "
    "`nd_3` with several seeds, in `params.yaml`"
)
COLUMNS = (
    Column("question", "What", "", "models: tasks on the same data; else what differs within a task"),
    Column("on", "On", "", "what both have in common: the optimizer, or the task"),
    Column("a", "A", "", "the first"),
    Column("b", "B", "", "the second"),
    Column("verdict", "Verdict", "", "on B: better, worse, equivalent within the margin, or cannot tell"),
    Column("difference", "B - A", "+.2f", "in points of 100", factor=POINTS),
    *ends("difference", "", "+.2f", "its 95 % interval", factor=POINTS),
    METRIC,
    Column("n_a", "n A", "d", "values of A: runs, or seeds with the mean of their runs"),
    Column("n_b", "n B", "d", "values of B"),
    Column("mean_a", "Mean A", ".4f", "mean", digits_of="difference"),
    Column("mean_b", "Mean B", ".4f", "mean", digits_of="difference"),
    Column("p", "p", P_VALUE, "of the test by the same t"),
    Column("p_holm", "p Holm", P_VALUE, "adjusted over the pairs of the row's question"),
    REMARK,
)


class Family(NamedTuple):
    """Sets of runs that are compared with each other: what they are, what they share, and each one's name and label."""

    question: str
    on: str
    names: dict[str, str]  # TASK/OPTIMIZER, and as a person reads it


class Pair(NamedTuple):
    """One comparison, with the family that it is of."""

    family: Family
    compared: Compared
    names: tuple[str, str]

    @property
    def item(self) -> Comparison:
        """Its numbers."""
        return self.compared.comparisons[self.names]

    @property
    def verdict(self) -> Verdict:
        """After Holm's correction within the family."""
        return self.compared.verdict(self.names)

    @property
    def labels(self) -> tuple[str, str]:
        """A and B as a person reads them."""
        return self.family.names[self.names[0]], self.family.names[self.names[1]]


class Pairs:
    """Every comparison of a study, and why families are missing."""

    def __init__(self, study: Study) -> None:
        self.study = study

    @cached_property
    def families(self) -> list[Family]:
        """Models first, then recipes."""
        study, families = self.study, list[Family]()
        digests = {task: study.info["tasks"][task].get("data_digest", task) for task in study.tasks}
        for digest in dict.fromkeys(digests.values()):
            tasks = [task for task in study.tasks if digests[task] == digest]
            for optimizer in study.optimizers if len(tasks) > 1 else ():
                names = {f"{task}/{optimizer}": study.title(task) for task in tasks}
                families.append(Family("models", OPTIMIZER_LABELS[optimizer], names))
        for task in study.tasks if len(study.optimizers) > 1 else ():
            names = {f"{task}/{name}": OPTIMIZER_LABELS[name] for name in study.optimizers}
            recipes = f"{study.setting_word}s" if study.imported else "recipes"
            families.append(Family(recipes, study.title(task), names))
        return families

    @cached_property
    def compared(self) -> list[tuple[Family, Compared | str]]:
        """Each family's comparisons, or the reason why there are none."""
        margin = self.study.assumptions.equivalence_margin_points / POINTS
        answers: list[tuple[Family, Compared | str]] = []
        for family in self.families:
            try:
                runs, lines = runs_of(self.study, list(family.names))
                answers.append((family, compare_runs(runs, lines, margin=margin)))
            except InputError as error:
                answers.append((family, error.message))
        return answers

    def __iter__(self) -> Iterator[Pair]:
        for family, compared in self.compared:
            if isinstance(compared, Compared):
                yield from (Pair(family, compared, names) for names in compared.comparisons)


def _pairs(draft: Draft) -> Pairs:
    """Made once: each comparison is thousands of permutations."""
    pairs: Pairs = draft.kept.setdefault("compared", Pairs(draft.study))
    return pairs


def tables(draft: Draft) -> list[Table]:
    """A row a pair."""
    pairs = _pairs(draft)
    margin = draft.study.assumptions.equivalence_margin_points
    every = (
        "Every pair of tasks on the same data (models), with each optimizer, and of optimizers (recipes), on each task"
    )
    if draft.study.imported:
        every = f"Every pair of {draft.study.setting_word}s, on each task"
    table = Table(
        name="compared",
        title="What was compared",
        caption=(
            f"{every}. Runs of the arm all are the values, where there are any: two independent groups, by Welch's t. "
            "Else the mean of each seed's nd runs is one value, paired by seed, by paired t. 95 % interval of the "
            "difference; a better and a worse must stand after Holm's correction over the pairs of one question; "
            f"equivalent: TOST with the margin of {margin:g} points (params: analysis.equivalence_margin_points). "
            "`twinrun compare` says the same of any two sets, with more tests."
        ),
        columns=COLUMNS,
        rows=[*map(_row, pairs), *(_absent(family, why) for family, why in pairs.compared if isinstance(why, str))],
        filled_by=NEEDS,
        main=True,
    )
    return [table]


def _row(pair: Pair) -> dict[str, Any]:
    item, interval = pair.item, pair.item.interval
    return {
        "question": pair.family.question,
        "on": pair.family.on,
        "a": pair.labels[0],
        "b": pair.labels[1],
        "metric": pair.compared.runs.metric,
        "n_a": item.n[0],
        "n_b": item.n[1],
        "mean_a": item.means[0],
        "mean_b": item.means[1],
        **with_interval("difference", interval),
        "p": item.test.p,
        "p_holm": pair.compared.corrected[pair.names],
        "verdict": str(pair.verdict),
        "remark": remarks(interval.reason, *pair.compared.runs.notes),
    }


def _absent(family: Family, why: str) -> dict[str, Any]:
    labels = list(family.names.values())
    return {"question": family.question, "on": family.on, "a": labels[0], "b": labels[1], "remark": why}


def answers(draft: Draft) -> list[Answer]:
    """A card a pair: who is better, by how much, and the interval beside 0."""
    pairs = list(_pairs(draft))[:MOST_CARDS]
    ends = [abs(end) for pair in pairs for end in (pair.item.interval.low, pair.item.interval.high) if end is not None]
    limit = 1.1 * max(ends, default=0.0) or 1.0
    return [_card(pair, limit, place) for place, pair in enumerate(pairs)]


def _card(pair: Pair, limit: float, place: int) -> Answer:
    (a, b), item, verdict = pair.labels, pair.item, pair.verdict
    if verdict is Verdict.CANNOT_TELL:
        value = "Cannot tell"
    elif verdict is Verdict.EQUIVALENT:
        value = "Equivalent"
    else:
        value = f"{b if verdict is Verdict.BETTER else a} is better"
    interval, rows = item.interval, tuple[Row, ...]()
    metric = METRIC_LABELS[pair.compared.runs.metric]
    if interval.value is None or interval.low is None or interval.high is None:
        words = f"No interval: {interval.reason}."
    else:
        shown = with_ends(POINTS * interval.value, POINTS * interval.low, POINTS * interval.high, sign="+")
        value_points, low, high = (number.replace("-", "\N{MINUS SIGN}") for number in shown)
        sizes = plural(item.n[0], "seed") + ", paired" if item.paired else f"{item.n[0]} and {item.n[1]} runs"
        words = f"{b} less {a}: {value_points} points of {metric}, 95 % interval {low} to {high} ({sizes})."
        rows = (Row(f"{b} less {a}", f"{low} to {high} points", _interval(interval.low, interval.high, limit)),)
    if verdict is Verdict.CANNOT_TELL and interval.low is not None:
        need = need_words(item, pair.labels)
        words += f" {need[0].upper()}{need[1:]}."
    if verdict is Verdict.EQUIVALENT and item.equivalence is not None:
        words += f" Within the margin of {POINTS * item.equivalence.margin:g} points."
    question = f"{a} or {b}? {pair.family.on}"
    return Answer(f"compared-{place + 1}", question, value, words, rows)


def _interval(low: float, high: float, limit: float) -> str:
    """The interval as a bar over a line at 0, on an axis from -limit to limit."""
    left, width = 50 + 50 * low / limit, max(50 * (high - low) / limit, 0.5)
    return image(
        [f'<rect class="full" x="{left:.1f}%" y="4" width="{width:.1f}%" height="7"/>',
         '<rect class="middle" x="50%" y="0" width="1" height="15"/>'],
        "interval of the difference beside 0",
    )  # fmt: skip


def sentences(draft: Draft) -> list[str]:
    """How many pairs are beyond the cards."""
    count = len(list(_pairs(draft)))
    more = count - MOST_CARDS
    return [f"{plural(more, 'more pair')} {'is' if more == 1 else 'are'} in the table."] if more > 0 else []


SECTION = Section(
    "compared",
    "What was compared",
    filled_by=NEEDS,
    folded=False,
    tables=tables,
    answers=answers,
    sentences=sentences,
)
