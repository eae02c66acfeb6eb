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
    RESULT_COLUMNS,
    TEXT_COLUMNS,
    check_labels,
    check_measured,
    check_values,
    one_row_a_run,
    read_array,
    read_frame,
    read_info,
)
from twinrun.stats.samples import UNDEFINED, Estimate, Sample
from twinrun.study.errors import MismatchError
from twinrun.study.files import digest
from twinrun.study.schema import Analysis

MAPPED_RUNS = 32  # whose probabilities are mapped at a time
METRICS = ("accuracy", "f1", "auc")
METRIC_LABELS = {"accuracy": "accuracy", "f1": "F1", "auc": "AUC", "loss": "loss"}


def remarks(*reasons: str) -> str:
    """The reasons that apply, once each, as one text."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


@dataclass(frozen=True)
class Cell:
    """A (task, optimizer, seed)."""

    task: str
    optimizer: str
    seed: int


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
            reasons.append(f"{self.n} complete {self.arm} run{'' if self.n == 1 else 's'}, {wanted} needed")
        return remarks(*reasons, undefined_metric(metric, self.values(metric)) if metric else "")


def undefined_metric(metric: str, values: Sample) -> str:
    """Why a metric has no value in some of the runs."""
    if not np.isnan(values).any():
        return ""
    why = "the test set lacks a class" if metric == "auc" else "it is missing in the record"
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
        return [self.study.group(Cell(self.task, self.optimizer, seed), arm) for seed in self.study.seeds]

    def samples(self, arm: str, metric: str, least: int = 1) -> list[Sample]:
        """The values of each seed that has at least `least`."""
        known = (group.known(metric) for group in self.groups(arm))
        return [values for values in known if values.size >= least]

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
class Study:
    """A collected study; `results` has one row a run in grid order, `row` being its place in its task's arrays."""

    folder: Path
    info: dict[str, Any]
    results: pd.DataFrame
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
    def seeds(self) -> list[int]:
        """The seeds of the grid in their order."""
        return list(self.info["grid"]["seeds"])

    @property
    def arms(self) -> list[str]:
        """The arms of the grid, in order of appearance."""
        return list(dict.fromkeys(self.results["arm"]))

    def title(self, task: str) -> str:
        """The task's title; procedural images are always named as such."""
        title = str(self.info["params"][task]["title"])
        missing = self.info["tasks"][task]["procedural"] and "procedural" not in title
        return f"{title} (procedural images)" if missing else title

    def main_metric(self, task: str) -> str:
        """accuracy, f1 or auc."""
        return str(self.info["params"][task]["recipe"]["metric"])

    def metric_pair(self, task: str) -> tuple[str, str]:
        """The two metrics of the thesis's figures: the main one, then F1 (accuracy where F1 is the main)."""
        main = self.main_metric(task)
        return (main, "accuracy" if main == "f1" else "f1")

    def cells(self, task: str | None = None) -> Iterator[Cell]:
        """The cells of one task or of all, in grid order."""
        for name in [task] if task else self.tasks:
            for optimizer in self.optimizers:
                for seed in self.seeds:
                    yield Cell(name, optimizer, seed)

    def settings(self, task: str | None = None) -> list[Setting]:
        """Every task and optimizer in grid order."""
        tasks = [task] if task else self.tasks
        return [Setting(self, name, optimizer) for name in tasks for optimizer in self.optimizers]

    def groups(self, *arms: str, task: str | None = None) -> Iterator[Group]:
        """These arms of every cell of one task or of all, in grid order."""
        return (self.group(cell, arm) for cell in self.cells(task) for arm in arms)

    def group(self, cell: Cell, arm: str) -> Group:
        """One arm of a cell; it may be empty."""
        key = (cell.task, cell.optimizer, cell.seed, arm)
        return Group(self, cell, arm, self._places.get(key, np.empty(0, np.intp)))

    @cached_property
    def _places(self) -> dict[Any, NDArray[np.intp]]:
        # One pass over the rows, not one for each question: time stays linear in the runs.
        indices: dict[Any, Any] = self.results.groupby(["task", "optimizer", "seed", "arm"], sort=False).indices
        return indices

    def column(self, name: str) -> NDArray[Any]:
        """A column of `results` as an array, made once: a study may have thousands of cells."""
        if name not in self._columns:
            self._columns[name] = self.results[name].to_numpy()
        return self._columns[name]

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return {}

    @property
    def paired_arms(self) -> list[str]:
        """The arms with two runs or more in a cell, and nd in any case."""
        labels = self.info["grid"]["runs"]
        counts = {arm: sum(label.rpartition("_")[0] == arm for label in labels) for arm in self.arms}
        return [arm for arm, count in counts.items() if count > 1 or arm == "nd"] or self.arms[:1]

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

    def classes(self, task: str) -> list[str]:
        """The names of a task's classes."""
        return [str(name) for name in self.info["tasks"][task]["classes"]]

    def rng(self, *keys: object) -> np.random.Generator:
        """A generator of its own for `keys`, the same each time for the same study."""
        return np.random.default_rng(int(digest([self.digest, *map(str, keys)]), 16))

    def stream(self, task: str, rows: list[int]) -> Iterator[NDArray[np.float32]]:
        """Class probabilities (test examples, classes) of some runs of a task, one after the other.

        Raises MismatchError for a complete run whose probabilities are not finite.
        """
        for start in range(0, len(rows), MAPPED_RUNS):
            # Mapped anew every few runs: the pages that were read are given back.
            mapped = self.probabilities(task)
            for row in rows[start : start + MAPPED_RUNS]:
                values = np.array(mapped[row])
                if not np.isfinite(values).all():
                    run = self.results.loc[(self.results["task"] == task) & (self.results["row"] == row), "id"].iloc[0]
                    path = self.folder / task / "probabilities.npy"
                    raise MismatchError(f"{path}: {run} is complete, but has probabilities that are no numbers", AGAIN)
                yield values

    def labels(self, task: str) -> NDArray[np.int64]:
        """True classes (test examples,)."""
        return read_array(self.folder / task / "labels.npy")

    def probabilities(self, task: str) -> NDArray[np.float32]:
        """Class probabilities (runs, test examples, classes), memory-mapped; NaN for a diverged run."""
        return read_array(self.folder / task / "probabilities.npy")

    def heads(self, task: str) -> NDArray[np.float32]:
        """Head weights (runs, checkpoints, parameters), memory-mapped; NaN where a run diverged."""
        return read_array(self.folder / task / "heads.npy")

    def layers_of(self, task: str) -> list[dict[str, Any]]:
        """Name, shape and number of recorded coordinates of every tensor outside the head, in the network's order."""
        return list(self.info["tasks"][task].get("layers", []))

    def layer_rows(self, task: str) -> list[int]:
        """The rows of the task's arrays whose layers and features were collected, as the two arrays have them."""
        return list(self.info["tasks"][task].get("layer_rows", []))

    def layers(self, task: str) -> NDArray[np.float32]:
        """Recorded coordinates (kept runs, checkpoints, coordinates of all layers), memory-mapped."""
        return read_array(self.folder / task / "layers.npy")

    def features_shape(self, task: str) -> tuple[int, int] | None:
        """Test images and features that were recorded of each run; None where none were."""
        shape = self.info["tasks"][task].get("features_shape")
        return (int(shape[0]), int(shape[1])) if shape else None

    def features(self, task: str) -> NDArray[np.float32]:
        """Features after the last epoch (kept runs, test images, features), memory-mapped."""
        return read_array(self.folder / task / "features.npy")

    def image_ids(self, task: str) -> list[str]:
        """The test images' ids in the data; `test image 7` where they were not collected."""
        path = self.folder / task / "ids.csv"
        if not path.is_file():
            return [f"test image {index}" for index in range(self.info["tasks"][task]["n_test"])]
        ids = list(map(str, read_frame(path, ("id",), ("id",))["id"]))
        if len(ids) != self.info["tasks"][task]["n_test"]:
            raise MismatchError(f"{path}: {len(ids)} ids for the test images of study.json", AGAIN)
        return ids

    def head_epochs(self, task: str) -> list[int]:
        """The epochs of the checkpoints; 0 is the initialization."""
        return list(self.info["tasks"][task]["head_epochs"])


def load_study(folder: Path) -> Study:
    """Read what `collect` wrote.

    Raises InputError or MismatchError naming the file that is missing, truncated, of another schema, has duplicated
    rows or disagrees with the others.
    """
    info = read_info(folder / "study.json")
    results = read_frame(folder / "results.csv", TEXT_COLUMNS, RESULT_COLUMNS)
    results = one_row_a_run(results, info["runs"], folder / "results.csv")
    results["row"] = results.groupby("task").cumcount()
    check_values(results, folder / "results.csv")
    measured = read_frame(folder / "measured.csv", ("id",), ("id", "resumed", "train_seconds"))
    check_measured(measured, folder / "measured.csv")
    curves = read_frame(folder / "curves.csv", ("id", "fingerprint"), ("id", "epoch", "fingerprint"))
    if curves.duplicated(["id", "epoch"]).any() or not set(curves["id"]) <= set(info["runs"]):
        raise MismatchError(f"{folder / 'curves.csv'}: duplicated epochs or runs that are not in study.json", AGAIN)
    study = Study(folder, info, results, curves, one_row_a_run(measured, info["runs"], folder / "measured.csv"))
    _check_arrays(study)
    return study


def _check_arrays(study: Study) -> None:
    for task in study.tasks:
        described = study.info["tasks"][task]
        runs = int((study.results["task"] == task).sum())
        wanted: dict[str, tuple[int, ...]] = {
            "labels.npy": (described["n_test"],),
            "probabilities.npy": (runs, described["n_test"], len(described["classes"])),
            "heads.npy": (runs, len(described["head_epochs"]), described["head_size"]),
        }
        kept = len(study.layer_rows(task))
        if layers := study.layers_of(task):
            wanted["layers.npy"] = (kept, len(described["head_epochs"]), sum(layer["recorded"] for layer in layers))
        if features := study.features_shape(task):
            wanted["features.npy"] = (kept, *features)
        for name, shape in wanted.items():
            path = study.folder / task / name
            actual = read_array(path).shape
            if actual != shape:
                raise MismatchError(f"{path}: shape {actual}, but results.csv and study.json say {shape}", AGAIN)
        check_labels(study.labels(task), len(described["classes"]), study.folder / task / "labels.npy")
