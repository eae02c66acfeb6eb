"""How the columns of a table read, and the columns that many tables have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from twinrun.report.names import METRIC_LABELS, OPTIMIZER_LABELS


def missing(value: Any) -> bool:
    """Whether a cell holds no value."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


class Column(NamedTuple):
    """How a column reads: its heading, the format of its numbers, what it holds."""

    name: str  # in the CSV file
    label: str
    form: str  # a format specification; empty for text
    meaning: str
    factor: float = 1.0  # of the numbers: 100 for shares that are shown in points
    words: Mapping[str, str] = {}  # what a person reads instead of a value

    def shown(self, value: Any) -> str:
        """A cell as a person reads it; `n/a` for a value that does not exist (its row's remark says why)."""
        if missing(value):
            return "" if self.name == "remark" else "n/a"
        if self.form == "d":
            return format(int(value), "d")
        return format(float(value), self.form) if self.form else self.words.get(str(value), str(value))


TASK = Column("task", "Task", "", "data set, model and recipe")
OPTIMIZER = Column("optimizer", "Optimizer", "", "adam, adamw or sgd", words=OPTIMIZER_LABELS)
SEED = Column("seed", "Seed", "", "of every algorithmic stream")
ARM = Column("arm", "Arm", "", "what is left free")
METRIC = Column("metric", "Metric", "", "on the test set after the last epoch, in [0, 1]", words=METRIC_LABELS)
COMPARISON = Column("comparison", "Comparison", "", "which pairs of runs are compared")
CELLS = Column("cells", "Cells", "d", "(task, optimizer, seed) combinations")
RUNS = Column("runs", "Runs", "d", "runs")
PAIRS = Column("pairs", "Pairs", "d", "pairs of runs")
EPOCH = Column("epoch", "Epoch", "d", "of the checkpoint; 0 is the initialization")
N = Column("n", "n", "d", "runs")
N_ND = Column("n_nd", "n nd", "d", "complete nd runs")
N_DET = Column("n_det", "n det", "d", "complete deterministic runs")
REMARK = Column("remark", "Remark", "", "why a value is not available")
SETTING = (TASK, OPTIMIZER)
CELL = (TASK, OPTIMIZER, SEED)
GROUP = (TASK, OPTIMIZER, SEED, ARM)
