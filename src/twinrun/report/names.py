"""What the thesis calls each table and figure, and the words that this project uses."""

from __future__ import annotations

import re
from typing import Any

from twinrun.collect.study import METRIC_LABELS as METRIC_LABELS
from twinrun.collect.study import Labels, Study
from twinrun.study.schema_model import ModelSpec

# The thesis counts its tables CIFAR-10, SDNET2018, CBIS-DDSM and its figures CIFAR-10, CBIS-DDSM, SDNET2018.
_THESIS = {
    "performance": ("Table", {"cifar10": "5.1", "sdnet2018": "5.2", "cbis_ddsm": "5.3"}),
    "sd": ("Figure", {"cifar10": "5.1", "cbis_ddsm": "5.2", "sdnet2018": "5.3"}),
    "difference": ("Figure", {"cifar10": "5.4", "cbis_ddsm": "5.5", "sdnet2018": "5.6"}),
    "runtime": ("Figure", {"cifar10": "5.7", "cbis_ddsm": "5.8", "sdnet2018": "5.9"}),
}
COSINE_FIGURE = {"adam": "Figure 5.11", "sgd": "Figure 5.12"}

# What would fill a table or section, as the end of a sentence that begins with "Needs".
TWO_FREE = (
    "two runs of one free arm in a cell or more: `nd_1` and `nd_2`, or `all_1` and `all_2`, in `runs` of `params.yaml`"
)
DET_AND_ND = "deterministic and identical free runs of a cell: `det_1`, `nd_1`, `nd_2` in `runs` of `params.yaml`"
IDENTICAL = "identical free runs: `nd_1`, `nd_2` and more in `runs` of `params.yaml`, with two seeds or more"

OPTIMIZER_LABELS = Labels(adam="Adam", adamw="AdamW", sgd="SGD")
NOISE_LABELS = {
    "unknown": "what was left free is not recorded",
    "native": "CUDA's own execution order",
    "reorder": "emulated reorder noise",
    "ulp": "emulated one-ulp noise",
    "none": "no noise",
}
NOISE_WORDS = {
    "unknown": "what was left free in these runs is not recorded",
    "native": "CUDA's own order of execution was left free (native noise)",
    "reorder": (
        "emulated `reorder` noise: the examples of each batch are put into a fresh, recorded order, which changes only "
        "the order of the sums and so the rounding. It stands in for the noise of a GPU and is not CUDA noise"
    ),
    "ulp": (
        "emulated `ulp` noise: one weight is changed by one unit in the last place at the start. It is not CUDA noise"
    ),
    "none": "nothing: these runs had no implementation noise",
}


def thesis_name(study: Study, task: str, kind: str) -> str:
    """`Table 5.1` and so on, by the data set whose format the task's data have; empty for any other.

    `kind` is what the tables and figures of this project are called: performance, sd, difference or runtime.
    """
    word, numbers = _THESIS[kind]
    reader = study.reader(task)
    # Two tasks may share a reader; only the first takes the thesis's number.
    first = next(name for name in study.tasks if study.reader(name) == reader)
    return f"{word} {numbers[reader]}" if reader in numbers and task == first else ""


def corresponds(study: Study) -> bool:
    """Whether any task's data have the format of one of the thesis's data sets: only then its names are given."""
    return bool({study.reader(task) for task in study.tasks} & set(_THESIS["performance"][1]))


def network(model: dict[str, Any]) -> str:
    """A task's network as `ModelSpec.words` has it."""
    return ModelSpec.model_validate(model).words


def positive_words(study: Study) -> str:
    """Of which class F1 and AUC are, task by task."""
    words, several = [], False
    for task in study.tasks:
        classes = study.classes(task)
        if len(classes) == 2:
            words.append(f"{classes[1]} ({study.title(task)})")
        several |= len(classes) > 2
    mean = "of three classes or more they are the mean over the classes" if several else ""
    positive = f"the positive class is {', '.join(words)}" if words else ""
    said = "; ".join(filter(None, (positive, mean)))
    return f"F1 and AUC: {said}." if said else ""


def noise_kinds(study: Study) -> list[str]:
    """The kinds of implementation noise among the free runs, in order of appearance; never `none`."""
    kinds = study.results.loc[study.results["arm"].isin(["nd", "all", study.free_arm]), "noise"]
    return [kind for kind in dict.fromkeys(kinds) if kind != "none"]


def free_runs(study: Study) -> str:
    """`nd runs`, or `runs` where everything was free in all of them."""
    return "nd runs" if study.free_arm == "nd" else "runs"


def said(study: Study, text: str) -> str:
    """A caption or title in the study's words: the factors of an import, no identical runs where there are none."""
    if study.imported:
        word = study.setting_word
        text = re.sub(r"\boptimizer(s?)\b", rf"{word}\1", text)
        text = re.sub(r"\bOptimizer(s?)\b", rf"{word.capitalize()}\1", text)
    if study.free_arm == "all":
        text = re.sub(r"\bidentical runs\b", "runs", text.replace(" nd: no runs.", ""))
        text = re.sub(r"\b(nd runs|(nd )?twins)\b", "runs", text)
    return text


def same_seed(study: Study, arm: str) -> str:
    """`nd, same seed`: pairs within cells; `any two runs` where the runs of all seeds count together."""
    return "any two runs" if study.seeds == ["any"] else f"{arm}, same seed"


def nd_phrase(study: Study) -> str:
    """`nd runs (emulated reorder noise)`: the free arm, always with the kind of its noise."""
    if study.free_arm == "all":
        return "runs (everything free)"
    return f"nd runs ({nd_noise(study)})" if noise_kinds(study) else "nd runs"


def nd_noise(study: Study) -> str:
    """The kind of the noise that the free runs had."""
    if study.free_arm == "all":
        return "everything free"
    return " and ".join(NOISE_LABELS[kind] for kind in noise_kinds(study)) or "no runs"


def free_note(study: Study) -> str:
    """`nd: emulated reorder noise.`: what the free arm's name stands for."""
    return "all: everything free." if study.free_arm == "all" else f"nd: {nd_noise(study)}."


def procedural_words(study: Study) -> str:
    """The sentence that names the tasks whose images were drawn by a program; empty when there is none."""
    titles = [study.title(task) for task in study.tasks if study.procedural(task)]
    return f"Images drawn by a program, not photographs: {', '.join(titles)}." if titles else ""


def left_out(study: Study) -> tuple[str, ...]:
    """The note that names the arms which have one run in a cell, and so no pairs."""
    single = [arm for arm in study.arms if arm not in study.paired_arms]
    return (f"Left out: {', '.join(single)}, with one run per cell: a pair needs two.",) if single else ()
