"""What a table is: a frame with a name, a caption that stands alone, and how each column reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from twinrun.analysis.thesis_names import METRIC_LABELS, OPTIMIZER_LABELS


@dataclass(frozen=True)
class Table:
    """A table of the report; `name` is its file's stem, `thesis_name` what the thesis calls it, or empty."""

    name: str
    thesis_name: str
    title: str
    caption: str
    frame: pd.DataFrame
    notes: tuple[str, ...] = field(default=())


class Column(NamedTuple):
    """How a column reads: its heading, the format of its numbers, what it holds."""

    label: str
    form: str  # a format specification; empty for text
    meaning: str


_SHARE = ".4f"
_SMALL = ".2e"
COLUMNS = {
    "task": Column("Task", "", "data set, model and recipe"),
    "optimizer": Column("Optimizer", "", "adam or sgd"),
    "seed": Column("Seed", "", "of every algorithmic stream"),
    "arm": Column("Arm", "", "what is left free"),
    "metric": Column("Metric", "", "on the test set after the last epoch, in [0, 1]"),
    "main": Column("Main", "", "whether it is the task's main metric"),
    "comparison": Column("Comparison", "", "which pairs of runs are compared"),
    "cells": Column("Cells", "d", "(task, optimizer, seed) combinations"),
    "runs": Column("Runs", "d", "runs"),
    "epoch": Column("Epoch", "d", "of the checkpoint; 0 is the initialization"),
    "n": Column("n", "d", "runs"),
    "n_nd": Column("n nd", "d", "complete nd runs"),
    "n_det": Column("n det", "d", "complete deterministic runs"),
    "pairs": Column("Pairs", "d", "pairs of runs"),
    "mean_nd": Column("Mean nd", _SHARE, "mean of the nd runs"),
    "sd_nd": Column("SD nd", _SHARE, "sample SD of the nd runs, 1/(n-1)"),
    "det": Column("Det", _SHARE, "the deterministic value (their mean, should they differ)"),
    "det_equal": Column("Det equal", "", "whether all deterministic replicates have this value"),
    "difference_percent": Column("Difference %", "+.2f", "100 (det - nd) / nd"),
    "minimum": Column("Min", _SHARE, "smallest"),
    "mean": Column("Mean", _SHARE, "mean"),
    "maximum": Column("Max", _SHARE, "largest"),
    "sd_population": Column("SD 1/n", _SHARE, "population SD, as in the thesis's figures (eq. 5.1)"),
    "sd_sample": Column("SD 1/(n-1)", _SHARE, "sample SD"),
    "sd_low": Column("95 % from", _SHARE, "lower end of the chi-square interval of the sample SD"),
    "sd_high": Column("95 % to", _SHARE, "upper end of the chi-square interval of the sample SD"),
    "churn": Column("Churn", _SHARE, "share of test examples on which two runs disagree, mean over all pairs"),
    "error": Column("Error", _SHARE, "share of test examples classified wrongly, mean over the runs"),
    "churn_over_error": Column("Churn / error", ".2f", "churn divided by error"),
    "churn_over_seeds": Column("Churn / churn of seeds", ".2f", "churn divided by that between other seeds"),
    "head_sd": Column("Head SD", _SMALL, "SD of each head weight over the runs (1/n), mean over the weights"),
    "cosine_mean": Column("Cosine mean", ".6f", "mean cosine similarity of the heads, all pairs of runs"),
    "cosine_min": Column("Cosine min", ".6f", "smallest"),
    "cosine_max": Column("Cosine max", ".6f", "largest"),
    "distinct_det": Column("Distinct det", "d", "different final fingerprints among the deterministic runs"),
    "distinct_nd": Column("Distinct nd", "d", "different final fingerprints among the nd runs"),
    "distinct": Column("Distinct", "d", "different final fingerprints within cells, summed over the cells"),
    "cells_equal": Column("Cells all equal", "d", "cells of two runs or more whose runs all have the same bits"),
    "cells_distinct": Column("Cells all distinct", "d", "cells of two runs or more whose runs all have other bits"),
    "same_start": Column("Same start", "", "whether det and nd runs begin at the same weights"),
    "parted_epoch": Column("nd part at epoch", "d", "first epoch after which the nd runs have different weights"),
    "verdict": Column("Verdict", "", "on the deterministic runs of the cell"),
    "remark": Column("Remark", "", "why a value is not available"),
}


_WORDS = {"metric": METRIC_LABELS, "optimizer": OPTIMIZER_LABELS}


def missing(value: Any) -> bool:
    """Whether a cell holds no value."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def shown(column: str, value: Any) -> str:
    """A cell as a person reads it; `n/a` for a value that does not exist (its row's remark says why)."""
    if missing(value):
        return "" if column == "remark" else "n/a"
    if column in _WORDS:
        return _WORDS[column].get(str(value), str(value))
    form = COLUMNS[column].form if column in COLUMNS else ""
    if form == "d":
        return format(int(value), "d")
    return format(float(value), form) if form else str(value)


def remarks(*reasons: str) -> str:
    """The reasons that apply, once each, as one text."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))
