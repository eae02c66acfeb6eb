"""Final bits: whether deterministic runs agree to the last bit, and when free runs come to differ."""

from __future__ import annotations

import pandas as pd

from twinrun.collect.study import Group, remarks
from twinrun.report.names import free_note
from twinrun.report.section import Draft, Section
from twinrun.report.table import CELL, CELLS, REMARK, RUNS, Column, Table
from twinrun.study.errors import plural

CELL_COLUMNS = (
    *CELL,
    Column("n_det", "n det", "d", "deterministic runs"),
    Column("distinct_det", "Distinct det", "d", "different final fingerprints among the deterministic runs"),
    Column("n_nd", "n nd", "d", "nd runs"),
    Column("distinct_nd", "Distinct nd", "d", "different final fingerprints among the nd runs"),
    Column("same_start", "Same start", "", "whether det and nd runs begin at the same weights"),
    Column("parted_epoch", "nd differ from epoch", "d", "first epoch after which the nd runs have different weights"),
    Column("verdict", "Verdict", "", "on the deterministic runs of the cell"),
    REMARK,
)
ARM_COLUMNS = (
    Column("arm", "Arm", "", "what is left free"),
    CELLS,
    RUNS,
    Column("distinct", "Distinct", "d", "different final fingerprints within cells, summed over the cells"),
    Column("cells_equal", "Cells all equal", "d", "cells of two runs or more whose runs all have the same bits"),
    Column("cells_distinct", "Cells all distinct", "d", "cells of two runs or more whose runs all have other bits"),
    REMARK,
)


def tables(draft: Draft) -> list[Table]:
    """Per arm and per cell, how many different results its runs ended with."""
    study = draft.study
    pairs = zip(study.groups("det"), study.groups("nd"), strict=True)
    arms = Table(
        name="determinism_arms",
        title="Same bits or not, per arm",
        caption="Final fingerprints compared within each cell; only cells of two runs or more can agree or differ.",
        columns=ARM_COLUMNS,
        rows=[_arm_row(arm, list(study.groups(arm))) for arm in study.arms],
        main=True,
    )
    cells = Table(
        name="determinism",
        title="Do the deterministic runs agree to the last bit?",
        caption=(
            "Number of different final fingerprints (SHA-256 over all parameters and buffers) among the runs of a "
            f"cell. One for several deterministic runs means that they agree to the last bit. {free_note(study)} "
            "The thesis assumed determinism and did not verify it."
        ),
        columns=CELL_COLUMNS,
        rows=[_cell_row(fixed, free) for fixed, free in pairs],
    )
    return [arms, cells]


def _arm_row(arm: str, groups: list[Group]) -> dict[str, object]:
    prints = [group.runs["fingerprint"] for group in groups if len(group.places)]
    several = [column for column in prints if len(column) > 1]
    return {
        "arm": arm,
        "cells": len(prints),
        "runs": sum(map(len, prints)),
        "distinct": sum(column.nunique() for column in prints),
        "cells_equal": sum(column.nunique() == 1 for column in several),
        "cells_distinct": sum(column.nunique() == len(column) for column in several),
        "remark": "" if several else "one run per cell: nothing to compare",
    }


def _cell_row(fixed: Group, free: Group) -> dict[str, object]:
    together = pd.concat([fixed.runs, free.runs])
    starts, distinct = together["initial_fingerprint"].nunique(), fixed.runs["fingerprint"].nunique()
    epoch = _first_different_epoch(free)
    reason = "" if epoch else "fewer than two nd runs" if len(free.places) < 2 else "nd runs never part"
    diverged = together.loc[together["status"] != "complete", "label"]
    return {
        **fixed.identity,
        "n_det": len(fixed.places),
        "distinct_det": distinct,
        "n_nd": len(free.places),
        "distinct_nd": free.runs["fingerprint"].nunique(),
        "same_start": "one run" if len(together) < 2 else "yes" if starts == 1 else "no",
        "parted_epoch": epoch,
        "verdict": _verdict(len(fixed.places), distinct),
        "remark": remarks(reason, *(f"{label} diverged" for label in diverged)),
    }


def _verdict(count: int, distinct: int) -> str:
    if count == 0:
        return "not available: no run"
    if count == 1:
        return "not verified: one run"
    return "bit-identical" if distinct == 1 else f"NOT deterministic: {distinct} different results"


def _first_different_epoch(group: Group) -> int | None:
    """The first epoch after which these runs have different weights."""
    distinct = group.study.curves_of(group.runs["id"].tolist()).groupby("epoch")["fingerprint"].nunique()
    apart = distinct.index[distinct > 1]
    return int(apart[0]) if len(apart) else None


def sentences(draft: Draft) -> list[str]:
    """Whether deterministic runs agreed, and when the free ones came to differ."""
    table = draft.frame("determinism")
    several, none = table[table["n_det"] > 1], table[table["n_det"] == 0]
    equal = int((several["distinct_det"] == 1).sum())
    if len(none) == len(table):
        lines = ["Not available: this study has no deterministic runs."]
    elif several.empty:
        lines = [
            "Not verified by this study's own runs: each cell has one deterministic run, and it takes two to compare. "
            "`twinrun verify` trains them again in fresh processes and compares fingerprints; a study with `det_2` "
            "in its grid shows it here."
        ]
    elif equal == len(several):
        where = "the one cell" if equal == 1 else f"all {equal} cells"
        lines = [f"Yes: in {where} the deterministic runs agree to the last bit."]
    else:
        lines = [
            f"No: in {len(several) - equal} of {plural(len(several), 'cell')} deterministic runs end with different "
            "bits. Their differences are no property of the arm; find the cause before you read on."
        ]
    free = table[table["n_nd"] > 1]
    if len(free):
        apart = int((free["distinct_nd"] == free["n_nd"]).sum())
        text = f"The nd runs all end with different weights in {apart} of {plural(len(free), 'cell')}"
        if apart:
            text += f"; in the median cell they differ by the end of epoch {int(free['parted_epoch'].median())}"
        lines.append(f"{text}.")
    starts = int(table["same_start"].eq("no").sum())
    if starts:
        lines.append(f"In {plural(starts, 'cell')} det and nd runs do not begin at the same weights.")
    return lines


SECTION = Section("determinism", "Determinism verified?", tables=tables, sentences=sentences, needs="weights")
