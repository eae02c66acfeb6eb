"""What a table is: a frame with a name, a caption that stands alone, and how each column reads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from twinrun.report.names import METRIC_LABELS, OPTIMIZER_LABELS
from twinrun.report.sections.columns_layers import LAYER_COLUMNS
from twinrun.report.sections.columns_parting import PARTING_COLUMNS
from twinrun.report.sections.columns_sources import SOURCE_COLUMNS
from twinrun.report.sections.columns_tests import TEST_COLUMNS


@dataclass(frozen=True)
class Table:
    """A table of the report; `name` is its file's stem, `thesis_name` what the thesis calls it, or empty."""

    name: str
    thesis_name: str
    title: str
    caption: str
    frame: pd.DataFrame
    notes: tuple[str, ...] = field(default=())
    for_programs: bool = False  # too long for a reader: CSV alone, and not on the page


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
    "churn_low": Column("Churn from", _SHARE, "lower end of the 95 % interval of churn, over images and runs"),
    "churn_high": Column("Churn to", _SHARE, "upper end of the 95 % interval of churn, over images and runs"),
    "churn_over_error": Column("Churn / error", ".2f", "churn divided by error"),
    "churn_over_seeds": Column("Churn / churn of seeds", ".2f", "churn divided by that between other seeds"),
    "js_distance": Column("JS distance", _SHARE, "Jensen-Shannon distance, 0 to 1, mean over images and pairs"),
    "js_pairs": Column("JS pairs", "d", "pairs of runs that the distance was measured on"),
    "ensemble_gain": Column("Ensemble gain", "+.4f", "accuracy of the averaged probabilities less mean accuracy"),
    "sd_accuracy": Column("SD accuracy", _SHARE, "sample SD of accuracy over the runs"),
    "sd_independent": Column("SD if independent", _SHARE, "what errors independent between images would give"),
    "variance_rest": Column("Variance beyond", "+.1e", "estimated variance of accuracy on an endless test set"),
    "test_set_share": Column(
        "Test-set share", ".2f", "share of the variance of accuracy that the finite test set makes"
    ),
    "class": Column("Class", "", "true class"),
    "images": Column("Images", "d", "test images"),
    "recall": Column("Recall", _SHARE, "share of the class's images that are found, mean over the runs"),
    "recall_sd": Column("SD recall", _SHARE, "sample SD of the class's recall over the runs"),
    "class_churn": Column("Churn", _SHARE, "churn on the images of this class"),
    "flipping": Column("Images flipping", "d", "images of the class that not all runs predict alike"),
    "rank": Column("Rank", "d", "1 flips most"),
    "place": Column("Place", "d", "among the test images, from 0"),
    "image": Column("Image", "", "its id in the data, or its place among the test images"),
    "flips": Column("Flips", ".3f", "share of pairs of twins that disagree on the image, mean over the cells"),
    "cells_flipping": Column("Cells flipping", "d", "cells in which not all runs predict the image alike"),
    "wrong": Column("Wrong", ".3f", "share of the runs that err on the image"),
    "seconds_nd": Column("Seconds nd", ".2f", "training seconds, mean of the nd runs"),
    "seconds_sd_nd": Column("SD nd", ".2f", "sample SD of the nd runs' training seconds"),
    "seconds_det": Column("Seconds det", ".2f", "training seconds, mean of the deterministic runs"),
    "overhead_percent": Column("Difference %", "+.1f", "100 (det - nd) / nd of the training seconds; confounded"),
    "resumed": Column("Resumed", "d", "runs that were interrupted and resumed; they have no time of their own"),
    "shared": Column("Shared", "d", "runs that shared their machine with others"),
    "cost_claim": Column("Cost claim", "", "whether a cost may be read off"),
    "scope": Column("Runs of", "", "the experiment's runs, or all attempts"),
    "way": Column("Way", "", "measured by counters, or by the thesis's formula"),
    "lost": Column("Lost", "d", "attempts among them that left no record: interrupted, or still in work/"),
    "known": Column("Known", "d", "runs whose energy is known"),
    "kwh": Column("kWh", ".4g", "energy"),
    "co2_kg": Column("CO2 kg", ".4g", "carbon dioxide equivalent"),
    "thesis_nd": Column("Thesis nd", _SHARE, "the thesis's mean of five free runs"),
    "thesis_det": Column("Thesis det", _SHARE, "the thesis's deterministic run"),
    "thesis_difference": Column("Thesis diff. %", "+.2f", "100 (det - nd) / nd, as printed in the thesis"),
    "head_sd": Column("Head SD", _SMALL, "SD of each head weight over the runs (1/n), mean over the weights"),
    "cosine_mean": Column("Cosine mean", ".6f", "mean cosine similarity of the heads, all pairs of runs"),
    "cosine_min": Column("Cosine min", ".6f", "smallest"),
    "cosine_max": Column("Cosine max", ".6f", "largest"),
    "distance": Column("Distance", ".4f", "|w1 - w2| relative to the mean length of the heads, mean over pairs"),
    "displacement_cosine": Column("Cosine of ways", ".4f", "cosine of the displacements from the initialization"),
    "distinct_det": Column("Distinct det", "d", "different final fingerprints among the deterministic runs"),
    "distinct_nd": Column("Distinct nd", "d", "different final fingerprints among the nd runs"),
    "distinct": Column("Distinct", "d", "different final fingerprints within cells, summed over the cells"),
    "cells_equal": Column("Cells all equal", "d", "cells of two runs or more whose runs all have the same bits"),
    "cells_distinct": Column("Cells all distinct", "d", "cells of two runs or more whose runs all have other bits"),
    "same_start": Column("Same start", "", "whether det and nd runs begin at the same weights"),
    "parted_epoch": Column("nd part at epoch", "d", "first epoch after which the nd runs have different weights"),
    "verdict": Column("Verdict", "", "on the deterministic runs of the cell"),
    "remark": Column("Remark", "", "why a value is not available"),
    **{
        name: Column(*words)
        for name, words in (TEST_COLUMNS | LAYER_COLUMNS | PARTING_COLUMNS | SOURCE_COLUMNS).items()
    },
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


def span(values: pd.Series, form: str, factor: float = 1.0) -> str:
    """`0.12 to 0.80`, one number where both would read the same."""
    known = values.dropna() * factor
    if known.empty:
        return "not available"
    low, high = f"{known.min():{form}}", f"{known.max():{form}}"
    return low if low == high else f"{low} to {high}"


def plural(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def remarks(*reasons: str) -> str:
    """The reasons that apply, once each, as one text."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))
