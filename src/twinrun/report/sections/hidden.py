"""What accuracy hides: distance of probabilities, ensembles, the finite test set, classes and images that flip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from twinrun.collect.load import AGAIN, read_array
from twinrun.collect.pictures import TOP_IMAGES
from twinrun.collect.study import Group, Study, remarks
from twinrun.report import style as drawing
from twinrun.report.names import TWO_FREE, free_note, free_runs, left_out, nd_noise, nd_phrase
from twinrun.report.section import Draft, Section, chosen
from twinrun.report.style import Drawn
from twinrun.report.table import ARM, CELLS, GROUP, REMARK, TASK, TWO_DIGITS, Column, N, Table, counts, span
from twinrun.stats import describe
from twinrun.stats.agreement import JS_PAIRS, Agreement
from twinrun.stats.churn import most_flipping
from twinrun.stats.finite_test_set import finite_test_share
from twinrun.study.errors import MismatchError, plural

HIDDEN_COLUMNS = (
    *GROUP,
    N,
    Column("js_distance", "JS distance", ".4f", "Jensen-Shannon distance, 0 to 1, mean over images and pairs"),
    Column("js_pairs", "JS pairs", "d", "pairs of runs that the distance was measured on"),
    Column("ensemble_gain", "Ensemble gain", "+.4f", "accuracy of the averaged probabilities less mean accuracy"),
    Column("sd_accuracy", "SD accuracy", TWO_DIGITS, "sample SD of accuracy over the runs"),
    Column("sd_independent", "SD if independent", TWO_DIGITS, "what errors independent between images would give"),
    Column("variance_rest", "Variance beyond", "+.1e", "estimated variance of accuracy on an endless test set"),
    REMARK,
)
SHARE_COLUMNS = (
    TASK,
    ARM,
    CELLS,
    Column("df", "df", "d", "degrees of freedom of the variance of accuracy: runs less one, over the cells"),
    Column("share", "Share", ".2f", "share of the variance of accuracy over runs that the finite test set makes"),
    Column("share_low", "95 % from", ".2f", "lower end of its 95 % interval, cut at 0"),
    Column("share_high", "95 % to", ".2f", "upper end of its 95 % interval, cut at 1"),
    REMARK,
)
CLASS_COLUMNS = (
    *GROUP,
    Column("class", "Class", "", "true class"),
    N,
    Column("images", "Images", "d", "test images"),
    Column("recall", "Recall", ".4f", "share of the class's images that are predicted as it, mean over the runs"),
    Column("recall_sd", "SD recall", TWO_DIGITS, "sample SD of the class's recall over the runs"),
    Column("class_churn", "Churn", ".4f", "churn on the images of this class"),
    Column("flipping", "Images flipping", "d", "images of the class that not all runs predict alike"),
    REMARK,
)
FLIP_COLUMNS = (
    TASK,
    Column("rank", "Rank", "d", "1 flips most"),
    Column("place", "Place", "d", "among the test images, from 0"),
    Column("image", "Image", "", "its id in the data, or its place among the test images"),
    Column("class", "Class", "", "true class"),
    Column("flips", "Flips", ".3f", "share of pairs of twins that disagree on the image, mean over the cells"),
    Column("cells_flipping", "Cells flipping", "d", "cells in which not all runs predict the image alike"),
    CELLS,
    Column("wrong", "Wrong", ".3f", "share of the runs that err on the image"),
)
MOST_CLASSES = 20  # of a task in the figure; of more those that flip most
PER_ROW = 5  # pictures


def tables(draft: Draft) -> list[Table]:
    """Per cell and arm; the finite test set; per class; the images that flip most."""
    study = draft.study
    hidden = Table(
        name="hidden",
        title="What accuracy hides",
        caption=(
            "Over the n complete runs of a cell and arm. Jensen-Shannon distance (square root of the divergence in "
            f"bits) of the class probabilities, mean over the images and all pairs of runs, or {JS_PAIRS} random pairs "
            "where there are more. Ensemble gain: accuracy of the averaged probabilities less the mean accuracy. The "
            "variance V of accuracy has a part that only the finite test set makes: with v_i the variance of image i "
            "being right, N/(N-1) (V - sum v_i / N^2) estimates without bias what an endless test set would leave "
            "(Jordan 2023); by chance it may be negative. Defined for accuracy, a mean over images; not for F1 and "
            f"AUC. {free_note(study)}"
        ),
        columns=HIDDEN_COLUMNS,
        rows=[_hidden_row(group, agreement) for group, agreement in draft.agreements],
        notes=left_out(study),
    )
    classes = Table(
        name="classes",
        title="Which classes flip",
        caption=(
            "Per true class: recall (mean and sample SD over the n runs of a cell and arm), churn on the images of the "
            f"class, and how many of them not all runs predict alike. {free_note(study)}"
        ),
        columns=CLASS_COLUMNS,
        rows=[row for group, agreement in draft.agreements for row in _class_rows(group, agreement)],
        notes=left_out(study),
    )
    return [hidden, share_table(draft), classes, _flips_table(draft)]


def share_table(draft: Draft) -> Table:
    """How much of the scatter of accuracy the finite test set makes, per task and arm."""
    study, rows = draft.study, []
    for task in study.tasks:
        for arm in study.paired_arms:
            cells = draft.agreed(task, arm)
            share = finite_test_share(agreement.test_set for agreement in cells)
            shown = share.low is not None
            rows.append(
                {
                    "task": task,
                    "arm": arm,
                    "cells": len(cells),
                    "df": share.n,
                    "share": share.value if shown else None,
                    "share_low": share.low,
                    "share_high": share.high,
                    "remark": share.reason,
                }
            )
    return Table(
        name="finite_test_set",
        title="What the finite test set makes of the scatter",
        caption=(
            "Share of the variance of accuracy over the runs of a cell that comes from the finite test set alone: with "
            'V and v_i as in the table "What accuracy hides", 1 - N/(N-1) (1 - sum v_i / N^2 / V), both sums taken '
            "over the cells, weighted by degrees of freedom (the ratio of a single cell of few runs is far too large "
            "on average). 95 % chi-square interval of V, for normal accuracies with one SD in all cells; by chance the "
            "share may exceed 1. Where the interval is wider than 0.9 the runs do not say, and nothing is given. "
            f"{study.free_arm}: "
            f"{nd_noise(study)}."
        ),
        columns=SHARE_COLUMNS,
        rows=rows,
    )


def _hidden_row(group: Group, agreement: Agreement) -> dict[str, Any]:
    part, soft = agreement.test_set, group.study.records("probabilities")
    return {
        **group.identity,
        "n": agreement.n,
        "js_distance": agreement.js_distance if soft else None,
        "js_pairs": agreement.js_pairs if soft else None,
        "ensemble_gain": agreement.ensemble_gain if soft else None,
        "sd_accuracy": part.sd,
        "sd_independent": part.sd_independent,
        "variance_rest": part.variance_rest,
        "remark": remarks(group.why(2), "" if soft else "probabilities are not recorded"),
    }


def _class_rows(group: Group, agreement: Agreement) -> list[dict[str, Any]]:
    labels, rows = group.study.labels(group.cell.task), []
    for index, name in enumerate(group.study.classes(group.cell.task)):
        members = labels == index
        flips = agreement.flips[members] if agreement.n > 1 else np.empty(0)
        recalls = agreement.recalls[:, index] if members.any() else np.empty(0)
        rows.append(
            {
                **group.identity,
                "class": name,
                "n": agreement.n,
                "images": int(members.sum()),
                "recall": describe.mean(recalls),
                "recall_sd": describe.sample_sd(recalls),
                "class_churn": describe.mean(flips),
                "flipping": int((flips > 0).sum()) if agreement.n > 1 and members.any() else None,
                "remark": remarks(group.why(2), "" if members.any() else "no test image of this class"),
            }
        )
    return rows


def _flips_table(draft: Draft) -> Table:
    """The images of each task on which twins disagree most."""
    study, rows, notes = draft.study, list[dict[str, Any]](), []
    for task in study.tasks:
        twins = draft.agreed(task, study.free_arm)
        labels, names, ids = study.labels(task), study.classes(task), study.image_ids(task)
        if not twins or not len(labels):
            notes.append(f"{study.title(task)}: not available, no cell has two complete {free_runs(study)}.")
            continue
        places, flips = most_flipping([agreement.flips for agreement in twins], TOP_IMAGES)
        wrong = np.sum([np.rint(agreement.wrong * agreement.n) for agreement in twins], axis=0) / sum(
            agreement.n for agreement in twins
        )
        cells = np.sum([agreement.flips > 0 for agreement in twins], axis=0)
        if not places:
            notes.append(f"{study.title(task)}: no image flips.")
        rows += [
            {
                "task": task,
                "rank": rank,
                "place": place,
                "image": ids[place],
                "class": names[labels[place]],
                "flips": flips[place],
                "cells_flipping": int(cells[place]),
                "cells": len(twins),
                "wrong": wrong[place],
            }
            for rank, place in enumerate(places, 1)
        ]
    return Table(
        name="flips",
        title="Images that flip most",
        caption=(
            f"The {TOP_IMAGES} test images of each task on which {nd_phrase(study)} disagree most: share of "
            "the pairs of a cell's runs that disagree on the image, mean over the cells; share of all those runs that "
            "err on it. Ties in the order of the test set."
        ),
        columns=FLIP_COLUMNS,
        rows=rows,
        notes=tuple(notes),
    )


def figures(draft: Draft) -> list[Drawn]:
    """Classes that flip, and a sheet of the images that flip most for each task whose pictures may be shown."""
    study, sheets = draft.study, []
    for task in study.tasks:
        flips, kept = chosen(draft.frame("flips"), task=task), read_pictures(study, task)
        if kept is not None and len(flips):
            sheets.append(_sheet(study, task, flips, kept[1]))
    classes = draft.frame("classes")
    known = chosen(classes, arm=study.free_arm)["class_churn"].notna().any()
    return [*([_classes_figure(study, classes)] if known else []), *sheets]


def _classes_figure(study: Study, classes: pd.DataFrame) -> Drawn:
    """Churn on the images of each class beside the class's error, one panel per task."""
    nd = classes[(classes["arm"] == study.free_arm) & classes["class_churn"].notna()]
    means = {
        task: chosen(nd, task=task).groupby("class", sort=False)[["class_churn", "recall"]].mean()
        for task in study.tasks
    }
    # Those that flip most where there are too many, in the order of the tables in any case.
    drawn = {
        task: mean.loc[mean.index.isin(mean.nlargest(MOST_CLASSES, "class_churn", keep="first").index)]
        for task, mean in means.items()
    }
    heights = [max(len(mean), 2) + 2 for mean in drawn.values()]
    with drawing.style():
        figure, grid = drawing.new_figure(
            0.6 + 0.21 * sum(heights), len(study.tasks), 1, sharex=True, gridspec_kw={"height_ratios": heights}
        )
        for (task, mean), (axes,) in zip(drawn.items(), grid, strict=True):
            axes.set_title(drawing.title_of(study, task), loc="left")
            if mean.empty:
                drawing.not_available(axes, "no cell with two complete runs")
                continue
            places = np.arange(len(mean))
            axes.barh(places, 100 * mean["class_churn"], 0.7, color=drawing.BLUE)
            axes.plot(100 * (1 - mean["recall"]), places, "D", color=drawing.VERMILION, markersize=4)
            axes.set_yticks(places, [_class(study, task, str(name), 24) for name in mean.index])
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
        title="Which classes flip",
        caption=(
            f"Per true class: share of its test images on which two {nd_phrase(study)} disagree (bars), and the share "
            f"that they get wrong (diamonds), means over the cells ({counts(nd['n'])} runs each), in the order of the "
            + (
                f"tables; the {MOST_CLASSES} that flip most."
                if any(len(m) > MOST_CLASSES for m in means.values())
                else "tables."
            )
        ),
        alt=f"Bar chart per task and class of churn, {span(nd['class_churn'], '.1f', 100)} percent in single cells.",
        figure=figure,
    )


def _class(study: Study, task: str, name: str, letters: int) -> str:
    """A class's name in a figure; its number where the font lacks a letter of it."""
    return drawing.drawable(name[:letters], f"class {study.classes(task).index(name)}")


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


def _sheet(study: Study, task: str, flips: pd.DataFrame, images: NDArray[np.uint8]) -> Drawn:
    rows = -(-len(flips) // PER_ROW)
    shares = [(_class(study, task, str(row["class"]), 14), 100 * row["flips"]) for row in flips.to_dict("records")]
    with drawing.style():
        figure, grid = drawing.new_figure(1.32 * rows + 0.1, rows, PER_ROW)
        panels = [axes for row in grid for axes in row]
        for axes in panels:
            axes.set_axis_off()
        for axes, image, (name, share) in zip(panels, images, shares, strict=False):
            picture = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, 2)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(f"{name}\n{share:.0f} %", fontsize=8, linespacing=1.1)
    return Drawn(
        name=f"pictures_{task}",
        title=f"{study.title(task)}: images that flip most",
        caption=(
            f"The test images on which {nd_phrase(study)} disagree most, with their true class and the share of pairs "
            f"of a cell's runs that disagree, mean over n = {plural(int(flips['cells'].iloc[0]), 'cell')} "
            '(table "Images that flip most", in its order). As the networks see them, before augmentation.'
        ),
        alt=(
            f"Sheet of {plural(len(flips), 'test image')}: "
            + ", ".join(f"{name} {share:.0f} percent" for name, share in shares)
            + " of pairs of runs disagree."
        ),
        figure=figure,
    )


def sentences(draft: Draft) -> list[str]:
    """Distance of probabilities, gain of the ensemble and the finite test set's share, task by task."""
    study, lines = draft.study, []
    for task in study.tasks:
        table = chosen(draft.frame("hidden"), task=task, arm=study.free_arm)
        table = table[table["js_distance"].notna()]
        if table.empty:
            continue
        text = (
            f"{study.title(task)}: the probabilities of two {free_runs(study)} are apart by a Jensen-Shannon distance "
            f"of {table['js_distance'].mean():.3f} on average; averaging them changes accuracy by "
            f"{span(table['ensemble_gain'], '+.2f', 100)} points over {plural(len(table), 'cell')}"
        )
        lines.append(f'{text} (table "What accuracy hides").')
        share = chosen(draft.frame("finite_test_set"), task=task, arm=study.free_arm).iloc[0]
        if pd.notna(share["share"]):
            ends = f"95 % interval {share['share_low']:.2f} to {share['share_high']:.2f}"
            lines.append(
                f"{study.title(task)}: the finite test set makes {share['share']:.2f} of the variance of accuracy over "
                f"{free_runs(study)} ({ends})."
                if share["share"] < 1
                else f"{study.title(task)}: accuracy scatters no more than a test set of this size makes it by itself "
                f"(share of the variance {ends})."
            )
    return lines


SECTION = Section(
    "hidden",
    "What accuracy hides",
    tables=tables,
    figures=figures,
    sentences=sentences,
    needs="predictions",
    filled_by=TWO_FREE,
)
