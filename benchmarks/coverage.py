"""How often the intervals and verdicts hold: `python benchmarks/coverage.py [STUDIES]` writes the table of them.

It calls the functions of the package on simulated studies and writes stats/coverage.csv, from which captions and
answers take their words, and docs/coverage.md. Shapes of runs: normal; skewed (lognormal); heavy (Student's t with 3
degrees of freedom); effects (four runs in a row share half of their variance, as those of one seed do); bad (one run
in ten is 8 SDs worse). Of churn: a binary network with 4.5 % churn, whose runs as a whole shift their threshold by an
SD of 6 points (whole; skewed and heavy: such shifts of that shape), or one run in ten of which is broken (bad).
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinrun.stats import compare as comparing
from twinrun.stats import cost, coverage, effects, power
from twinrun.stats.churn import churn_interval, class_counts
from twinrun.stats.equivalence import tost
from twinrun.stats.intervals import PooledSd, mean_interval, sd_bootstrap, sd_chi_square
from twinrun.stats.pairs import churn_over_seeds
from twinrun.stats.published import published
from twinrun.stats.samples import Interval
from twinrun.stats.sequential import confidence_sequence

REPOSITORY = Path(__file__).parents[1]
OUT, PAGE = REPOSITORY / "src" / "twinrun" / "stats" / "coverage.csv", REPOSITORY / "docs" / "coverage.md"
SIZES = (3, 5, 10, 30)
CELLS = 6  # of a pooled SD
IMAGES = 1000
LEAST = 0.93  # below, a share is set bold: the interval or verdict does not keep its promise there
Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Values]
Held = Iterator[tuple[str, bool]]


def normal(rng: np.random.Generator, n: int) -> Values:
    return rng.normal(size=n)


def skewed(rng: np.random.Generator, n: int) -> Values:
    return rng.lognormal(size=n)


def heavy(rng: np.random.Generator, n: int) -> Values:
    return rng.standard_t(3, size=n)


def bad(rng: np.random.Generator, n: int) -> Values:
    return rng.normal(size=n) - 8 * (rng.random(n) < 0.1)


def run_effects(rng: np.random.Generator, n: int) -> Values:
    shared = np.repeat(rng.normal(size=math.ceil(n / 4)), 4)[:n]
    return math.sqrt(0.5) * (shared + rng.normal(size=n))


SHAPES: dict[str, tuple[Draw, float, float]] = {  # with the true mean and SD
    "normal": (normal, 0.0, 1.0),
    "skewed": (skewed, math.exp(0.5), math.sqrt((math.e - 1) * math.e)),
    "heavy": (heavy, 0.0, math.sqrt(3)),
    "bad": (bad, -0.8, math.sqrt(1 + 64 * 0.09)),
    "effects": (run_effects, 0.0, 1.0),
}


CHURN = ("normal", "whole", "skewed", "heavy", "bad")
PARTS = (*SHAPES, *(f"churn, {shape}" for shape in CHURN))


def inside(name: str, interval: Interval, truth: float) -> Held:
    """Whether the interval holds the truth; nothing where there is no interval."""
    if interval.low is not None and interval.high is not None:
        yield name, interval.low - 1e-9 <= truth <= interval.high + 1e-9


def of_runs(shape: str, n: int, rng: np.random.Generator) -> Held:
    """One study of two arms of n runs: differences, SDs, P(B > A), equivalence, power."""
    draw, mean, sd = SHAPES[shape]
    a, b, pairs = draw(rng, n), draw(rng, n), draw(rng, n) - draw(rng, n)
    sorted_a, sorted_b = np.sort(a), np.sort(b)

    def welch(shift: float) -> Interval:
        return comparing.t_interval(comparing.unpaired_error(sorted_a, sorted_b + shift), sorted_a, sorted_b, 0.05)

    yield from inside("difference, Welch", welch(0.0), 0.0)
    single = comparing.unpaired_error(sorted_a, draw(rng, 1))
    yield from inside("difference to one new run", comparing.t_interval(single, sorted_a, sorted_b, 0.05), 0.0)
    yield from inside("difference, paired t", mean_interval(pairs), 0.0)
    yield from inside("mean, t", mean_interval(a), mean)
    yield from inside("SD, chi-square", sd_chi_square(a), sd)
    if shape != "effects":  # a cell is a seed
        cells = PooledSd.of(draw(rng, n) for _ in range(CELLS))
        yield from inside("SD, pooled over six cells", cells.interval(), sd)
        yield "gap of two further runs", abs(float(draw(rng, 1)[0] - draw(rng, 1)[0])) <= cells.gap_of_two()
    yield from inside("P(B > A), Newcombe", effects.superiority(b, a), 0.5)
    # B is worse by exactly the margin: equivalent and not worse would be false.
    error = comparing.unpaired_error(sorted_a, sorted_b - sd)
    if not isinstance(error, str):
        shown = tost(error.difference, error.standard_error, error.df, sd, (n, n))
        yield "equivalent at the margin", (shown.p or 0.0) >= 0.05
        yield "not worse at the margin", (welch(-sd).low or 0.0) <= -sd
    # A true difference that a t-test of so many runs finds with a power of 80 %.
    found = welch(sd * power.smallest_detectable(math.sqrt(2 / n), 2 * n - 2))
    if found.low is not None:
        yield "power of 80 %, true SD", found.low > 0
    # The same promise when the SD is that of n runs of each, and taken at the upper end of its interval.
    pilot = PooledSd.of([draw(rng, n), draw(rng, n)])
    planned = power.plan(pilot, "total", lambda value: power.replicates_for_difference(0.5 * sd, value))
    for name, needed in (("its SD's value", planned.needed), ("its SD's upper end", planned.needed_high)):
        if needed.n is not None:
            reached = power.power_of_t(0.5, math.sqrt(2 / needed.n), 2 * needed.n - 2)
            yield f"power of 80 %, planned from a pilot by {name}", reached >= 0.8


def of_bootstrap(shape: str, n: int, rng: np.random.Generator) -> Held:
    """The bootstrap interval of one SD, which takes long."""
    draw, _, sd = SHAPES[shape]
    if n >= 5:
        yield from inside("SD, bootstrap", sd_bootstrap(draw(rng, n), rng), sd)


def of_looking(shape: str, n: int, rng: np.random.Generator) -> Held:
    """Whether the interval of pairs ever excludes the truth, looking after every pair up to n."""
    draw = SHAPES[shape][0]
    gaps = draw(rng, n) - draw(rng, n)
    intervals = (confidence_sequence(gaps[:seen]) for seen in range(5, n + 1))
    yield "difference, sequential", all(item.low is None or item.low <= 0 <= (item.high or 0) for item in intervals)


def of_cost(shape: str, n: int, rng: np.random.Generator) -> Held:
    """n blocks of a ladder whose five rungs cost nothing: the interval of one, and any false verdict in the family."""
    draw = SHAPES[shape][0]
    names = ["free", "again", *"abcde"]
    logs = {name: 0.01 * (draw(rng, n) - draw(rng, n)) for name in names}
    blocks = [[(name, math.exp(logs[name][place])) for name in (*names, *names[::-1])] for place in range(n)]
    verdicts = cost.judge(blocks, "free", "again")
    ratio = cost.estimate([cost.block_ratio(block, "a", "free") for block in blocks])
    if ratio.low is not None and ratio.high is not None:
        yield "cost, ratio", ratio.low <= 1 <= ratio.high
        yield (
            "cost, five rungs without any",
            all(item.verdict not in (cost.DEARER, cost.CHEAPER) for name, item in verdicts.items() if name != "again"),
        )
        steps = cost.increments(blocks, dict(zip("bcde", "abcd", strict=True)))
        yield (
            "cost, increments without any",
            all(item.verdict not in (cost.DEARER, cost.CHEAPER) for item in steps.values()),
        )


def of_published(shape: str, n: int, rng: np.random.Generator) -> Held:
    """Two published accuracies on n images, each of one training with an SD of one point."""
    draw, mean, sd = SHAPES[shape]
    if shape == "effects":
        return
    a, b = (float(np.clip(0.8 + gap + 0.01 * (draw(rng, 1)[0] - mean) / sd, 0.1, 0.96)) for gap in (0.0, 0.01))
    both = min(a, b) - 0.03  # twins agree more than independent models do
    cells = rng.multinomial(n, np.clip([both, a - both, b - both, 1 - a - b + both], 0, 1))
    found = [float(cells[0] + cells[place]) / n for place in (1, 2)]
    measured = published(found[0], found[1], n, both_right=float(cells[0]) / n, sd=0.01)
    yield "published, agreement and SD known", measured.low <= 0.01 <= measured.high
    assumed = published(found[0], found[1], n, sd=0.01)
    yield "published, errors taken for independent", assumed.low <= 0.01 <= assumed.high
    alone = published(found[0], found[1], n, both_right=float(cells[0]) / n)
    yield "published, training noise left out", alone.low <= 0.01 <= alone.high


def of_images(shape: str, n: int, rng: np.random.Generator) -> Held:
    """Two arms of n runs on the same test images, of which A errs on 10 % and B on as many others."""
    draw, mean, sd = SHAPES[shape]
    hard = rng.normal(size=IMAGES)
    own = [math.sqrt(0.8) * hard + math.sqrt(0.2) * rng.normal(size=IMAGES) for _ in range(2)]
    shifts = [0.1 * (draw(rng, n) - mean) / sd for _ in range(2)]
    a, b = (
        ((where + shift[:, None] + 0.1 * rng.normal(size=(n, IMAGES))) > -1.28).astype(float)
        for where, shift in zip(own, shifts, strict=True)
    )
    error = comparing.two_way_error(a, b)
    name = "difference, over runs and images"
    yield from inside(name, comparing.t_interval(error, a.mean(axis=1), b.mean(axis=1), 0.05), 0.0)


def predictions(shape: str, seeds: int, runs: int, images: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Classes (seeds, runs, images) of a binary network; seeds differ a little on every image."""
    common = rng.normal(size=images)
    own = math.sqrt(0.9) * common + math.sqrt(0.1) * rng.normal(size=(seeds, 1, images)) if seeds > 1 else common
    noise, shift = np.full((seeds, runs, 1), 0.1), np.zeros((seeds, runs, 1))
    if shape in ("skewed", "heavy", "whole"):  # 0.15 moves 6 % of the images over the threshold
        draw, mean, sd = SHAPES["normal" if shape == "whole" else shape]
        shift = 0.15 * (draw(rng, seeds * runs).reshape(seeds, runs, 1) - mean) / sd
    if shape == "bad":
        noise = np.where(rng.random((seeds, runs, 1)) < 0.1, 1.0, 0.1)
    return (own + shift + noise * rng.normal(size=(seeds, runs, images)) > 0).astype(np.int64)


def true_churn(shape: str, seeds: int = 1) -> float:
    """Of two runs of one seed or, with many seeds, of two seeds: over many runs and images."""
    rng, parts = np.random.default_rng(0), []
    for _ in range(40):
        drawn = predictions(shape, seeds, 400 if seeds == 1 else 1, IMAGES, rng).reshape(-1, IMAGES)
        ones, count = drawn.sum(axis=0), len(drawn)
        parts.append(float((2 * ones * (count - ones)).mean()) / (count * (count - 1)))
    return float(np.mean(parts))


def of_churn(shape: str, n: int, rng: np.random.Generator, truth: float) -> Held:
    """Churn of n runs of one seed."""
    drawn = predictions(shape, 1, n, IMAGES, rng)[0]
    yield from inside("churn", churn_interval(drawn, class_counts(iter(drawn), IMAGES, 2)), truth)


def of_seeds(shape: str, n: int, rng: np.random.Generator, truth: tuple[float, float]) -> Held:
    """Churn over n seeds of two runs each, and its ratio to that between seeds."""
    drawn = predictions(shape, n, 2, IMAGES, rng)
    found = churn_over_seeds([class_counts(iter(runs), IMAGES, 2) for runs in drawn], [2] * n)
    yield from inside("churn, over seeds", found.same, truth[0])
    yield from inside("churn between seeds", found.other, truth[1])
    yield from inside("churn within over between seeds", found.ratio, truth[0] / truth[1])


def repeated(
    study: Callable[[np.random.Generator], Held], key: list[int], studies: int
) -> dict[str, tuple[float, int]]:
    """The share of studies in which each holds, and how many studies had it."""
    rng, held = np.random.default_rng(key), dict[str, list[bool]]()
    for _ in range(studies):
        for name, value in study(rng):
            held.setdefault(name, []).append(value)
    return {name: (float(np.mean(values)), len(values)) for name, values in held.items()}


def rows_of(part: str, studies: int) -> list[tuple[str, str, int, int, str]]:
    """The rows of one shape of runs, or of "churn, SHAPE"; the same ones whatever else is simulated."""
    rows = []

    def add(shape: str, n: int, study: Callable[[np.random.Generator], Held], times: int) -> None:
        found = repeated(study, [n, *map(ord, shape)], times)
        rows.extend((name, shape, n, count, f"{share:.3f}") for name, (share, count) in found.items())

    kind, _, shape = part.rpartition(", ")
    if kind:
        truth = true_churn(shape), true_churn(shape, 400)
        for n in SIZES:
            add(shape, n, lambda rng, n=n: of_churn(shape, n, rng, truth[0]), 2 * studies)
        for n in (3, 5, 8):
            add(shape, n, lambda rng, n=n: of_seeds(shape, n, rng, truth), studies)
        return rows
    for n in SIZES:
        add(shape, n, lambda rng, n=n: of_runs(shape, n, rng), studies)
        add(shape, n, lambda rng, n=n: of_bootstrap(shape, n, rng), studies // 4)
        add(shape, n, lambda rng, n=n: of_images(shape, n, rng), studies // 2)
    for n in (6, 10, 30):
        add(shape, n, lambda rng, n=n: of_cost(shape, n, rng), studies // 2)
    for n in (500, 2000):
        add(shape, n, lambda rng, n=n: of_published(shape, n, rng), studies // 4)
    add(shape, 100, lambda rng: of_looking(shape, 100, rng), studies // 2)
    return rows


def page() -> str:
    """The whole table as a page of Markdown."""
    head = ("Interval or verdict", "n", *coverage.SHAPES.values())
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
    for name, n in sorted({(name, n) for name, _, n in coverage.table()}):
        promised = 0.78 if name.startswith("power of 80 %, true") else LEAST
        cells = [_cell(coverage.table().get((name, shape, n)), promised) for shape in coverage.SHAPES]
        lines.append(f"| {name} | {n} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(share: float | None, promised: float) -> str:
    if share is None:
        return ""
    return f"**{100 * share:.0f}**" if share < promised else f"{100 * share:.0f}"


def main(studies: int) -> None:
    rows = []
    for part in PARTS:
        rows += rows_of(part, studies)
        print(part, flush=True)
    with OUT.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("interval", "shape", "n", "studies", "holds"))
        writer.writerows(sorted(rows))
    coverage.table.cache_clear()
    PAGE.write_text(page())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
