"""What a section of the report is, and the report in the making that its functions are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from twinrun.collect.study import Group, Study
from twinrun.report.style import Drawn
from twinrun.report.table import Table
from twinrun.stats.agreement import Agreement, agreement
from twinrun.stats.samples import Interval, Progress, silent
from twinrun.study.files import digest


@dataclass
class Draft:
    """The report in the making: the study, the tables made so far, and what more than one section needs."""

    study: Study
    progress: Progress = silent
    tables: dict[str, Table] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)  # what several functions of a section need

    def frame(self, name: str) -> pd.DataFrame:
        """The frame of a table of this section or of one before it."""
        return self.tables[name].frame

    @cached_property
    def agreements(self) -> list[tuple[Group, Agreement]]:
        """How far the predictions of each group of twins agree; measured once, for it is most of the work."""
        study, measured = self.study, list[tuple[Group, Agreement]]()
        groups = list(study.groups(*study.paired_arms)) if study.records("predictions") else []
        for group in groups:
            task, rng = group.cell.task, study.rng("js", group.cell, group.arm)
            stream, classes = partial(study.stream, task), len(study.classes(task))
            measured.append((group, agreement(stream, group.rows, study.labels(task), classes, rng)))
            self.progress(len(measured), len(groups))
        return measured

    def agreed(self, task: str, arm: str, optimizer: str | None = None) -> list[Agreement]:
        """Those of one task and arm, and of one optimizer or all, that are of two runs or more."""
        cells = ((group.cell, group.arm, agreement) for group, agreement in self.agreements)
        return [
            agreement for cell, of, agreement in cells
            if (cell.task, of) == (task, arm) and optimizer in (None, cell.optimizer) and agreement.n > 1
        ]  # fmt: skip


class Row(NamedTuple):
    """One line of a small picture: its label, the numbers in words, and an SVG without text."""

    label: str
    note: str
    svg: str


def image(parts: Sequence[str], label: str) -> str:
    """The SVG of a row's small picture, 15 pixels high."""
    return f'<svg role="img" aria-label="{escape(label)}" width="100%" height="15">{"".join(parts)}</svg>'


class Answer(NamedTuple):
    """One of the first screen's answers: a large value, a sentence that goes on from it, and a small picture."""

    name: str
    question: str
    value: str
    words: str
    rows: tuple[Row, ...] = ()
    scale: tuple[str, ...] = ()  # left end, middle and right end of the picture's axis


def _nothing(draft: Draft) -> list[object]:
    return []


NEEDED = {
    "predictions": "what the runs predict for each test example",
    "weights": "the weights of the runs",
    "measurements": "seconds and joules",
    "deterministic": "deterministic runs to hold the others against",
}


@dataclass(frozen=True)
class Section:
    """One question of the report: its heading, and functions of the draft that make what stands under it.

    The tables of all sections are made first, and are in the draft when figures and sentences are; on the page the
    cards of `answers` come first, then the sentences, the figures and the tables. What bears a name of the thesis is
    moved to the end of the page. A section without a filled table or figure, card or sentence is one line: `filled_by`.
    """

    name: str  # its anchor on the page
    title: str
    about: str = ""  # a paragraph before everything else
    filled_by: str = ""  # what would fill it, as the end of a sentence that begins with "Needs"
    folded: bool = True  # on the page, until it is opened
    tables: Callable[[Draft], Iterable[Table]] = _nothing  # type: ignore[assignment]
    figures: Callable[[Draft], Iterable[Drawn]] = _nothing  # type: ignore[assignment]
    sentences: Callable[[Draft], Iterable[str]] = _nothing  # type: ignore[assignment]
    answers: Callable[[Draft], Iterable[Answer]] = _nothing  # type: ignore[assignment]
    needs: str = ""  # what must have been recorded for it: a key of NEEDED; imported results have not everything

    def lacks(self, study: Study) -> str:
        """What the section needs and this study has not recorded, in words; empty where it has."""
        return NEEDED[self.needs] if self.needs and not study.records(self.needs) else ""


def generator(*names: object) -> np.random.Generator:
    """A generator that depends on the names alone, so that neither order nor number of cores changes a result."""
    return np.random.default_rng(int(digest([str(name) for name in names])[:16], 16))


def with_interval(name: str, interval: Interval) -> dict[str, float | None]:
    """A value and both ends of its interval, as columns of a row: `churn`, `churn_low` and `churn_high`."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def chosen(frame: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows that have these values."""
    for name, value in values.items():
        frame = frame[frame[name] == value]
    return frame
