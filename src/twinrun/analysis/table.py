"""The collected study as tables and memory-mapped arrays, checked on the way in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twinrun.analysis.collect import COLLECTED_SCHEMA
from twinrun.study.errors import InputError, MismatchError
from twinrun.study.files import read_json

AGAIN = "it is damaged or not complete: run `twinrun collect` again"
RESULT_COLUMNS = (
    "id", "task", "optimizer", "seed", "arm", "replicate", "label", "status", "device", "noise", "entropy", "epochs",
    "accuracy", "f1", "auc", "loss", "initial_fingerprint", "fingerprint", "params_digest",
)  # fmt: skip
STUDY_KEYS = ("study", "grid", "execution", "params", "tasks", "runs", "diverged", "code_digest", "grid_digest")
# Named so that a hash of digits is never read as a number.
TEXT_COLUMNS = (
    "id", "task", "optimizer", "arm", "label", "status", "device", "noise", "entropy", "initial_fingerprint",
    "fingerprint", "params_digest",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A (task, optimizer, seed)."""

    task: str
    optimizer: str
    seed: int


@dataclass(frozen=True)
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

    def runs(self, cell: Cell, arm: str, *, complete: bool = True) -> pd.DataFrame:
        """The runs of one arm of a cell; only the complete ones unless told otherwise."""
        results = self.results
        chosen = (
            (results["task"] == cell.task)
            & (results["optimizer"] == cell.optimizer)
            & (results["seed"] == cell.seed)
            & (results["arm"] == arm)
        )
        return results[chosen & (results["status"] == "complete")] if complete else results[chosen]

    def labels(self, task: str) -> NDArray[np.int64]:
        """True classes (test examples,)."""
        return _array(self.folder / task / "labels.npy")

    def probabilities(self, task: str) -> NDArray[np.float32]:
        """Class probabilities (runs, test examples, classes), memory-mapped; NaN for a diverged run."""
        return _array(self.folder / task / "probabilities.npy")

    def heads(self, task: str) -> NDArray[np.float32]:
        """Head weights (runs, checkpoints, parameters), memory-mapped; NaN where a run diverged."""
        return _array(self.folder / task / "heads.npy")

    def head_epochs(self, task: str) -> list[int]:
        """The epochs of the checkpoints; 0 is the initialization."""
        return list(self.info["tasks"][task]["head_epochs"])


def load_study(folder: Path) -> Study:
    """Read what `collect` wrote.

    Raises InputError or MismatchError naming the file that is missing, truncated, of another schema, has duplicated
    rows or disagrees with the others.
    """
    info = read_json(folder / "study.json")
    if not isinstance(info, dict) or info.get("schema") != COLLECTED_SCHEMA:
        found = info.get("schema") if isinstance(info, dict) else type(info).__name__
        raise MismatchError(
            f"{folder / 'study.json'}: schema {found!r}, this version reads {COLLECTED_SCHEMA}", "run `twinrun collect`"
        )
    absent = [key for key in STUDY_KEYS if key not in info]
    if absent:
        raise MismatchError(f"{folder / 'study.json'}: {', '.join(absent)} missing", AGAIN)
    results = _frame(folder / "results.csv", TEXT_COLUMNS, RESULT_COLUMNS)
    results = _one_row_a_run(results, info["runs"], folder / "results.csv")
    results["row"] = results.groupby("task").cumcount()
    for name in ("accuracy", "f1", "auc", "loss"):
        results[name] = pd.to_numeric(results[name])
    measured = _frame(folder / "measured.csv", ("id",), ("id", "resumed", "train_seconds"))
    curves = _frame(folder / "curves.csv", ("id", "fingerprint"), ("id", "epoch", "fingerprint"))
    if curves.duplicated(["id", "epoch"]).any() or not set(curves["id"]) <= set(info["runs"]):
        raise MismatchError(f"{folder / 'curves.csv'}: duplicated epochs or runs that are not in study.json", AGAIN)
    study = Study(folder, info, results, curves, _one_row_a_run(measured, info["runs"], folder / "measured.csv"))
    _check_arrays(study)
    return study


def _frame(path: Path, text: tuple[str, ...], needed: tuple[str, ...]) -> pd.DataFrame:
    try:
        # Only an empty cell is a missing value: a task may well be called `nan`.
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(text, "str"),
            keep_default_na=False,
            na_values=[""],
        )
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", AGAIN) from error
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise MismatchError(f"{path}: cannot be read ({' '.join(str(error).split())})", AGAIN) from error
    absent = [column for column in needed if column not in frame]
    if absent:
        raise MismatchError(f"{path}: the columns {', '.join(absent)} are missing", AGAIN)
    return frame


def _one_row_a_run(frame: pd.DataFrame, runs: list[str], path: Path) -> pd.DataFrame:
    """The rows in the order of study.json, whatever order the file has them in: the arrays follow that order."""
    doubles = frame.loc[frame["id"].duplicated(), "id"].tolist()
    if doubles:
        raise MismatchError(f"{path}: more than one row for {', '.join(doubles[:5])}", AGAIN)
    if set(frame["id"]) != set(runs):
        odd = sorted(set(frame["id"]) ^ set(runs))
        raise MismatchError(f"{path}: {len(frame)} rows for {len(runs)} runs in study.json, such as {odd[0]}", AGAIN)
    return frame.set_index("id").loc[runs].reset_index()


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", AGAIN) from error
    except (ValueError, OSError, EOFError):
        # An empty array cannot be mapped; it can be read.
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise MismatchError(f"{path}: not a whole numpy array ({error})", AGAIN) from error
    return array


def _check_arrays(study: Study) -> None:
    for task in study.tasks:
        described = study.info["tasks"][task]
        runs = int((study.results["task"] == task).sum())
        wanted = {
            "labels.npy": (described["n_test"],),
            "probabilities.npy": (runs, described["n_test"], len(described["classes"])),
            "heads.npy": (runs, len(described["head_epochs"]), described["head_size"]),
        }
        for name, shape in wanted.items():
            path = study.folder / task / name
            found = _array(path).shape
            if found != shape:
                raise MismatchError(f"{path}: shape {found}, but results.csv and study.json say {shape}", AGAIN)
