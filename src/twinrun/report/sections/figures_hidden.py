"""Figures of what accuracy hides: churn against error, classes that flip, pictures that flip, and arms side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from twinrun.collect.load import AGAIN, read_array
from twinrun.collect.study import Study
from twinrun.report import style as drawing
from twinrun.report.names import OPTIMIZER_LABELS, nd_phrase
from twinrun.report.sections.figures import counts
from twinrun.report.style import Drawn
from twinrun.report.table import plural, span
from twinrun.study.errors import MismatchError

MOST_CLASSES = 20  # of a task in the figure; of more those that flip most
PER_ROW = 5  # pictures


def churn_figure(study: Study, churn: pd.DataFrame) -> Drawn:
    """Churn of each cell against its error, with the line on which both are equal."""
    arms = [arm for arm in dict.fromkeys(churn["arm"]) if arm != "det"] or ["nd"]
    known = churn[churn["churn"].notna() & churn["arm"].isin(arms)]
    limit = 100 * 1.3 * max(drawing.finite_max(known[name].tolist()) for name in ("churn", "error"))
    with drawing.style():
        figure, grid = drawing.new_figure(3.9 * len(arms) + 0.4, len(arms), 1)
        for arm, (axes,) in zip(arms, grid, strict=True):
            mine = known[known["arm"] == arm]
            if mine.empty or limit == 0:
                why = "no cell with two complete runs" if mine.empty else "no run errs and no two runs differ"
                drawing.not_available(axes, why)
                continue
            axes.plot([0, limit], [0, limit], color=drawing.GREY, linewidth=0.9, linestyle="--")
            for index, task in enumerate(study.tasks):
                colour = drawing.SERIES[index % len(drawing.SERIES)][0]
                for optimizer in study.optimizers:
                    points = mine[(mine["task"] == task) & (mine["optimizer"] == optimizer)]
                    marker = drawing.OPTIMIZER_STYLES[optimizer]["marker"]
                    filled = colour if optimizer == "adam" else "none"
                    axes.vlines(
                        100 * points["error"],
                        100 * points["churn_low"],
                        100 * points["churn_high"],
                        color=colour,
                        linewidth=0.8,
                        alpha=0.6,
                    )
                    axes.plot(
                        100 * points["error"], 100 * points["churn"], marker, color=colour, mfc=filled, markersize=6,
                        mew=1.4,
                    )  # fmt: skip
            axes.set(xlim=(0, limit), ylim=(0, limit), xlabel="test error (%)", ylabel="churn (% of test images)")
            axes.set_aspect("equal")
            axes.grid(True, axis="both")
            axes.set_title(nd_phrase(study) if arm == "nd" else f"arm {arm}", loc="left")
        figure.legend(handles=_churn_legend(study), loc="outside lower center", ncols=1 if len(study.tasks) > 2 else 2)
    pairs = int(known["pairs"].sum())
    return Drawn(
        name="churn_error",
        thesis_name="",
        title="Churn against error",
        caption=(
            "One point per cell (task, optimizer, seed). Vertical: churn, the share of test images that two runs of "
            f"the cell classify differently, mean over all its n(n-1)/2 pairs ({counts(known['n'])} runs, {pairs} "
            "pairs in all). Horizontal: mean test error of the same runs. On the dashed line twins disagree as often "
            "as they err, which is what the literature finds for well-trained networks; below it they agree more. "
            'Whiskers: 95 % interval over images and runs (table "Churn of identical runs"), cut at the frame.'
        ),
        alt=(
            f"Scatter of {plural(len(known), 'cell')}: churn {span(known['churn'], '.1f', 100)} percent, error "
            f"{span(known['error'], '.1f', 100)} percent, churn over error {span(known['churn_over_error'], '.2f')}."
        ),
        figure=figure,
    )


def _churn_legend(study: Study) -> list[Line2D]:
    handles = []
    for index, task in enumerate(study.tasks):
        colour = drawing.SERIES[index % len(drawing.SERIES)][0]
        for optimizer in study.optimizers:
            handles.append(
                Line2D(
                    [], [], linestyle="", marker=drawing.OPTIMIZER_STYLES[optimizer]["marker"], color=colour,
                    mfc=colour if optimizer == "adam" else "none", mew=1.4, markersize=6,
                    label=f"{study.title(task)}, {OPTIMIZER_LABELS[optimizer]}",
                )
            )  # fmt: skip
    return handles


def classes_figure(study: Study, classes: pd.DataFrame) -> Drawn:
    """Churn on the images of each class beside the class's error, one panel per task, from the frame of the table."""
    nd = classes[(classes["arm"] == "nd") & classes["class_churn"].notna()]
    means = {
        task: nd[nd["task"] == task].groupby("class", sort=False)[["class_churn", "recall"]].mean()
        for task in study.tasks
    }
    shown = {task: mine.nlargest(MOST_CLASSES, "class_churn", keep="first") for task, mine in means.items()}
    heights = [max(len(mine), 2) + 2 for mine in shown.values()]
    with drawing.style():
        figure, grid = drawing.new_figure(
            0.6 + 0.21 * sum(heights), len(study.tasks), 1, gridspec_kw={"height_ratios": heights}
        )
        for task, (axes,) in zip(study.tasks, grid, strict=True):
            axes.set_title(study.title(task), loc="left")
            mine = shown[task]
            if mine.empty:
                drawing.not_available(axes, "no cell with two complete nd runs")
                continue
            places = np.arange(len(mine))
            axes.barh(places, 100 * mine["class_churn"], 0.7, color=drawing.BLUE)
            axes.plot(100 * (1 - mine["recall"]), places, "D", color=drawing.VERMILION, markersize=4)
            axes.set_yticks(places, [str(name)[:24] for name in mine.index])
            axes.invert_yaxis()
            axes.grid(True, axis="x")
            axes.grid(False, axis="y")
        grid[-1][0].set_xlabel("% of the images of the class")
        handles = [
            Line2D([], [], linewidth=6, color=drawing.BLUE, label="churn"),
            Line2D([], [], linestyle="", marker="D", color=drawing.VERMILION, label="error (1 - recall)"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return Drawn(
        name="class_flips",
        thesis_name="",
        title="Which classes flip",
        caption=(
            f"Per true class: share of its test images on which two {nd_phrase(study)} disagree (bars), and the share "
            f"that they get wrong (diamonds), means over the cells ({counts(nd['n'])} runs each). Sorted by churn"
            + (f"; the {MOST_CLASSES} that flip most." if any(len(m) > MOST_CLASSES for m in means.values()) else ".")
        ),
        alt=f"Bar chart per task and class of churn, {span(nd['class_churn'], '.1f', 100)} percent in single cells.",
        figure=figure,
    )


def read_pictures(study: Study, task: str) -> tuple[list[int], NDArray[np.uint8]] | None:
    """Places and pictures (images, channels, side, side) of the test images that flip most; None: not to be shown.

    Raises MismatchError when the pictures are not those that study.json names.
    """
    places = study.info["tasks"][task].get("flipping")
    if places is None:
        return None
    path = study.folder / task / "flipping.npy"
    images = read_array(path)
    if images.ndim != 4 or images.dtype != np.uint8 or len(images) != len(places):
        raise MismatchError(f"{path}: not the {len(places)} pictures that study.json names", AGAIN)
    return list(places), images


def picture_figures(study: Study, flips: pd.DataFrame) -> list[Drawn]:
    """A sheet of the images that flip most for each task whose pictures may be shown, from the frame of the table."""
    found = ((task, flips[flips["task"] == task], read_pictures(study, task)) for task in study.tasks)
    return [_sheet(study, task, mine, kept[1]) for task, mine, kept in found if kept is not None and len(mine)]


def _sheet(study: Study, task: str, flips: pd.DataFrame, images: np.ndarray) -> Drawn:
    rows = -(-len(flips) // PER_ROW)
    with drawing.style():
        figure, grid = drawing.new_figure(1.32 * rows + 0.1, rows, PER_ROW)
        panels = [axes for row in grid for axes in row]
        for axes in panels:
            axes.set_axis_off()
        for axes, image, (_, row) in zip(panels, images, flips.iterrows(), strict=False):
            grey = image.shape[0] == 1
            axes.imshow(
                image[0] if grey else np.moveaxis(image, 0, 2), cmap="gray", vmin=0, vmax=255, interpolation="nearest"
            )
            axes.set_title(f"{str(row['class'])[:14]}\n{100 * row['flips']:.0f} %", fontsize=8, linespacing=1.1)
    return Drawn(
        name=f"pictures_{task}",
        thesis_name="",
        title=f"{study.title(task)}: images that flip most",
        caption=(
            f"The test images on which {nd_phrase(study)} disagree most, with their true class and the share of pairs "
            f"of a cell's runs that disagree, mean over n = {plural(int(flips['cells'].iloc[0]), 'cell')} "
            '(table "Images that flip most", in its order). As the networks see them, before augmentation.'
        ),
        alt=(
            f"Sheet of {plural(len(flips), 'test image')}: "
            + ", ".join(f"{row['class']} {100 * row['flips']:.0f} percent" for _, row in flips.iterrows())
            + " of pairs of runs disagree."
        ),
        figure=figure,
    )
