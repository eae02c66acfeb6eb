"""What the statistical tables read from a study: the values of a cell and arm, and why one is missing."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from twinrun.collect.study import Cell, Study
from twinrun.report.sections.tables_performance import METRICS, absence, undefined_metric
from twinrun.report.table import remarks
from twinrun.stats import describe as statistics
from twinrun.stats.samples import Sample
from twinrun.study.files import digest
from twinrun.study.schema import Analysis


def assumptions(study: Study) -> Analysis:
    """The study's analysis block; its defaults for a study that was collected without one."""
    return Analysis.model_validate(study.info.get("analysis", {}))


class CellValues:
    """The metrics of every cell and arm of a study, looked up once: a study may have thousands of cells."""

    def __init__(self, study: Study) -> None:
        self.study = study
        results = study.results
        self._places = results.groupby(["task", "optimizer", "seed", "arm"], sort=False).indices
        self._complete = (results["status"] == "complete").to_numpy()
        self._metrics = {metric: results[metric].to_numpy(np.float64) for metric in METRICS}

    def _arm(self, cell: Cell, arm: str, metric: str) -> tuple[Sample, bool]:
        """The values of the complete runs, NaN where the metric is missing, and whether some run is not complete."""
        places = self._places.get((cell.task, cell.optimizer, cell.seed, arm), np.empty(0, np.intp))
        complete = self._complete[places]
        return self._metrics[metric][places][complete], not complete.all()

    def free(self, cell: Cell, metric: str) -> Sample:
        """The metric of the complete nd runs of a cell, without those in which it is missing."""
        values, _ = self._arm(cell, "nd", metric)
        return values[~np.isnan(values)]

    def free_absence(self, cell: Cell, metric: str) -> str:
        """Why nd runs of a cell are not among its values, or are too few."""
        values, diverged = self._arm(cell, "nd", metric)
        few = diverged or values.size < 2
        why = absence(self.study, cell, "nd", wanted=2) if few else ""
        return remarks(why, undefined_metric(metric, pd.Series(values)))

    def fixed(self, cell: Cell, metric: str) -> tuple[float, str]:
        """The one deterministic value of a cell; NaN and the reason when there is none or there are several."""
        values, diverged = self._arm(cell, "det", metric)
        known = values[~np.isnan(values)]
        if np.any(known != known[:1]):
            return math.nan, "not defined: the deterministic runs differ"
        why = absence(self.study, cell, "det") if diverged or not values.size else ""
        reason = remarks(why, undefined_metric(metric, pd.Series(values)))
        return (float(known[0]), reason) if known.size else (math.nan, reason)

    def differences(self, task: str, optimizer: str, metric: str) -> list[float]:
        """det - mean of nd of every seed that has both."""
        found = []
        for cell in self.study.cells(task):
            if cell.optimizer == optimizer:
                free, (fixed, _) = self.free(cell, metric), self.fixed(cell, metric)
                if free.size and not math.isnan(fixed):
                    found.append(fixed - statistics.mean(free))
        return found


def generator(*names: object) -> np.random.Generator:
    """A generator that depends on the names alone, so that neither order nor number of cores changes a result."""
    return np.random.default_rng(int(digest([str(name) for name in names])[:16], 16))


def number(value: float | None) -> float:
    """NaN for a value that is not defined: how a frame holds it."""
    return math.nan if value is None else value


def points(value: float | None) -> float:
    """A share in points of 100."""
    return math.nan if value is None else 100 * value
