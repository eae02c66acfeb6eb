"""The study in pandas frames, and its trained networks, for notebooks and scripts: `twinrun.load`."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twinrun.collect.study import Study, load_study
from twinrun.report.build import build_tables
from twinrun.stats.intervals import PooledSd
from twinrun.study.errors import IncompleteError, InputError, MismatchError, plural
from twinrun.study.layout import RECORD, Layout
from twinrun.study.records import read_record

if TYPE_CHECKING:  # it imports torch
    from twinrun.training.kept_model import TrainedModel


class Tables(dict[str, pd.DataFrame]):
    """Tables by name; a name that is not there is an InputError that lists the nearest."""

    def __missing__(self, name: str) -> pd.DataFrame:
        near = get_close_matches(str(name), self, n=3, cutoff=0.4)
        raise InputError(
            f"{name!r} is no table of this study",
            f"{'the nearest: ' + ', '.join(near) + '; ' if near else ''}`.tables` lists all {len(self)}",
        )

    def __repr__(self) -> str:
        return f"{len(self)} tables: {', '.join(self)}"


@dataclass(frozen=True, repr=False)
class Loaded:
    """A collected study: frames of its runs, every table of the report, arrays of predictions and heads, networks."""

    study: Study
    root: Path  # the study folder, which need not hold more than what was collected

    @property
    def runs(self) -> pd.DataFrame:
        """One row a run: cell, arm, replicate, metrics, fingerprints."""
        return self.study.results.drop(columns="row")

    @property
    def curves(self) -> pd.DataFrame:
        """One row a run and epoch."""
        return self.study.curves.copy()

    @property
    def measured(self) -> pd.DataFrame:
        """One row a run: seconds, joules, host, versions; an empty cell was not measured."""
        return self.study.measured.copy()

    @cached_property
    def tables(self) -> Tables:
        """Every table of the report by name, computed when first asked for."""
        return Tables({name: table.frame for name, table in build_tables(self.study).items()})

    def __repr__(self) -> str:
        """`study sample: 90 runs (det 36, nd 54) of 3 tasks`."""
        arms = ", ".join(f"{arm} {count}" for arm, count in self.study.results["arm"].value_counts(sort=False).items())
        runs, tasks = plural(len(self.study.results), "run"), plural(len(self.study.tasks), "task")
        return f"study {self.study.info['study']}: {runs} ({arms}) of {tasks}"

    def _repr_html_(self) -> str:
        """What a notebook shows: the sentence, and complete runs, mean and SD of the main metric, set by set."""
        study, rows = self.study, []
        for setting in study.settings():
            for arm in study.arms:
                cells = setting.samples(arm, setting.metric)
                values = np.concatenate([*cells, np.empty(0)])
                spread = PooledSd.of(cells).value
                rows.append(
                    {
                        "task": study.title(setting.task),
                        "optimizer": setting.optimizer,
                        "arm": arm,
                        "metric": setting.metric,
                        "runs": values.size,
                        "mean": values.mean() if values.size else np.nan,
                        "SD within a seed": spread,
                    }
                )
        table = pd.DataFrame(rows).to_html(index=False, float_format="{:.4f}".format, na_rep="", border=0)
        more = "<code>.runs</code>, <code>.curves</code>, <code>.measured</code>, <code>.tables</code>"
        return f"<p>{escape(repr(self))}; {more}</p>{table}"

    def probabilities(self, run_id: str) -> NDArray[np.float32]:
        """Class probabilities of one run, (test images, classes); of imported classes, theirs is 1."""
        row = self._row(run_id)
        self._require("predictions")
        if not self.study.records("probabilities"):
            return next(self.study.stream(str(row["task"]), [int(row["row"])]))
        values: NDArray[np.float32] = np.array(self.study.probabilities(str(row["task"]))[int(row["row"])])
        return values

    def heads(self, run_id: str) -> NDArray[np.float32]:
        """Head weights of one run at its checkpoints, (checkpoints, parameters)."""
        row = self._row(run_id)
        self._require("weights")
        values: NDArray[np.float32] = np.array(self.study.heads(str(row["task"]))[int(row["row"])])
        return values

    def labels(self, task: str) -> NDArray[np.int64]:
        """True classes, (test images,)."""
        self._require("predictions")
        if task not in self.study.tasks:
            raise InputError(f"{task!r} is no task of this study", f"tasks: {', '.join(self.study.tasks)}")
        return np.array(self.study.labels(task))

    def model(self, run_id: str) -> TrainedModel:
        """The trained network of a run whose task keeps it, ready to predict: images in bytes to logits.

        `.model(id)(torch.from_numpy(images))` with images as in prepared/<task>/images.npy. Raises IncompleteError
        where it was not kept or is not there, MismatchError for a file that is not that of the collected run.
        """
        from twinrun.training.kept_model import load_model

        row = self._row(run_id)
        self._require("weights")
        folder = Layout(self.root).runs / run_id
        if not (folder / RECORD).is_file():
            hint = "the records are not part of what is collected: `dvc pull` brings them, `twinrun sweep` makes them"
            raise IncompleteError(f"{folder}: no such record", hint)
        if read_record(folder).final_fingerprint != row["fingerprint"]:
            raise MismatchError(f"{folder}: not the run that was collected", "`twinrun collect` collects anew")
        return load_model(folder, self.root)

    def _require(self, what: str) -> None:
        if not self.study.records(what):
            raise InputError(f"{self.study.folder}: {what} are not recorded", "the imported table did not hold them")

    def _row(self, run_id: str) -> pd.Series:
        rows = self.study.results[self.study.results["id"] == run_id]
        if rows.empty:
            raise InputError(f"{run_id!r} is no run of this study", "`.runs` lists them")
        return rows.iloc[0]


def load(folder: str | Path = ".") -> Loaded:
    """Load a study from its folder, its collected/, runs/ or analysis/ folder, or a folder of published results.

    Raises InputError when nothing collected is there, MismatchError when it is damaged.
    """
    place = Path(folder).resolve()  # `.` has no parent of its own
    for candidate in (place, place / "collected", place.parent / "collected"):
        if (candidate / "study.json").is_file():
            # Beside any other folder a collection would be that of another study.
            if candidate.parent == place.parent and candidate != place and place.name not in ("runs", "analysis"):
                continue
            return Loaded(load_study(candidate), candidate.parent)
    if not place.exists():
        raise InputError(f"{place}: no such folder")
    raise InputError(f"{place}: no collected study here", "run `twinrun collect` in the study folder first")


__all__ = ["InputError", "Loaded", "MismatchError", "load"]
