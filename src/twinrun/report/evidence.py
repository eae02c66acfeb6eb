"""What `twinrun compare` compares: groups of runs, with their pairs; from a collected study or folders of twins."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from twinrun.stats import churn
from twinrun.stats.digits import two_digits
from twinrun.stats.intervals import PooledSd
from twinrun.study.errors import InputError, plural

if TYPE_CHECKING:
    from twinrun.collect.study import Study

MOST_GROUPS = 10  # all pairs of more are a flood
PUBLISHED = "published "  # before the number: the name of its group
SHARE_METRICS = {"acc", "accuracy", "auc", "f1", "precision", "recall"}


@dataclass(frozen=True)
class Runs:
    """The values of each group by name; with `paired`, those with one key in `keys` belong together, else by place.

    `right` is (runs, images) for each group in the order of its values: whether, or how often, an image is right.
    `floor` is the SD of identical runs.
    """

    values: Mapping[str, Sequence[float]]
    metric: str
    paired: bool = False
    pair_name: str = ""
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of each value; empty: pairs by place, or none
    notes: tuple[str, ...] = ()
    right: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    floor: PooledSd | None = None

    def compared(self, a: str, b: str) -> tuple[list[int], list[int]]:
        """The places of the values of two groups that are compared: all, or with keys those that both groups have.

        >>> Runs({}, "f1", True, "seed", {"a": ["1", "2", "3"], "b": ["3", "2"]}).compared("a", "b")
        ([1, 2], [1, 0])
        """
        if not self.keys:
            return list(range(len(self.values[a]))), list(range(len(self.values[b])))
        theirs = {key: place for place, key in enumerate(self.keys[b])}
        both = [(place, theirs[key]) for place, key in enumerate(self.keys[a]) if key in theirs]
        return [place for place, _ in both], [place for _, place in both]

    @property
    def lower_is_better(self) -> bool:
        """Whether the numbers are losses: the last word of the metric says so, or a word of each compared column.

        >>> [Runs({}, name).lower_is_better for name in ("loss", "m.json:val_loss", "accuracy", "lossless")]
        [True, True, False, False]
        >>> [Runs({"sgd_loss": [], other: []}, "").lower_is_better for other in ("Loss (Adam)", "sgd_acc")]
        [True, False]
        """
        columns = [name for name in self.values if not name.startswith(PUBLISHED)]
        if self.metric or not columns:
            return _last_word(self.metric) == "loss"
        return all("loss" in _words(name) for name in columns)


def _words(name: str) -> list[str]:
    words: list[str] = re.findall(r"[a-z][a-z0-9]*", name.lower())
    return words


def _last_word(name: str) -> str:
    """What a metric or column measures, which its last word says.

    >>> [_last_word(name) for name in ("val_loss", "m.json:acc", "Accuracy (%)", "F1")]
    ['loss', 'acc', 'accuracy', 'f1']
    """
    return (_words(name) or [""])[-1]


def published_of(names: Sequence[str], known: Collection[str]) -> tuple[list[str], list[str]]:
    """The words that name something, and those that are no name but a published number.

    >>> published_of(["sgd", "0.921"], ["sgd", "adam"])
    (['sgd'], ['0.921'])
    """
    numbers = [name for name in names if name not in known and _is_number(name)]
    if len(numbers) > 1:
        raise InputError(
            f"two published numbers, {numbers[0]} and {numbers[1]}, beside runs", "compare them one by one"
        )
    return [name for name in names if name not in numbers], numbers


def with_published(runs: Runs, numbers: Sequence[str]) -> Runs:
    """The runs and, as a group of one, a published number."""
    if not numbers:
        return runs
    if runs.paired:
        raise InputError(f"--pair with the published number {numbers[0]}", "it has no partner: leave --pair out")
    note = (
        "the published number is taken for one run with the SD of the runs beside it; "
        "a mean of several would be known better"
    )
    values = {**runs.values, f"{PUBLISHED}{numbers[0]}": [float(numbers[0])]}
    return replace(runs, values=values, notes=(*runs.notes, note))


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def unit_notes(runs: Runs) -> tuple[str, ...]:
    """Notes where values, or the mean of a group in [0, 1], are about a hundred times below others: share and percent?

    Raises InputError where that is certain: of a metric that is known for a share, the smaller values differ and are
    0.5 or more, and the ratio is near 100. A collapsed model in percent has one value, or a smaller one.

    >>> unit_notes(Runs({"a": [1.0, 1.0], "b": [76.0, 75.0]}, "acc"))
    ('a has a mean of 1, b one of 75.5: if that is a share and percent, give both in one unit',)
    >>> unit_notes(Runs({"a": [0.9], "b": [0.91]}, "acc"))
    ()
    """
    mixed = tuple(_mixed_units(name, group) for name, group in runs.values.items()
                  if _last_word(runs.metric or name) in SHARE_METRICS)  # fmt: skip
    notes = tuple(filter(None, mixed))
    shares = [name for name, group in runs.values.items() if all(0 <= value <= 1 for value in group)]
    percent = [name for name, group in runs.values.items() if all(1 < value <= 100 for value in group)]
    for a, b in ((a, b) for a in shares for b in percent):
        names = [runs.metric] if runs.metric else [name for name in (a, b) if not name.startswith(PUBLISHED)]
        what = {_last_word(name) for name in names}  # a column of a wide table is a metric
        share, other = float(np.mean(runs.values[a])), float(np.mean(runs.values[b]))
        if "loss" in what or not 50 * share < other < 200 * share:
            continue
        means, low = f"{a} has a mean of {share:.3g}, {b} one of {other:.3g}", min(runs.values[a])
        if what <= SHARE_METRICS and 0.5 <= low < max(runs.values[a]) and 80 * share < other < 125 * share:
            raise InputError(f"{means}: a share and percent?", "give both in one unit, such as shares")
        return (*notes, f"{means}: if that is a share and percent, give both in one unit")
    return notes


def _mixed_units(name: str, group: Sequence[float]) -> str:
    """A note where one group has values about a hundred times others: a collapsed run, or a share and percent."""
    small = [value for value in group if 0.5 <= value <= 1]
    large = [value for value in group if small and 80 * min(small) < value <= min(125 * max(small), 100)]
    return f"{name} has {max(small):g} beside {large[0]:g}: a share and percent?" if large else ""


def few(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_GROUPS]) + (", ..." if len(names) > MOST_GROUPS else "")


def paired_runs(keyed: Mapping[str, Mapping[str, float]], metric: str, pair: str) -> Runs:
    """Groups whose runs of one key are pairs. Two groups are compared in the keys that both have; a note says so.

    >>> paired_runs({"a": {"1": 0.5, "2": 0.6}, "b": {"2": 0.7}}, "f1", "seed").notes
    ('pairs are of the values of seed that both groups have: a and b share 1 of 2',)
    """
    shared = []
    for a, b in combinations(keyed, 2):
        common, either = len(keyed[a].keys() & keyed[b].keys()), len(keyed[a].keys() | keyed[b].keys())
        if not common:
            raise InputError(
                f"no {pair} is in both {a} and {b}, so they make no pairs",
                f"{a} has {few(list(keyed[a]))}; {b} has {few(list(keyed[b]))}: name what belongs together alike, "
                f"or leave --pair {pair} out",
            )
        if common < either:
            shared.append(f"{a} and {b} share {common} of {either}")
    notes = (f"pairs are of the values of {pair} that both groups have: {', '.join(shared)}",) if shared else ()
    values = {name: list(group.values()) for name, group in keyed.items()}
    return Runs(values, metric, True, pair, {name: list(group) for name, group in keyed.items()}, notes)


def in_order(runs: Runs) -> Runs:
    """The n-th run of each group made a pair; runs without a partner are left out, with a note."""
    shortest = min(map(len, runs.values.values()))
    left = sum(map(len, runs.values.values())) - shortest * len(runs.values)
    note = f"{plural(left, 'run')} left out: without a partner in order"
    order = "pairs are made in the order of the runs; --pair makes them by a column"
    notes = (*runs.notes, order, *((note,) if left else ()))
    return Runs({k: v[:shortest] for k, v in runs.values.items()}, runs.metric, True, "their order", notes=notes)


def study_runs(folder: Path, names: Sequence[str], metric: str | None) -> tuple[Runs, list[str]]:
    """Sets of runs of a collected study, TASK/OPTIMIZER each, and what their predictions say.

    With an arm `all` its runs are the draws; else the mean of each seed's nd runs (of its first arm, in a study without
    them) is one, paired by seed; with one seed its runs are, which know nothing about other seeds.
    """
    from twinrun.collect.study import load_study  # pandas takes half a second, which a table does not need

    return runs_of(load_study(folder), names, metric)


def runs_of(study: Study, names: Sequence[str], metric: str | None = None) -> tuple[Runs, list[str]]:
    """`study_runs` of a study that is loaded."""
    sets = [f"{task}/{optimizer}" for task in study.tasks for optimizer in study.optimizers]
    names, published = published_of(names, sets)
    for name in names:
        if name not in sets:
            raise InputError(f"{name!r} is no set of runs of {study.folder}", f"there are: {', '.join(sets)}")
    given, metric = metric, metric or study.main_metric(names[0].split("/")[0])
    known = [name for name in dict.fromkeys((*study.metrics, "loss")) if study.results[name].notna().any()]
    if given and metric not in known:
        raise InputError(f"--metric {metric!r}", f"this study has {', '.join(known) or 'no metric'}")
    frame = study.results[study.results["status"] == "complete"]
    frame = frame.assign(set=frame["task"] + "/" + frame["optimizer"])
    frame = frame[frame["set"].isin(names) & frame[metric].notna()]
    arm = next((name for name in ("all", "nd") if name in study.arms), study.arms[0])
    chosen = frame[frame["arm"] == arm]
    rows = {name: chosen[chosen["set"] == name] for name in names}
    for name, part in rows.items():
        if part.empty:
            raise InputError(f"{name} has no complete {arm} run with {metric}", f"runs of {study.folder} are needed")
    seeds = {name: part.groupby("seed", sort=False)[metric].mean() for name, part in rows.items()}
    if arm == "all":
        runs = Runs({name: part[metric].tolist() for name, part in rows.items()}, metric,
                    notes=("runs of the arm all: everything free, the total SD",))  # fmt: skip
    elif min(map(len, seeds.values())) > 1:
        keyed = {name: {str(seed): float(value) for seed, value in means.items()} for name, means in seeds.items()}
        if published:  # no pairs
            runs = Runs({name: list(means.values()) for name, means in keyed.items()}, metric)
        else:
            runs = paired_runs(keyed, metric, "seed")
        runs = replace(runs, notes=(*runs.notes, f"each value is the mean of a seed's {arm} runs"))
    else:
        note = "runs of one seed: their SD is that of identical runs, and another seed may turn the result round"
        runs = Runs({name: part[metric].tolist() for name, part in rows.items()}, metric, notes=(note,))
    lines, floors = [], []
    identical = frame[frame["arm"] == "nd"]
    for name in names:
        cells = identical[identical["set"] == name].groupby("seed")[metric]
        pooled = PooledSd.of(values.to_numpy() for _, values in cells)
        if pooled.df:
            floors.append(pooled)
            lines.append(f"noise floor of {name}: identical runs have an SD of {two_digits(pooled.value)}")
    runs = replace(runs, floor=PooledSd.together(floors) if floors else None)
    tasks = {name.split("/")[0] for name in names}
    labels = [study.labels(task) for task in sorted(tasks)] if study.records("predictions") else []
    same_images = labels and all(np.array_equal(labels[0], other) for other in labels)
    if len(tasks) > 1 and not same_images:
        differ = "differ" if labels else "may differ"
        note = f"{' and '.join(sorted(tasks))} are different tasks: their images {differ}, and not the models alone"
        runs = replace(runs, notes=(*runs.notes, note))
    if same_images:
        predicted = {name: _predicted(study, name, part) for name, part in rows.items()}
        lines += _churn_words(study, predicted)
        if metric == "accuracy":
            by_seed = arm != "all" and min(map(len, seeds.values())) > 1
            right = {name: _right(predicted[name] == labels[0], rows[name], by_seed) for name in names}
            runs = replace(runs, right=right)
    return with_published(runs, published), lines


def _predicted(study: Any, name: str, rows: Any) -> NDArray[np.integer]:
    """The classes that the runs of a set predict, (runs, images), a byte each where there are few classes."""
    task = name.split("/")[0]
    small = np.min_scalar_type(len(study.info["tasks"][task]["classes"]))
    stream = study.stream(task, rows["row"].tolist())
    return np.stack([churn.predicted_classes(run).astype(small) for run in stream])


def _right(right: NDArray[np.bool_], rows: Any, by_seed: bool) -> NDArray[np.float64]:
    """How often each image is right, (values, images), a row for each value of `Runs.values`: a seed, or a run."""
    if not by_seed:
        return right.astype(np.float64)
    seeds = rows["seed"].to_numpy()
    return np.stack([right[seeds == seed].mean(axis=0) for seed in dict.fromkeys(seeds)])


def _churn_words(study: Any, predicted: Mapping[str, NDArray[np.integer]]) -> list[str]:
    sizes = [len(runs) for runs in predicted.values()]
    counts = [
        churn.class_counts(runs, runs.shape[1], len(study.info["tasks"][name.split("/")[0]]["classes"]))
        for name, runs in predicted.items()
    ]
    if len({part.shape for part in counts}) > 1:
        return []
    words = [
        f"{name} {100 * (churn.mean_churn(part, size).value or 0):.1f} %"
        for name, part, size in zip(predicted, counts, sizes, strict=True)
        if size > 1
    ]
    apart = churn.churn_between(counts, sizes).value
    between = f"between the models {100 * apart:.1f} %" if apart is not None else ""
    return [f"churn of two runs: {', '.join(filter(None, [*words, between]))} of {len(counts[0])} test images"]


def twins_runs(folders: Sequence[Path], metric: str | None) -> Runs:
    """One metric of the twins in two folders or more of `twinrun twins`."""
    from twinrun.collect.schema import read_twins  # for twins alone

    values: dict[str, list[float]] = {}
    arms, name = set(), metric
    for folder in folders:
        twins = read_twins(folder)
        metrics = {entry.name: entry.values for entry in twins.metrics}
        if not metrics:
            raise InputError(f"{folder}: its twins have no metric", "run `twinrun twins` with --metric FILE:KEY")
        name = name or (next(iter(metrics)) if len(metrics) == 1 else None)
        if name not in metrics:
            asked = f"no metric {name!r}" if name else "several metrics: name one with --metric"
            raise InputError(f"{folder}: {asked}", f"there are: {', '.join(metrics)}")
        values[str(folder)] = list(metrics[name].values())
        arms.add(twins.arm)
    if len(values) < len(folders):
        raise InputError(f"{folders[0]} is named twice", "a comparison needs two folders")
    note = "twins of one seed: another seed may turn the result round (run `twins --arm all` for the total SD)"
    floor = None if "all" in arms else PooledSd.of(values.values())
    return Runs(values, name or "", notes=(note,) if arms - {"all"} else (), floor=floor)
