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
LEAST = 0.93  # below, a share is set bold: the interval or verdict does not keep its promise there


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


def page() -> str:
    """The whole table as a page of Markdown; `docs/coverage.md` is this text."""
    head = ("Interval or verdict", "n", *SHAPES.values())
    lines = [
        "# How often the intervals and verdicts hold",
        "",
        "In percent of simulated studies, by `python benchmarks/coverage.py`, which says how they were drawn. A 95 %",
        "interval should read 95; a verdict, how often it is not false, or for power how often it finds what is there",
        "(80) or plans enough. n is the number of runs of each model; of churn over and between seeds that of seeds",
        "with two runs each, of costs that of blocks, of published numbers that of test images; `sequential` looks",
        "after every pair up to n. Normal runs are alike where it is about churn; skewed and heavy-tailed ones there",
        "differ as a whole by amounts of that shape. What is below 93 (power: 78) is bold: there it does not keep its",
        "promise. No interval of five runs can know of bad ones that are not among them (none is, 59 % of the time).",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for name, n in sorted({(name, n) for name, _, n in table()}):
        promised = 0.78 if name.startswith("power of 80 %, true") else LEAST
        cells = [_cell(table().get((name, shape, n)), promised) for shape in SHAPES]
        lines.append(f"| {name} | {n} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(share: float | None, promised: float) -> str:
    if share is None:
        return ""
    return f"**{100 * share:.0f}**" if share < promised else f"{100 * share:.0f}"
