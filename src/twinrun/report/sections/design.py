"""What was trained: the grid, what is free in each arm, and how to read the page."""

from __future__ import annotations

from twinrun.collect.study import Study
from twinrun.report.names import NOISE_WORDS, noise_kinds
from twinrun.report.section import Draft, Section
from twinrun.study.errors import plural
from twinrun.study.grid import ARMS


def sentences(draft: Draft) -> list[str]:
    """The size of the grid, each task's remarks, and each arm with what is free in it and its runs per cell."""
    study = draft.study
    if study.imported:
        return _imported(study)
    grid = study.info["grid"]
    sizes = " x ".join(
        plural(len(grid[key]), noun)
        for key, noun in (("tasks", "task"), ("optimizers", "optimizer"), ("seeds", "seed"), ("runs", "run"))
    )
    devices = " and ".join(
        {"cpu": "CPUs", "cuda": "CUDA GPUs"}[device] for device in sorted(set(study.results["device"]))
    )
    lines = [
        f"The same networks were trained again and again under controlled randomness: {sizes} = "
        f"{plural(len(study.results), 'run')}, on {devices}.",
        "A cell is one task, optimizer and seed. All runs of a cell begin with the same settings and seed; its arms "
        "differ in what is then left free.",
        *(f"{study.title(task)}: {remark}." for task in study.tasks for remark in study.info["tasks"][task]["remarks"]),
    ]
    words = [NOISE_WORDS[kind] for kind in noise_kinds(study)]
    for arm in study.arms:
        count = sum(label.rpartition("_")[0] == arm for label in grid["runs"])
        noise = f" Here: {'; '.join(words)}." if arm in ("nd", "all") and words else ""
        lines.append(f"`{arm}`: {ARMS[arm]} ({plural(count, 'run')} per cell).{noise}")
    return lines


def _imported(study: Study) -> list[str]:
    """What was imported, from where, and what is free in each arm."""
    imported, word = study.imported or {}, study.setting_word
    files = ", ".join(f"`{file['name']}`" for file in imported["files"])
    sizes = ", ".join(
        f"{plural(int(n), 'run')} of {name}" for name, n in study.results["optimizer"].value_counts().items()
    )
    lines = [
        f"These results were made elsewhere and imported from {files}: {plural(len(study.results), 'run')}, "
        f"{plural(len(study.tasks), 'task')}, {plural(len(study.optimizers), word)} ({sizes}).",
        f"A cell is one task, {word} and seed."
        + (" The seeds are not told apart: all runs of a cell count together." if study.seeds == ["any"] else ""),
    ]
    return lines + [f"`{arm}`: {ARMS[arm]}, as far as the table says it." for arm in study.arms]


SECTION = Section(
    "study",
    "What this study is",
    about=(
        "Metrics lie in [0, 1]; a point is 0.01. n is the number of runs. n/a marks a value that does not exist; the "
        "remark in its row says why. A click on a column's heading sorts the table."
    ),
    sentences=sentences,
)
