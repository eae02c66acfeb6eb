"""A published study read again from its tables alone: the valid test per cell, implied SDs, checks of its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy import special, stats

from twinrun.collect.cells import write_csv
from twinrun.report.thesis.checks import Check, all_checks
from twinrun.report.thesis.tables import RUNS, TITLES, PublishedCell, published_cells
from twinrun.stats.describe import sd_factors
from twinrun.stats.hypothesis import paired_t, size_if_a_draw, two_sided_t
from twinrun.stats.multiplicity import benjamini_hochberg, holm
from twinrun.stats.samples import Outcome
from twinrun.study.files import write_text

ALPHA = 0.05
SOURCE = (
    '"Investigating the Impact of Randomness in Reproducibility in Computer Vision", master\'s thesis, 2023 '
    "(short version: arXiv 2410.02806)"
)


@dataclass(frozen=True)
class Reanalysis:
    """The corrected reading: one row a cell, one row a check."""

    cells: pd.DataFrame
    checks: pd.DataFrame

    @property
    def mistakes(self) -> pd.DataFrame:
        """The checks that fail."""
        failed: pd.DataFrame = self.checks[self.checks["verdict"] == "FAIL"]
        return failed

    @property
    def chance_of_as_many(self) -> float:
        """P of as many cells below 0.05 in Table 5.5 or more, when every run is one more draw of its cell."""
        below = int((self.cells["p_thesis"] < ALPHA).sum())
        return float(stats.binom.sf(below - 1, len(self.cells), size_if_a_draw(RUNS)))

    @property
    def uniform(self) -> Outcome:
        """Kolmogorov and Smirnov's test of the valid p values against the uniform distribution of no effect."""
        test, n = stats.kstest(self.cells["p_valid"], "uniform"), len(self.cells)
        return Outcome("Kolmogorov-Smirnov", float(test.statistic), float(test.pvalue), (n,))

    @property
    def paired(self) -> pd.DataFrame:
        """Per task the deterministic runs less the means of the free ones, over the cells: signs, and paired t."""
        rows = []
        for task, cells in self.cells.groupby("task", sort=False):
            # As printed: without the rounding of a subtraction an equal pair has no sign.
            gaps = (cells["det"] - cells["mean_nd"]).round(9)
            rows.append({"task": task, "cells": len(gaps), "above": int((gaps > 0).sum()),
                         "below": int((gaps < 0).sum()), "p": paired_t(gaps).p})  # fmt: skip
        return pd.DataFrame(rows)

    @property
    def summary(self) -> list[str]:
        """What holds, in sentences."""
        cells, checks = self.cells, self.checks
        below = {name: int((cells[name] < ALPHA).sum()) for name in ("p_thesis", "p_valid", "p_holm", "p_bh")}
        low, high = sd_factors(RUNS)
        counts = checks["verdict"].value_counts()
        return [
            f"Table 5.5 takes one deterministic run for a known mean. If that run is one more draw, its t-test rejects "
            f"{100 * size_if_a_draw(RUNS):.0f} % of the time at n = {RUNS}, not 5 % ({100 * size_if_a_draw(10):.0f} "
            f"% at n = 10, {100 * size_if_a_draw(30):.0f} % at n = 30).",
            f"Of {len(cells)} cells {below['p_thesis']} are below 0.05 in Table 5.5. With the prediction-interval "
            f"test, t / sqrt(n + 1), it is {below['p_valid']}; after Holm {below['p_holm']}, after Benjamini-Hochberg "
            f"{below['p_bh']}.",
            f"If every deterministic run were one more draw, {below['p_thesis']} or more of {len(cells)} cells would "
            f"be below 0.05 in Table 5.5 with probability {self.chance_of_as_many:.2g} (cells independent)"
            f"{': that many are no sign of an effect' if self.chance_of_as_many >= ALPHA else ''}. "
            f"The valid p values {'look' if (self.uniform.p or 0.0) >= ALPHA else 'do not look'} uniform, as without "
            f"an effect they are (Kolmogorov-Smirnov, p = {self.uniform.p:.2g}).",
            "Paired over the cells, deterministic less mean of the free runs: "
            + "; ".join(
                f"{TITLES[str(row.task)]} {row.above} above and {row.below} below, p = {row.p:.2f}"
                for row in self.paired.itertuples()
            )
            + " (paired t). No data set shows a shift." * bool((self.paired["p"] >= ALPHA).all()),
            f"The SDs that the tables imply are known to a factor {low:.2f} to {high:.2f} (95 %, n = {RUNS}).",
            f"{len(checks)} checks of printed numbers: {counts.get('pass', 0)} pass, {counts.get('cut off', 0)} pass "
            f"if digits were cut off instead of rounded, {counts.get('FAIL', 0)} fail.",
        ]


def reanalyze_thesis() -> Reanalysis:
    """The thesis's Tables 4.2, 5.1-5.6 and 6.1, as they are published, read again.

    >>> result = reanalyze_thesis()
    >>> int((result.cells["p_thesis"] < 0.05).sum()), int((result.cells["p_valid"] < 0.05).sum())
    (12, 3)
    >>> bool((result.cells["p_holm"] < 0.05).any() or (result.cells["p_bh"] < 0.05).any())
    False
    """
    frame = pd.DataFrame([_cell_row(cell) for cell in published_cells()])
    frame["p_holm"] = holm(frame["p_valid"].tolist())
    frame["p_bh"] = benjamini_hochberg(frame["p_valid"].tolist())
    return Reanalysis(frame, pd.DataFrame([_check_row(check) for check in all_checks()]))


def implied_t(p: float, n: int) -> float:
    """|t| of the two-sided one-sample t-test of n values that had this p.

    >>> round(implied_t(0.05, 5), 3)
    2.776
    """
    return float(-special.stdtrit(n - 1, p / 2))


def _cell_row(cell: PublishedCell) -> dict[str, object]:
    t = implied_t(cell.p.value, RUNS)
    # Rounded far below the printed digits: 0.01 - 0.01 is to be 0.
    gap = round(cell.deterministic.value - cell.free_mean.value, 9)
    blur = round(cell.deterministic.half_unit + cell.free_mean.half_unit, 9)
    # t = |det - mean| sqrt(n) / s, so s follows from the three printed numbers, blurred by their rounding.
    factor = math.sqrt(RUNS) / t
    valid = t / math.sqrt(RUNS + 1)
    return {
        "task": cell.task,
        "optimizer": cell.optimizer,
        "seed": int(cell.seed),
        "n": RUNS,
        "mean_nd": cell.free_mean.value,
        "det": cell.deterministic.value,
        "t_thesis": math.copysign(t, gap),
        "p_thesis": cell.p.value,
        "sd_implied": abs(gap) * factor,
        "sd_implied_from": max(abs(gap) - blur, 0.0) * factor,
        "sd_implied_to": (abs(gap) + blur) * factor,
        "cohens_d": math.copysign(t / math.sqrt(RUNS), gap),
        "t_valid": math.copysign(valid, gap),
        "p_valid": two_sided_t(valid, RUNS - 1),
    }


def _check_row(check: Check) -> dict[str, object]:
    return {
        "verdict": check.verdict,
        "where": check.where,
        "kind": check.kind,
        "what": check.what,
        "printed": check.printed,
        "recomputed": check.recomputed,
        "recomputed_from": check.low if math.isfinite(check.low) else None,
        "recomputed_to": check.high,
        "tolerance": check.tolerance,
    }


def write_reanalysis(result: Reanalysis, out: Path) -> list[Path]:
    """Write cells.csv, checks.csv and reanalysis.md into `out`; the same bytes each time."""
    write_csv(out / "cells.csv", result.cells)
    write_csv(out / "checks.csv", result.checks)
    write_text(out / "reanalysis.md", markdown(result))
    return [out / name for name in ("cells.csv", "checks.csv", "reanalysis.md")]


def markdown(result: Reanalysis) -> str:
    """The corrected reading as a page."""
    lines = ["# The thesis's tables read again", "", f"Source: {SOURCE}. Only its published tables are used.", ""]
    lines += [f"- {sentence}" for sentence in result.summary]
    lines += ["", "## Numbers that do not fit", ""]
    lines += ["| where | what | printed | recomputed |", "|---|---|---|---|"]
    for _, row in result.mistakes.iterrows():
        lines.append(f"| {row['where']} | {row['what']} | {_short(row['printed'])} | {_short(row['recomputed'])} |")
    lines += [
        "",
        "A number fails when no inputs that round to the printed ones give it, to half a unit of its last digit; not "
        "even if digits were cut off. `checks.csv` has every check.",
        "",
        "## Table 5.5, and the test that holds",
        "",
        "T = t / sqrt(n + 1) with n - 1 degrees of freedom; the SD is implied by mean, deterministic run and p "
        f"(n = {RUNS} free runs in each cell; from-to by the rounding of the printed numbers). Holm and BH over all "
        f"{len(result.cells)} cells.",
        "",
        "| task | optimizer | seed | SD | from | to | p in Table 5.5 | p valid | Holm | BH |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for _, row in result.cells.iterrows():
        numbers = [row[name] for name in ("sd_implied", "sd_implied_from", "sd_implied_to")]
        tests = [row[name] for name in ("p_thesis", "p_valid", "p_holm", "p_bh")]
        values = [f"{value:.2g}" for value in numbers] + [f"{value:.4f}" for value in tests]
        lines.append(f"| {TITLES[row['task']]} | {row['optimizer']} | {row['seed']} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def _short(value: float) -> str:
    return f"{value:.5g}"
