"""The picture of a comparison, runs as dots and differences with their intervals, and its page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twinrun.report import style as drawing
from twinrun.report.comparison import Compared, compared_json, json_text, sentences
from twinrun.report.page import svg_link, template
from twinrun.report.style import Drawn
from twinrun.study.files import write_text
from twinrun.study.folders import replaced_folder

FILES = ("index.html", "compare.json", "compare.svg", "compare.png")
LONGEST = 28  # letters of a name; of a longer one the end is shown


def write_page(compared: Compared, out: Path) -> Path:
    """Write index.html, compare.json, compare.svg and compare.png into `out`; returns the path of the page."""
    lines, drawn = sentences(compared), draw(compared)
    with replaced_folder(out, FILES, mark="compare.json") as folder:
        drawing.save(drawn, folder)
        source = svg_link(folder / "compare.svg")
        verdicts = lines[: lines.index("")]
        page = template("compare.html.j2").render(
            verdicts=verdicts, lines="\n".join(lines[len(verdicts) + 1 :]), source=source, alt=drawn.alt,
            caption=drawn.caption,
        )  # fmt: skip
        write_text(folder / "compare.json", json_text(compared_json(compared)) + "\n")
        write_text(folder / "index.html", page)
    return out / "index.html"


def draw(compared: Compared) -> Drawn:
    """Above, every run of each group; below, the difference of each pair with its intervals over the noise floor."""
    groups, pairs = compared.runs.values, list(compared.comparisons)
    margin = next((item.equivalence.margin for item in compared.comparisons.values() if item.equivalence), None)
    floor = compared.runs.floor.gap_of_two() if compared.runs.floor else 0.0
    names = {name: drawing.drawable(_short(name), f"group {place}") for place, name in enumerate(groups, 1)}
    heights = [0.5 + 0.32 * len(groups), 0.5 + 0.32 * len(pairs)]
    with drawing.style():
        figure, ((runs,), (gaps,)) = drawing.new_figure(1.0 + sum(heights), 2, 1, height_ratios=heights)
        for place, (values, (color, marker)) in enumerate(zip(groups.values(), 2 * drawing.SERIES, strict=False)):
            # In five lines, so that equal values show.
            runs.plot(values, place + 0.06 * (np.arange(len(values)) % 5 - 2), marker, color=color, alpha=0.7)
            runs.plot([np.mean(values)] * 2, [place - 0.32, place + 0.32], color="black", linewidth=1.2)
        runs.set_yticks(range(len(groups)), list(names.values()))
        runs.set_xlabel(drawing.drawable(compared.runs.metric, "value") or "value")
        if floor:
            gaps.axvspan(-floor, floor, color="#dddddd", linewidth=0)
        gaps.axvline(0, color="black", linewidth=0.8)
        for end in (-margin, margin) if margin else ():
            gaps.axvline(end, color=drawing.GREY, linewidth=0.9, linestyle="--")
        for place, pair in enumerate(pairs):
            wider, interval = compared.over_images.get(pair), compared.comparisons[pair].interval
            if wider is not None and wider.low is not None and wider.high is not None:
                gaps.plot([wider.low, wider.high], [place, place], color=drawing.SKY, linewidth=3.5, alpha=0.6)
            if interval.low is not None and interval.high is not None:
                gaps.plot([interval.low, interval.high], [place, place], color=drawing.BLUE, linewidth=1.6)
            if interval.value is not None:
                gaps.plot(interval.value, place, "o", color=drawing.BLUE, markersize=5)
        gaps.set_yticks(range(len(pairs)), [f"{names[b]}\n- {names[a]}" for a, b in pairs])
        gaps.set_xlabel("difference")
        for axes, count in ((runs, len(groups)), (gaps, len(pairs))):
            axes.set_ylim(count - 0.5, -0.5)
            axes.grid(False, axis="y")
            axes.grid(True, axis="x")
            axes.locator_params(axis="x", nbins=5)  # more would touch, and the last be cut
    undrawn = [f"{shown} is {name}" for name, shown in names.items() if shown != _short(name)]
    parts = [
        "Above, a dot a run; the line is their mean. Below, the difference with its 95 % interval",
        " (light: on other test images, too)" if compared.over_images else "",
        "; grey: what two identical runs stay within 95 % of the time" if floor else "",
        "; dashed: the margin" if margin else "",
        f"; {', '.join(undrawn)}" if undrawn else "",
    ]
    sizes = ", ".join(f"{name} n {len(values)}" for name, values in groups.items())
    alt = f"Dots of runs ({sizes}) above differences with intervals: {'; '.join(sentences(compared)[: len(pairs)])}."
    return Drawn("compare", "Comparison", f"{''.join(parts)}.", alt, figure)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}"
