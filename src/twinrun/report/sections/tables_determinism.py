"""Tables of final bits: whether deterministic runs agree and where free runs part."""

from __future__ import annotations

import math

import pandas as pd

from twinrun.collect.study import Study
from twinrun.report.names import nd_noise
from twinrun.report.table import Table, remarks


def _verdict(count: int, distinct: int) -> str:
    if count == 0:
        return "not available: no run"
    if count == 1:
        return "not verified: one run"
    return "bit-identical" if distinct == 1 else f"NOT deterministic: {distinct} different results"


def parted_epoch(study: Study, ids: list[str]) -> float:
    """The first epoch after which these runs have different weights; NaN when there is none."""
    distinct = study.curves_of(ids).groupby("epoch")["fingerprint"].nunique()
    apart = distinct.index[distinct > 1]
    return float(apart[0]) if len(apart) else math.nan


def determinism_table(study: Study) -> Table:
    """Per cell, how many different results the deterministic and the nd runs ended with."""
    rows = []
    for cell in study.cells():
        fixed, free = (study.runs(cell, arm, complete=False) for arm in ("det", "nd"))
        together = pd.concat([fixed, free])
        starts = together["initial_fingerprint"].nunique()
        parted = parted_epoch(study, free["id"].tolist())
        reason = "" if not math.isnan(parted) else "fewer than two nd runs" if len(free) < 2 else "nd runs never part"
        rows.append(
            {
                "task": cell.task,
                "optimizer": cell.optimizer,
                "seed": cell.seed,
                "n_det": len(fixed),
                "distinct_det": fixed["fingerprint"].nunique(),
                "n_nd": len(free),
                "distinct_nd": free["fingerprint"].nunique(),
                "same_start": "one run" if len(together) < 2 else "yes" if starts == 1 else "no",
                "parted_epoch": pd.NA if math.isnan(parted) else int(parted),
                "verdict": _verdict(len(fixed), fixed["fingerprint"].nunique()),
                "remark": remarks(reason, *(f"{label} diverged" for label in _diverged(together))),
            }
        )
    return Table(
        name="determinism",
        thesis_name="",
        title="Do the deterministic runs agree to the last bit?",
        caption=(
            "Number of different final fingerprints (SHA-256 over all parameters and buffers) among the runs of a "
            f"cell. One for several deterministic runs means that they agree to the last bit. nd: {nd_noise(study)}. "
            "The thesis assumed determinism and did not verify it."
        ),
        frame=pd.DataFrame(rows).astype({"parted_epoch": "Int64"}),
    )


def _diverged(runs: pd.DataFrame) -> list[str]:
    return [str(label) for label in runs.loc[runs["status"] != "complete", "label"]]


def determinism_arms_table(study: Study) -> Table:
    """Per arm, in how many cells all runs agree to the last bit or all differ."""
    rows = []
    for arm in study.arms:
        groups = [study.runs(cell, arm, complete=False)["fingerprint"] for cell in study.cells()]
        groups = [group for group in groups if len(group)]
        several = [group for group in groups if len(group) > 1]
        rows.append(
            {
                "arm": arm,
                "cells": len(groups),
                "runs": sum(map(len, groups)),
                "distinct": sum(group.nunique() for group in groups),
                "cells_equal": sum(group.nunique() == 1 for group in several),
                "cells_distinct": sum(group.nunique() == len(group) for group in several),
                "remark": "" if several else "one run per cell: nothing to compare",
            }
        )
    return Table(
        name="determinism_arms",
        thesis_name="",
        title="Same bits or not, per arm",
        caption="Final fingerprints compared within each cell; only cells of two runs or more can agree or differ.",
        frame=pd.DataFrame(rows),
    )
