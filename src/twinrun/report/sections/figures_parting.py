"""How far two runs drift apart after the step in which they part."""

from __future__ import annotations

from matplotlib.axes import Axes

from twinrun.collect.first_difference import Located
from twinrun.report import style as drawing
from twinrun.report.style import Drawn


def growth_figure(found: Located, name: str) -> Drawn:
    """Distance of the weights in length and in ulps, and predictions flipped, after each step of `found.growth`."""
    steps = [row.step for row in found.growth]
    with drawing.style():
        figure, grid = drawing.new_figure(5.4, rows=3, sharex=True)
        distance, ulps, flipped = (row[0] for row in grid)
        _line(distance, steps, [row.relative_l2 for row in found.growth], drawing.BLUE, "o", None)
        distance.set_ylabel("|b - a| / |a|")
        _line(ulps, steps, [row.ulps_max for row in found.growth], drawing.VERMILION, "s", "largest")
        _line(ulps, steps, [row.ulps_median for row in found.growth], drawing.GREEN, "^", "median")
        ulps.set_ylabel("ulps")
        ulps.legend()
        flipped.plot(
            steps, [100 * row.flipped / row.examples for row in found.growth], color=drawing.PURPLE, marker="D"
        )
        flipped.set_ylabel("flipped (%)")
        flipped.set_ylim(bottom=0)
        flipped.set_xlabel("steps after the one in which they part")
        figure.suptitle(f"{found.first} and {found.second}", fontsize=9)
    return Drawn(
        name=name,
        thesis_name="",
        title=f"{found.first} and {found.second}: how the difference grows",
        caption=(
            f"After the step in which they part (step 0: epoch {found.epoch}, step {found.step}) and each of the "
            "following: relative distance of all weights (top), largest and median distance in units in the last place "
            "over the weights that differ (middle), share of the test examples with another predicted class (bottom). "
            "A distance of 0 does not show on the logarithmic axes; a weight that changes its sign is far in ulps. "
            "One pair of runs, n = 1."
        ),
        alt=(
            f"Three line charts over {steps[-1]} steps: distance of the weights, ulps, flipped predictions; at the end "
            f"{found.growth[-1].flipped} of {found.growth[-1].examples} predictions differ."
        ),
        figure=figure,
    )


def _line(
    axes: Axes,
    steps: list[int],
    values: list[float | None] | list[int | None],
    color: str,
    marker: str,
    label: str | None,
) -> None:
    points = [(step, value) for step, value in zip(steps, values, strict=True) if value]
    axes.plot([s for s, _ in points], [v for _, v in points], color=color, marker=marker, label=label)
    if points:
        axes.set_yscale("log")
