"""How often intervals and verdicts hold in simulation, from the table that `benchmarks/coverage.py` writes."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

SHAPES = {
    "normal": "normal runs",
    "skewed": "skewed ones",
    "heavy": "heavy tails (t3)",
    "bad": "one bad run in ten",
    "effects": "four runs to a seed taken for independent",
    "whole": "runs that differ as a whole",
}


@cache
def table() -> dict[tuple[str, str, int], float]:
    """The share of simulated studies in which it holds, by (interval, shape, n)."""
    with (Path(__file__).parent / "coverage.csv").open(newline="", encoding="utf-8") as stream:
        return {(row["interval"], row["shape"], int(row["n"])): float(row["holds"]) for row in csv.DictReader(stream)}


def coverage_words(interval: str, n: int) -> str:
    """How often an interval holds for the largest simulated number of runs up to `n`, or the smallest one.

    >>> coverage_words("difference, Welch", 7).split(":")[0]
    'holds in simulations at n = 5'
    >>> coverage_words("no such interval", 7)
    'was not simulated'
    """
    sizes = sorted({size for name, _, size in table() if name == interval})
    if not sizes:
        return "was not simulated"
    size = max((size for size in sizes if size <= n), default=sizes[0])
    shares = [
        f"{100 * table()[interval, shape, size]:.0f} % {words}"
        for shape, words in SHAPES.items()
        if (interval, shape, size) in table()
    ]
    return f"holds in simulations at n = {size}: {', '.join(shares)}"
