"""The collected study as tables and memory-mapped arrays, checked on the way in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twinrun.collect.load import (
    AGAIN,
    check_measured,
    one_row_a_run,
    read_frame,
    read_info,
    read_results,
    require_as_collected,
)  # fmt: skip
from twinrun.collect.schema import METRICS as METRICS
from twinrun.collect.study_arrays import StudyArrays
from twinrun.stats import describe
from twinrun.stats.samples import UNDEFINED, Estimate, Sample
from twinrun.study.errors import MismatchError, plural
from twinrun.study.files import digest
from twinrun.study.schema import Analysis


class Labels(dict[str, str]):
    """What people call something by its name; a name without an entry is its own label."""

    def __missing__(self, name: str) -> str:
        return name


METRIC_LABELS = Labels(accuracy="accuracy", f1="F1", auc="AUC", loss="loss")


def remarks(*reasons: str) -> str:
    """The reasons that apply, once each, as one text."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


@dataclass(frozen=True)
class Cell:
    """A (task, optimizer, seed)."""

    task: str
    optimizer: str
    seed: int | str  # `any`: the imported runs of all seeds together


@dataclass(frozen=True, eq=False)
class Group:
    """The runs of one arm of a cell: their values, and why some are missing."""

    study: Study
    cell: Cell
    arm: str
    places: NDArray[np.intp]  # of all its runs in `study.results`, in grid order

    @property
    def identity(self) -> dict[str, Any]:
        """The columns that say which group a row of a table is about."""
        return {"task": self.cell.task, "optimizer": self.cell.optimizer, "seed": self.cell.seed, "arm": self.arm}

    @cached_property
    def runs(self) -> pd.DataFrame:
        """All runs, the diverged ones too."""
        frame: pd.DataFrame = self.study.results.iloc[self.places]
        return frame

    @cached_property
    def complete(self) -> NDArray[np.intp]:
        """The places of the runs that came to their end."""
        places: NDArray[np.intp] = self.places[self.study.column("status")[self.places] == "complete"]
        return places

    @property
    def n(self) -> int:
        """How many runs are complete."""
        return len(self.complete)

    @property
    def pairs(self) -> int:
        """How many pairs of complete runs there are."""
        return self.n * (self.n - 1) // 2

    @property
    def rows(self) -> list[int]:
        """The rows of the complete runs in the arrays of their task."""
        rows: list[int] = self.study.column("row")[self.complete].tolist()
        return rows

    @property
    def measured(self) -> pd.DataFrame:
        """What was measured of the complete runs."""
        frame: pd.DataFrame = self.study.measured.iloc[self.complete]
        return frame

    def values(self, metric: str) -> Sample:
        """A metric of the complete runs; NaN where the record has none."""
        values: Sample = self.study.column(metric)[self.complete]
        return values

    def known(self, metric: str) -> Sample:
        """A metric of the complete runs that have one."""
        values = self.values(metric)
        return values[~np.isnan(values)]

    def single(self, metric: str) -> Estimate:
        """The one value that all complete runs have, or the reason why there is none or more than one."""
        known = self.known(metric)
        if np.any(known != known[:1]):
            return Estimate(None, f"{UNDEFINED}the deterministic runs differ")
        return Estimate(float(known[0]) if known.size else None, self.why(metric=metric))

    def why(self, wanted: int = 1, metric: str = "") -> str:
        """Which runs diverged, why fewer than `wanted` are complete, and why the metric is missing in some."""
        diverged = [str(label) for label in self.runs.loc[self.runs["status"] != "complete", "label"]]
        reasons = [f"{', '.join(diverged)} diverged" if diverged else ""]
        if not len(self.places):
            reasons.append(f"no {self.arm} runs in this study")
        elif self.n < wanted:
            reasons.append(f"{plural(self.n, 'complete run')} of the arm {self.arm}: it takes {wanted}")
        return remarks(*reasons, undefined_metric(metric, self.values(metric)) if metric else "")


_UNDEFINED_METRICS = {
    "auc": "the test set lacks a class, or probabilities are not recorded",
    "f1": "the test set has no positive example",
}


def undefined_metric(metric: str, values: Sample) -> str:
    """Why a metric has no value in some of the runs."""
    if not np.isnan(values).any():
        return ""
    why = _UNDEFINED_METRICS.get(metric, "it is not recorded")
    return f"{METRIC_LABELS[metric]} {UNDEFINED}{why}"


@dataclass(frozen=True, eq=False)
class Setting:
    """A task and an optimizer: what the seeds are draws of."""

    study: Study
    task: str
    optimizer: str

    @property
    def identity(self) -> dict[str, Any]:
        """The columns that say which setting a row of a table is about."""
        return {"task": self.task, "optimizer": self.optimizer}

    @property
    def metric(self) -> str:
        """The task's main metric."""
        return self.study.main_metric(self.task)

    def groups(self, arm: str) -> list[Group]:
        """One arm of each cell, seed by seed."""
        cells = (cell for cell in self.study.cells(self.task) if cell.optimizer == self.optimizer)
        return [self.study.group(cell, arm) for cell in cells]

    def samples(self, arm: str, metric: str, least: int = 1) -> list[Sample]:
        """The values of each seed that has at least `least`."""
        known = (group.known(metric) for group in self.groups(arm))
        return [values for values in known if values.size >= least]

    def draws(self, metric: str) -> list[float]:
        """Independent values of the setting: its runs where everything is free, else each seed's mean of nd runs."""
        if self.study.free_arm == "all":
            return [float(value) for values in self.samples("all", metric) for value in values]
        return [describe.mean(values) for values in self.samples("nd", metric)]

    @cached_property
    def one_run_a_seed(self) -> tuple[str, list[int]]:
        """One complete run of each seed, all of the label that the most seeds completed first: the label and the rows.

        The control that shares nothing but data and settings.
        """
        groups = [group for arm in self.study.arms for group in self.groups(arm)]
        places = np.sort(np.concatenate([group.complete for group in groups]))
        labels = self.study.column("label")[places]
        counts = {label: int((labels == label).sum()) for label in self.study.info["grid"]["runs"]}
        chosen = places[labels == max(counts, key=lambda label: counts[label])]
        rows: list[int] = self.study.column("row")[chosen].tolist()
        return (str(self.study.column("label")[chosen[0]]) if len(chosen) else "", rows)


@dataclass(frozen=True, eq=False)
class Study(StudyArrays):
    """A collected study; `results` has one row a run in grid order, `row` being its place in its task's arrays."""

    curves: pd.DataFrame
    measured: pd.DataFrame

    @property
    def tasks(self) -> list[str]:
        """The tasks of the grid in their order."""
        return list(self.info["grid"]["tasks"])

    @property
    def optimizers(self) -> list[str]:
        """The optimizers of the grid in their order."""
        return list(self.info["grid"]["optimizers"])

    @property
    def seeds(self) -> list[int | str]:
        """The seeds of the grid in their order."""
        return list(self.info["grid"]["seeds"])

    @property
    def arms(self) -> list[str]:
        """The arms of the grid, in order of appearance."""
        return list(dict.fromkeys(self.results["arm"]))

    @property
    def free_arm(self) -> str:
        """The arm whose runs are repeated to see the spread: nd, or all where there is no nd."""
        return "all" if "all" in self.arms and "nd" not in self.arms else "nd"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of its runs, shares in [0, 1]."""
        return METRICS if self.imported is None else tuple(self.imported["metrics"])

    @property
    def setting_word(self) -> str:
        """What a setting of a task is called: optimizer, or the column of an import that plays its role."""
        return "optimizer" if self.imported is None else str(self.imported["words"].get("optimizer", "model"))

    def title(self, task: str) -> str:
        """The task's title; procedural images are always named as such."""
        title = str(self.info["params"][task]["title"])
        missing = self.procedural(task) and "procedural" not in title
        return f"{title} (procedural images)" if missing else title

    def procedural(self, task: str) -> bool:
        """Whether the task's images were drawn by a program."""
        return bool(self.info["tasks"][task].get("procedural", False))

    def reader(self, task: str) -> str:
        """The format of the task's data; empty where it is not recorded."""
        return str(self.info["params"][task].get("data", {}).get("reader", ""))

    def main_metric(self, task: str) -> str:
        """accuracy, f1 or auc."""
        return str(self.info["params"][task]["recipe"]["metric"])

    def metric_pair(self, task: str) -> tuple[str, ...]:
        """The two metrics of the thesis's figures: the main one, then F1 (accuracy where F1 is the main).

        Of an import that has one metric there is no second.
        """
        main = self.main_metric(task)
        others = [name for name in ("f1", "accuracy", *self.metrics) if name != main and name in self.metrics]
        return (main, *others[:1])

    def cells(self, task: str | None = None) -> Iterator[Cell]:
        """The cells of one task or of all that have a run, in grid order."""
        for name in [task] if task else self.tasks:
            for optimizer in self.optimizers:
                for seed in self.seeds:
                    if (name, optimizer, seed) in self._cells:
                        yield Cell(name, optimizer, seed)

    def settings(self, task: str | None = None) -> list[Setting]:
        """Every task and optimizer that have a run, in grid order."""
        pairs = dict.fromkeys((cell.task, cell.optimizer) for cell in self.cells(task))
        return [Setting(self, *pair) for pair in pairs]

    def groups(self, *arms: str, task: str | None = None) -> Iterator[Group]:
        """These arms of every cell of one task or of all, in grid order."""
        return (self.group(cell, arm) for cell in self.cells(task) for arm in arms)

    def group(self, cell: Cell, arm: str) -> Group:
        """One arm of a cell; it may be empty."""
        key = (cell.task, cell.optimizer, cell.seed, arm)
        return Group(self, cell, arm, self._places.get(key, np.empty(0, np.intp)))

    @cached_property
    def _cells(self) -> set[tuple[str, str, int | str]]:
        return {key[:3] for key in self._places}

    @cached_property
    def _places(self) -> dict[Any, NDArray[np.intp]]:
        # One pass over the rows, not one for each question: time stays linear in the runs.
        indices: dict[Any, Any] = self.results.groupby(["task", "optimizer", "seed", "arm"], sort=False).indices
        return indices

    @property
    def paired_arms(self) -> list[str]:
        """The arms with two runs or more in a cell, and the free one in any case."""
        labels = self.info["grid"]["runs"]
        counts = {arm: sum(label.rpartition("_")[0] == arm for label in labels) for arm in self.arms}
        return [arm for arm, count in counts.items() if count > 1 or arm == self.free_arm] or self.arms[:1]

    @property
    def assumptions(self) -> Analysis:
        """The params' analysis block; its defaults for a study that was collected without one."""
        return Analysis.model_validate(self.info.get("analysis", {}))

    def curves_of(self, ids: list[str]) -> pd.DataFrame:
        """The rows of curves.csv of some runs."""
        places = [self._curve_places[run] for run in ids if run in self._curve_places]
        return self.curves.iloc[np.concatenate(places) if places else []]

    @cached_property
    def _curve_places(self) -> dict[Any, Any]:
        return dict(self.curves.groupby("id", sort=False).indices)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what was computed, in grid order: names the study, and seeds whatever is drawn at random."""
        return digest([self.info, self.results.to_csv(index=False)])

    def rng(self, *keys: object) -> np.random.Generator:
        """A generator of its own for `keys`, the same each time for the same study."""
        return np.random.default_rng(int(digest([self.digest, *map(str, keys)]), 16))


def load_study(folder: Path) -> Study:
    """Read what `collect` wrote.

    Raises InputError or MismatchError naming the file that is missing, truncated, of another schema, has duplicated
    rows, disagrees with the others or was changed since.
    """
    info = read_info(folder / "study.json")
    results = read_results(folder / "results.csv", info)
    if info.get("imported"):
        study = Study(folder, info, results, pd.DataFrame(columns=_CURVES), pd.DataFrame({"id": results["id"]}))
    else:
        measured = read_frame(folder / "measured.csv", ("id",), ("id", "resumed", "train_seconds"))
        check_measured(measured, folder / "measured.csv")
        curves = read_frame(folder / "curves.csv", ("id", "fingerprint"), _CURVES)
        if curves.duplicated(["id", "epoch"]).any() or not set(curves["id"]) <= set(info["runs"]):
            raise MismatchError(f"{folder / 'curves.csv'}: duplicated epochs or runs that are not in study.json", AGAIN)
        study = Study(folder, info, results, curves, one_row_a_run(measured, info["runs"], folder / "measured.csv"))
    if study.records("predictions"):
        study.check_arrays()
    require_as_collected(folder)  # last: the checks above say what is wrong with a file
    return study


_CURVES = ("id", "epoch", "fingerprint")
