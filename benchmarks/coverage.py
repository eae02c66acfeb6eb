"""How often the intervals and verdicts hold: `python benchmarks/coverage.py [STUDIES]` writes stats/coverage.csv.

Captions take their coverage from that table. Shapes: normal; skewed (lognormal, both arms alike); bad (one run in ten
is 8 SDs worse); effects (four runs in a row share half of their variance, as those of one seed do).
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinrun.stats import compare as comparing
from twinrun.stats import effects
from twinrun.stats.equivalence import tost_welch
from twinrun.stats.intervals import mean_interval, sd_chi_square
from twinrun.stats.sequential import confidence_sequence

OUT = Path(__file__).parents[1] / "src" / "twinrun" / "stats" / "coverage.csv"
SIZES = (3, 5, 10, 30)
Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def normal(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.normal(size=n)


def skewed(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.lognormal(size=n)


def bad(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    return rng.normal(size=n) - 8 * (rng.random(n) < 0.1)


def run_effects(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    shared = np.repeat(rng.normal(size=math.ceil(n / 4)), 4)[:n]
    return math.sqrt(0.5) * (shared + rng.normal(size=n))


SHAPES: dict[str, tuple[Draw, float, float]] = {  # with the true mean and SD
    "normal": (normal, 0.0, 1.0),
    "skewed": (skewed, math.exp(0.5), math.sqrt((math.e - 1) * math.e)),
    "bad": (bad, -0.8, math.sqrt(1 + 64 * 0.09)),
    "effects": (run_effects, 0.0, 1.0),
}


def shares(draw: Draw, mean: float, sd: float, n: int, studies: int, rng: np.random.Generator) -> dict[str, float]:
    """The share of studies in which each interval holds the truth, or a verdict is not false."""
    held: dict[str, list[bool]] = {}

    def note(name: str, value: bool) -> None:
        held.setdefault(name, []).append(value)

    def inside(name: str, low: float | None, high: float | None, truth: float) -> None:
        if low is not None and high is not None:
            note(name, low - 1e-9 <= truth <= high + 1e-9)

    for _ in range(studies):
        a, b, pairs = draw(rng, n), draw(rng, n), draw(rng, n) - draw(rng, n)
        sorted_a, sorted_b = np.sort(a), np.sort(b)
        error = comparing.unpaired_error(sorted_a, sorted_b)
        welch = comparing.t_interval(error, sorted_a, sorted_b, 0.05)
        inside("difference, Welch", welch.low, welch.high, 0.0)
        paired = mean_interval(pairs)
        inside("difference, paired t", paired.low, paired.high, 0.0)
        mean_of = mean_interval(a)
        inside("mean, t", mean_of.low, mean_of.high, mean)
        spread = sd_chi_square(a)
        inside("SD, chi-square", spread.low, spread.high, sd)
        above = effects.superiority(b, a)
        inside("P(B > A), Newcombe", above.low, above.high, 0.5)
        # B is worse by exactly the margin: equivalent would be false.
        shown = tost_welch(b - sd, a, sd)
        if shown.p is not None:
            note("equivalent at the margin", shown.p >= 0.05)
    return {name: float(np.mean(values)) for name, values in held.items()}


def looking(draw: Draw, studies: int, rng: np.random.Generator) -> float:
    """The share of sequences of pairs whose interval never excludes the truth, looking after every pair up to 100."""
    held = 0
    for _ in range(studies):
        gaps = draw(rng, 100) - draw(rng, 100)
        intervals = (confidence_sequence(gaps[:n]) for n in range(5, 101))
        held += all(interval.low is None or interval.low <= 0 <= (interval.high or 0) for interval in intervals)
    return held / studies


def main(studies: int) -> None:
    rows = []
    for shape, (draw, mean, sd) in SHAPES.items():
        for n in SIZES:
            rng = np.random.default_rng([n, len(shape)])
            rows += [
                (name, shape, n, studies, share) for name, share in shares(draw, mean, sd, n, studies, rng).items()
            ]
        rows.append(("difference, sequential", shape, 100, studies, looking(draw, studies, np.random.default_rng(1))))
    with OUT.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("interval", "shape", "n", "studies", "holds"))
        writer.writerows((name, shape, n, count, f"{share:.3f}") for name, shape, n, count, share in sorted(rows))
    print(OUT.read_text())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
