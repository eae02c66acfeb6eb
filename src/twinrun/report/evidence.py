"""What `twinrun compare` compares: groups of runs from a CSV table, a collected study or folders of twins."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
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
MEANS_ALONE = "with means alone: twinrun compare 0.912 0.921 --images N --sd SD, for accuracies"
SHARE_METRICS = {"acc", "accuracy", "auc", "f1", "precision", "recall"}
SUMMARIES = {"mean", "avg", "average", "std", "sd", "median", "min", "max"}  # in place of a seed


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


def table_runs(path: Path, names: Sequence[str], *, metric: str | None, by: str | None, pair: str | None) -> Runs:
    """Groups from a CSV table: values of `metric` by the column `by`, or the columns that `names` names.

    `pair` is the column whose equal values make pairs. Raises InputError for a missing column, a cell without a number,
    two rows of one group with one value of `pair`, and groups that are not there.
    """
    columns, rows = _read_csv(path)
    if by is None:
        wanted, published = published_of(names, columns)
        if len(wanted) + len(published) < 2:
            raise InputError(
                f"{path}: which values are to be compared?",
                f"name two columns, or --metric and --by; columns: {', '.join(columns)}",
            )
        if metric is not None:
            raise InputError("--metric without --by", "name the column that says which group a row is of: --by model")
        _require(path, columns, wanted)
        metric, cells = (
            "",
            {name: [(row, name) for row in _filled(rows, name, anywhere=pair is not None)] for name in wanted},
        )
    else:
        if metric is None:
            raise InputError(f"--by {by} without --metric", f"which column holds the numbers? {', '.join(columns)}")
        _require(path, columns, [by])
        groups: dict[str, list[tuple[dict[str, str], str]]] = {}
        for row in rows:
            groups.setdefault(row[by], []).append((row, metric))
        wanted, published = published_of(names, groups)
        absent = [name for name in wanted if name not in groups]
        if absent:
            raise InputError(f"{path}: no row has {by} {absent[0]!r}", f"there are: {_few(sorted(groups))}")
        cells = {name: groups[name] for name in (wanted or groups)}
        if len(cells) > 1 and max(map(len, cells.values())) == 1 and pair is None:
            raise InputError(
                f"{path}: {by} has another value in each row: {len(cells)} groups of one run each",
                f"name the column that several runs share, such as the model; {MEANS_ALONE}; "
                f"columns: {', '.join(columns)}",
            )
    if len(cells) > MOST_GROUPS:
        raise InputError(f"{path}: {len(cells)} groups make {math.comb(len(cells), 2):,} pairs",
                         f"name up to {MOST_GROUPS} of them: {_few(list(cells))}")  # fmt: skip
    _require(path, columns, [*([metric] if metric else []), *([pair] if pair else [])])
    if len(cells) + len(published) < 2:
        raise InputError(f"{path}: one group, {by} {next(iter(cells))!r}", "a comparison needs two")
    return with_published(_of_cells({name: (path, rows) for name, rows in cells.items()}, metric, pair, by), published)


def tables_runs(paths: Sequence[Path], *, metric: str | None, pair: str | None) -> Runs:
    """A group from each of several CSV tables, under the table's name: its values of `metric`, paired by `pair`."""
    cells: dict[str, tuple[Path, list[tuple[dict[str, str], str]]]] = {}
    for path in paths:
        columns, rows = _read_csv(path)
        if metric is None:
            raise InputError("several tables without --metric", f"which column holds the numbers? {', '.join(columns)}")
        _require(path, columns, [metric, *([pair] if pair else [])])
        if any(path.samefile(other) for other, _ in cells.values()):
            raise InputError(
                f"{path} is named twice", "name two different tables, or two groups of this one with --by COLUMN"
            )
        cells[str(path)] = path, [(row, metric) for row in rows]
    return _of_cells(cells, metric or "", pair)


def _of_cells(
    cells: Mapping[str, tuple[Path, list[tuple[dict[str, str], str]]]],
    metric: str,
    pair: str | None,
    by: str | None = None,
) -> Runs:
    """The values of each group, in pairs where the column `pair` is named."""
    values = {name: [_number(path, row, column) for row, column in group] for name, (path, group) in cells.items()}
    seeds = {name: _seeds(group, by) for name, (_, group) in cells.items()}
    for name, (path, group) in cells.items():
        for row, _ in group:
            for seed in seeds[name]:
                if row[seed].lower() in SUMMARIES:
                    raise InputError(
                        f"{path}, line {row['']}: {seed} is {row[seed]!r}", "a row is one run: leave this out"
                    )
    if pair is None:
        return Runs(values, metric, notes=_repeated(cells, metric, seeds))
    keyed: dict[str, dict[str, float]] = {}
    for name, (path, group) in cells.items():
        keyed[name] = {}
        for (row, _), value in zip(group, values[name], strict=True):
            if (key := _key(row[pair])) in keyed[name]:
                apart = ", ".join(_differing([row for row, _ in group], metric, [pair]))
                raise InputError(
                    f"{path}: {name} has two rows with {pair} {row[pair]!r}",
                    "a pair has one run of each group"
                    + (f"; such rows differ in {apart}: keep those of one value" if apart else ""),
                )
            keyed[name][key] = value
    return paired_runs(keyed, metric, pair)


def unit_notes(runs: Runs) -> tuple[str, ...]:
    """A note where a group in [0, 1] has a mean about a hundred times below that of another: a share and percent?

    Raises InputError where that is certain: of a metric that is known for a share, the smaller values differ and are
    0.5 or more, and the ratio is near 100. A collapsed model in percent has one value, or a smaller one.

    >>> unit_notes(Runs({"a": [1.0, 1.0], "b": [76.0, 75.0]}, "acc"))
    ('a has a mean of 1, b one of 75.5: if that is a share and percent, give both in one unit',)
    >>> unit_notes(Runs({"a": [0.9], "b": [0.91]}, "acc"))
    ()
    """
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
        return (f"{means}: if that is a share and percent, give both in one unit",)
    return ()


def _key(text: str) -> str:
    """What pairs go by: a whole number, however it is written, or the text.

    >>> [_key(text) for text in ("7", "07", "7.0", "7.5", "seed_7")]
    ['7', '7', '7', '7.5', 'seed_7']
    """
    return str(int(float(text))) if re.fullmatch(r"\d{1,15}(\.0*)?", text) else text


def _differing(rows: Sequence[Mapping[str, str]], metric: str, seeds: Sequence[str]) -> list[str]:
    """The columns with few values in which rows of one seed differ, such as the data set or the epoch."""
    found = []
    for column in rows[0]:
        several = len({row[column] for row in rows}) <= len(rows) / 2
        if column not in ("", metric, *seeds) and several:
            by_seed: dict[tuple[str, ...], set[str]] = {}
            for row in rows:
                by_seed.setdefault(_keys(row, seeds), set()).add(row[column])
            if max(map(len, by_seed.values())) > 1:
                found.append(column)
    return found


def _keys(row: Mapping[str, str], seeds: Sequence[str]) -> tuple[str, ...]:
    return tuple(_key(row[seed]) for seed in seeds)


def _seeds(group: Sequence[tuple[Mapping[str, str], str]], by: str | None) -> list[str]:
    """The column `seed`, else all that end in it, which together make a run's seed; never what is compared.

    >>> _seeds([({"seed": "1", "data_seed": "7"}, "f1")], None), _seeds([({"seed": "1"}, "f1")], "seed")
    (['seed'], [])
    """
    compared = {by, *(column for _, column in group)}
    seeds = [key for row, _ in group[:1] for key in row if key.lower().endswith("seed") and key not in compared]
    return [key for key in seeds if key.lower() == "seed"] or seeds


def _repeated(
    cells: Mapping[str, tuple[Path, list[tuple[dict[str, str], str]]]], metric: str, seeds: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """A note where a group has several rows of one seed: those are not independent runs."""
    for name, (_, group) in cells.items():
        rows, columns = [row for row, _ in group], seeds[name]
        if not columns or len(keys := {_keys(row, columns) for row in rows}) == len(rows):
            continue
        apart = _differing(rows, metric, columns)
        return (
            f"{name} has {len(rows)} rows of {plural(len(keys), 'value')} of {' and '.join(columns)}"
            f"{', which differ in ' + ', '.join(apart) if apart else ''}: rows that share a seed are not independent "
            "runs, and the interval is not to be trusted; keep one row of each seed, or their mean",
        )
    return ()


def _filled(rows: Sequence[dict[str, str]], column: str, *, anywhere: bool) -> list[dict[str, str]]:
    """The rows in which a column of a wide table has a value: without the empty ones at its end, or `anywhere`."""
    filled = [place for place, row in enumerate(rows) if row[column].strip()]
    return [rows[place] for place in filled] if anywhere else list(rows[: filled[-1] + 1 if filled else 0])


def _few(names: Sequence[str]) -> str:
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
                f"{a} has {_few(list(keyed[a]))}; {b} has {_few(list(keyed[b]))}: name what belongs together alike, "
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


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a CSV table")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, restval="")
            columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            if columns:
                columns[0] = re.sub("^# +", "", comment := columns[0])  # numpy.savetxt begins its header so
            rows = [{**{key: value.strip() if key else value for key, value in row.items()},
                     "": str(reader.line_num)} for row in reader]  # fmt: skip
            twice = [name for name, count in Counter(columns).items() if count > 1 and name]
            if twice:
                raise InputError(f"{path}: two columns are called {twice[0]!r}", "give each column a name of its own")
            longer = next((row for row in rows if None in row), None)
            if longer and len(columns) == 1 and comment.startswith("#"):
                raise InputError(f"{path}: its first line is a comment", "make the first line the column names")
            if longer and not (len(columns) == 1 and ";" in columns[0]):
                raise InputError(
                    f"{path}, line {longer['']}: more cells than the {len(columns)} columns of the first line",
                    "write decimals with a point, and quote a text that holds a comma",
                )
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no CSV table in UTF-8 ({error})", "save it as CSV in UTF-8") from error
    parted = next((mark for mark in (";", "\t") if len(columns) == 1 and mark in columns[0]), None)
    if parted:
        decimal = ", decimal=','" if parted == ";" else ""
        raise InputError(
            f"{path}: its columns are parted by {'semicolons' if parted == ';' else 'tabs'}",
            "save it with commas between the columns and points in the decimals; by pandas: "
            f"pd.read_csv({path.name!r}, sep={parted!r}{decimal}).to_csv('commas.csv', index=False)",
        )
    if not rows:
        raise InputError(f"{path}: no rows", "the first line names the columns, one row a run follows")
    return columns, rows


def _require(path: Path, columns: Sequence[str], wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in columns:
            raise InputError(f"{path}: no column {name!r}", f"columns: {', '.join(columns)}")


def _number(path: Path, row: Mapping[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}, line {row['']}: {column} is {row[column]!r}, no number", _instead_of(row[column]))
    return value


def _instead_of(cell: str) -> str:
    """What to do about a cell that is no number.

    >>> _instead_of("90.35 %"), _instead_of("0,9035")
    ('leave the percent sign out', 'write decimals with a point, and thousands without a mark')
    """
    if re.fullmatch(r"[-+]?[\d.,]+ *%", cell):
        return "leave the percent sign out"
    if re.fullmatch(r"[-+]?[\d.]*,[\d.,]+", cell):
        return "write decimals with a point, and thousands without a mark"
    if "±" in cell or "+-" in cell or "+/-" in cell:
        return f"each row is one run, not their mean; {MEANS_ALONE}"
    return "a run that failed is a result, too: give it its number, or leave its row out and say so"


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
    metric = metric or study.main_metric(names[0].split("/")[0])
    if metric not in (*study.metrics, "loss"):
        raise InputError(f"--metric {metric!r}", f"this study has {', '.join(study.metrics)} and loss")
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
    if labels and all(np.array_equal(labels[0], other) for other in labels):
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
