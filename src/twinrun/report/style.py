"""What every figure shares: style, palette, byte-stable files, and the frame for what is not available."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Patch

from twinrun.collect.study import Study
from twinrun.report.names import METRIC_LABELS, OPTIMIZER_LABELS
from twinrun.study.files import write_bytes

WIDTH = 4.6  # inches: at 390 pixels the text is still about 8 pixels high
DOTS_PER_INCH = 200

# Okabe and Ito's palette, told apart with every common colour blindness; hatches and markers carry it into grey print.
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000",
)  # fmt: skip
OPTIMIZER_STYLES: dict[str, dict[str, str]] = {
    "adam": {"color": BLUE, "hatch": "", "marker": "o"},
    "adamw": {"color": GREEN, "hatch": "\\\\\\", "marker": "^"},
    "sgd": {"color": VERMILION, "hatch": "///", "marker": "s"},
}
SERIES = [(BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P"), (BLACK, "X")]
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "+++")
GREY = "#666666"


def look(study: Study, optimizer: str) -> dict[str, str]:
    """Colour, hatch and marker of an optimizer, or of what an import compares in its place."""
    place = study.optimizers.index(optimizer)
    colour, marker = SERIES[place % len(SERIES)]
    return OPTIMIZER_STYLES.get(optimizer) or {
        "color": colour,
        "hatch": HATCHES[place % len(HATCHES)],
        "marker": marker,
    }


_STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same bytes on every machine
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "hatch.color": "white",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.hashsalt": "twinrun",  # element ids would be random without it
    "svg.fonttype": "path",
    "text.parse_math": False,  # a $ in a title or the name of a class is a dollar
}


@dataclass(frozen=True)
class Drawn:
    """A finished figure with the words that go with it; `name` is the stem of its files."""

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    thesis_name: str = ""  # what the thesis calls it


@contextmanager
def style() -> Iterator[None]:
    """The style of all figures, within this block only."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[list[Axes]]]:
    """A figure of the common width with a grid of axes, `height` in inches; no global state."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [list(row) for row in axes]


@cache
def _font() -> FT2Font:
    return get_font(findfont("DejaVu Sans"))


def drawable(text: str, instead: str) -> str:
    """`text`, or `instead` where the figures' font lacks a letter of it; captions and tables have the text itself."""
    return text if all(_font().get_char_index(ord(letter)) for letter in text) else instead


def title_of(study: Study, task: str) -> str:
    """A task's title as figures have it: its key where the font lacks a letter."""
    return drawable(study.title(task), task)


def fitted(title: str, columns: int = 1) -> str:
    """A title in lines that fit above one of so many panels beside each other; procedural images stay named."""
    return textwrap.fill(title.replace("(procedural images)", "(procedural)"), {1: 56, 2: 29, 3: 20}.get(columns, 14))


def save(drawn: Drawn, folder: Path) -> list[str]:
    """Write the figure as SVG and PNG, the same bytes each time; returns the two file names."""
    names = []
    for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        with style():
            drawn.figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, metadata=metadata, facecolor="white")
        drawn.figure.set_layout_engine(None)  # it has its places: without an engine it is drawn once, not twice
        names.append(f"{drawn.name}.{kind}")
        write_bytes(folder / names[-1], buffer.getvalue())
    return names


def not_available(axes: Axes, why: str) -> None:
    """Say in the frame why there is nothing to draw."""
    axes.text(0.5, 0.5, f"not available:\n{why}", ha="center", va="center", transform=axes.transAxes, color=GREY)
    # Not set_ticks([]), which would take the ticks of the panels that share this one's axes.
    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    axes.grid(False)


def grouped_positions(groups: int, members: int) -> tuple[list[list[float]], float]:
    """Centres of the bars of each member over the groups 0, 1, ..., and the width of a bar."""
    width = 0.8 / max(members, 1)
    offsets = [(member - (members - 1) / 2) * width for member in range(members)]
    return [[group + offset for group in range(groups)] for offset in offsets], width


def every(line: pd.DataFrame) -> int:
    """A marker at about eight points of a line: more would hide it."""
    return max(1, len(line) // 8)


def finite_max(values: Sequence[float]) -> float:
    """The largest finite value, or 0."""
    return max((float(value) for value in values if math.isfinite(value)), default=0.0)


def seed_ticks(axes: Axes, seeds: Sequence[int | str]) -> None:
    """Seeds along the x axis, slanted when they would touch."""
    texts = [str(seed) for seed in seeds]
    crowded = sum(map(len, texts)) > 40
    axes.set_xticks(range(len(texts)), texts, rotation=45 if crowded else 0, ha="right" if crowded else "center")
    axes.grid(False, axis="x")


def by_seed(frame: pd.DataFrame, seeds: Sequence[int | str], column: str) -> list[float]:
    """A column's values in the order of `seeds`, NaN where there is none."""
    indexed = frame.set_index("seed")[column]
    return [float(indexed.get(seed, math.nan)) for seed in seeds]


def optimizer_legend(axes: Axes, study: Study) -> None:
    """The optimizers above the frame, at the right."""
    handles: list[Any] = []
    for optimizer in study.optimizers:
        drawn = look(study, optimizer)
        handles.append(Patch(facecolor=drawn["color"], hatch=drawn["hatch"] * 2, label=OPTIMIZER_LABELS[optimizer]))
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(handles), borderaxespad=0.2)


def metric_panels(
    study: Study, task: str, draw: Callable[[Axes, str], None], what: str, label: str, **options: Any
) -> Figure:
    """A panel for each of the task's two metrics, over the seeds: what it shows, and the vertical label."""
    with style():
        count = len(study.metric_pair(task))
        figure, grid = new_figure(0.2 + 2.2 * count, count, 1, sharex=True, **options)
        for metric, (axes,) in zip(study.metric_pair(task), grid, strict=True):
            draw(axes, metric)
            axes.set_title(METRIC_LABELS[metric], loc="left")
        grid[-1][0].set_xlabel("" if study.seeds == ["any"] else "seed")
        figure.supylabel(label, fontsize=9)
        figure.suptitle(fitted(f"{title_of(study, task)}: {what}"), fontsize=10)
        optimizer_legend(grid[0][0], study)
    return figure


def difference_panel(axes: Axes, data: pd.DataFrame, study: Study, columns: tuple[str, str, str], alpha: float) -> None:
    """Bars of a difference in percent around 0; `columns` name it, the nd runs' mean and their SD."""
    places, width = grouped_positions(len(study.seeds), len(study.optimizers))
    for optimizer, centres in zip(study.optimizers, places, strict=True):
        bars = data[data["optimizer"] == optimizer]
        style = look(study, optimizer)
        values, mean, sd = (by_seed(bars, study.seeds, name) for name in columns)
        noise = [100 * s / m if m else math.nan for s, m in zip(sd, mean, strict=True)]
        axes.bar(centres, values, 0.92 * width, color=style["color"], hatch=style["hatch"], alpha=alpha)
        axes.errorbar(centres, [0.0] * len(centres), yerr=noise, fmt="none", ecolor="#666666", capsize=3, elinewidth=1)
    axes.axhline(0, color="black", linewidth=0.8)
    seed_ticks(axes, study.seeds)
