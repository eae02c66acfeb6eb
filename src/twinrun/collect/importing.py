"""Results from elsewhere become a collected study: runs told apart by their factors, every example in every run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twinrun.collect.cells import write_csv
from twinrun.collect.collect import COLLECTED
from twinrun.collect.gathered import Gathered, Key, checked_probabilities, classes_of, keys_of, require_each_once
from twinrun.collect.load import write_digests
from twinrun.collect.schema import COLLECTED_SCHEMA, METRICS, read_twins
from twinrun.collect.study_arrays import written_rows
from twinrun.collect.tables import FORMATS, Columns, Piece, columns_of, npz_pieces, pieces
from twinrun.stats.classification import classification_metrics
from twinrun.stats.samples import Progress, silent
from twinrun.study.errors import InputError, plural
from twinrun.study.files import read_json, sha256_file, write_json
from twinrun.study.folders import replaced_folder
from twinrun.study.grid import ARMS

ANY = "any"  # the seed of runs that count together whatever theirs was
SHARES = "metrics are shares in [0, 1]; 91.2 % is 0.912"


@dataclass(frozen=True)
class Source:
    """A file to import, and what is known of its runs from elsewhere."""

    path: Path
    fixed: Mapping[str, str] = field(default_factory=dict)


def twins_sources(folder: Path, pattern: str | None) -> list[Source]:
    """The file of each twin in a folder of `twinrun twins` that `pattern` names; InputError for none, or several."""
    if not (folder / "twins.json").exists():
        raise InputError(
            f"{folder}: a folder, but not one that `twinrun twins` made", f"name tables ({FORMATS}) or such folders"
        )
    twins = read_twins(folder)
    if pattern is None:
        raise InputError(f"{folder}: which file has the predictions of a twin?", "such as --predictions out/test.csv")
    if not twins.twins:
        raise InputError(f"{folder}: it holds no twins", "run `twinrun twins` again")
    sources = []
    for twin in twins.twins:
        files = [path for path in sorted((folder / twin.folder).glob(pattern)) if path.is_file()]
        if len(files) != 1:
            said = f"{len(files)} files" if files else "no file"
            raise InputError(
                f"{folder / twin.folder}: {said} called {pattern!r}", "each twin has one file of predictions"
            )
        fixed = {"model": folder.resolve().name, "seed": str(twin.seed), "arm": twins.arm, "run": f"twin {twin.number}"}
        sources.append(Source(files[0], fixed))
    return sources


@dataclass(frozen=True)
class ImportSummary:
    """What `import_results` found and wrote."""

    study: str
    runs: int
    sets: tuple[str, ...]  # TASK/MODEL
    arms: tuple[str, ...]
    examples: Mapping[str, int]  # by task; empty where only metrics were imported
    metrics: tuple[str, ...]
    positive: tuple[str, ...]  # class of which F1 and AUC are, of tasks with two
    unread: tuple[str, ...]
    inferred: bool  # whether the arm is what seeds and runs say, for the table has no column for it
    folder: Path
    replaced: tuple[str, ...] = ()  # the files of the import that was there

    @property
    def sentences(self) -> list[str]:
        """The summary for a person."""
        images = ", ".join(f"{n:,} examples of {task}" for task, n in self.examples.items()) or "metrics alone"
        lines = [f"{plural(self.runs, 'run')} of {', '.join(self.sets)}: {images}; {', '.join(self.metrics)}"]
        if self.inferred and self.arms == ("nd",):
            lines.append("arm nd: several runs share a seed, and are taken for identical runs of it")
        elif self.inferred:
            lines.append("arm all: no two runs of a model share a seed, so everything is taken to be free in them")
        lines += [f"F1 and AUC are of the class {name}, the second" for name in self.positive]
        if self.unread:
            names = ", ".join(self.unread)
            lines.append(f"not read: {names}. What tells runs apart is named: --column model=model,{self.unread[0]}")
        if self.replaced:
            more = ", ..." if len(self.replaced) > 3 else ""
            lines.append(f"replaced the import of {', '.join(self.replaced[:3])}{more} that was there")
        return lines


def import_results(
    sources: Sequence[Source], folder: Path, *, study: str, named: Mapping[str, tuple[str, ...]] | None = None,
    metric: str | None = None, classes: Sequence[str] = (), progress: Progress = silent,
) -> ImportSummary:  # fmt: skip
    """Write the results of `sources` as a collected study into `folder`, the whole of it or nothing.

    `named` says which columns play which role, `classes` the order of the classes that are predicted. Raises InputError
    naming file, line, run and example of what is wrong.
    """
    former = _former_import(folder, {sha256_file(source.path) for source in sources if source.path.is_file()})
    tasks: dict[str, Gathered] = {}
    rows: list[tuple[Key, dict[str, float]]] = []
    read: list[Columns] = []
    for number, source in enumerate(sources):
        progress(number, len(sources))
        read.append(_read(source, dict(named or {}), metric, tasks, rows, study))
        if {bool(part.numbers) for part in read} == {True, False} or len({part.probabilities for part in read}) > 1:
            raise InputError(f"{source.path}: other kinds of columns than {sources[0].path}", "import them apart")
    keys = [key for gathered in tasks.values() for key in gathered.runs] or [key for key, _ in rows]
    if not keys:
        raise InputError(f"{sources[0].path}: no rows", "the first line names the columns")
    entries = _entries(keys)
    with replaced_folder(folder, COLLECTED, mark=COLLECTED[0]) as building:
        described: dict[str, Any] = {}
        computed: dict[int, dict[str, float | None]] = {}
        for task, gathered in tasks.items():
            order = [entry for entry in entries if entry["task"] == task]
            described[task] = _write_task(building / task, gathered, order, keys, read[0], classes, computed)
        for entry in entries if rows else ():
            computed[entry["place"]] = dict(rows[entry["place"]][1])
        known = (name for name in METRICS if any(values.get(name) is not None for values in computed.values()))
        metrics = list(read[0].numbers) or list(known)
        _write(building, study, entries, computed, described, read, metrics, sources)
    kinds = [entry["arm"] for entry in entries]
    return ImportSummary(
        study=study, runs=len(entries), arms=tuple(dict.fromkeys(kinds)),
        examples={task: described[task]["n_test"] for task in described},
        sets=tuple(dict.fromkeys(f"{entry['task']}/{entry['optimizer']}" for entry in entries)),
        metrics=tuple(metrics), positive=tuple(d["classes"][1] for d in described.values() if len(d["classes"]) == 2),
        unread=tuple(dict.fromkeys(name for part in read for name in part.unread)),
        inferred=not any(key.arm for key in keys), folder=folder,
        replaced=former,
    )  # fmt: skip


def _former_import(folder: Path, digests: set[str]) -> tuple[str, ...]:
    """The files of an import of others, which will be replaced; InputError for anything else that is there."""
    if (folder.parent / "params.yaml").exists():
        raise InputError(
            f"{folder.parent.resolve()} is the folder of a study of its own", "name another one with --out"
        )
    if not (folder / "study.json").is_file():
        return ()
    info = read_json(folder / "study.json")
    if not (isinstance(info, dict) and info.get("imported")):
        raise InputError(f"{folder}: holds a study that was collected from records", "name another folder with --out")
    try:
        former = {str(file["sha256"]): str(file["name"]) for file in info["imported"]["files"]}
    except (TypeError, LookupError, AttributeError):
        return ()  # damaged
    return () if former.keys() == digests else tuple(dict.fromkeys(former.values()))


def _read(
    source: Source, named: dict[str, tuple[str, ...]], metric: str | None, tasks: dict[str, Gathered],
    rows: list[tuple[Key, dict[str, float]]], study: str,
) -> Columns:  # fmt: skip
    path, fixed = source.path, {"task": _file_name(study), "model": "model"} | dict(source.fixed)
    if path.suffix == ".npz":
        columns, _, parts = npz_pieces(path, named)
    elif path.suffix in (".csv", ".parquet") or path.name.endswith(".csv.gz"):
        columns = columns_of(path, named, metric)
        parts = pieces(path, columns)
    else:
        raise InputError(f"{path}: not a table", f"files are {FORMATS}, or folders of `twinrun twins`")
    if not columns.numbers and "example" not in columns.names:
        if not source.fixed:
            raise InputError(
                f"{path}: no column example", "which row of one run is which of another? --column example=NAME"
            )
        columns = Columns(dict(columns.names) | {"example": ("",)}, columns.probabilities, (), columns.unread)
    lines: dict[tuple[Any, ...], str] = {}
    seen = 0
    for part in parts:
        piece = part
        if "" in columns.text:  # the file of one run: its rows are in the order of the test set
            places = [str(place) for place in range(seen, seen + len(part.numbers))]
            piece = Piece(dict(part.text) | {"": pd.Categorical(places, places)}, part.numbers, part.place, part.line)
            seen += len(places)
        if columns.probabilities:
            piece = checked_probabilities(piece)
        for key, members in keys_of(piece, columns, fixed):
            if columns.numbers:
                for row in members:
                    rows.append((key, _metrics(piece, int(row), columns, key, lines)))
            else:
                tasks.setdefault(key.task, Gathered()).add(piece, members, key, columns)
    return columns


def _metrics(piece: Piece, row: int, columns: Columns, key: Key, lines: dict[tuple[Any, ...], str]) -> dict[str, float]:
    values = dict(zip(columns.numbers, piece.numbers[row].tolist(), strict=True))
    for name, value in values.items():
        if name != "loss" and not 0 <= value <= 1:
            raise InputError(f"{piece.at(row)}: {name} is {value:g}", SHARES)
    # Without a name two equal rows may be one run twice, or two that are alike.
    same = (key,) if key.run else (key, *values.values())
    if same in lines:
        what = f"{key} again, after {lines[same]}" if key.run else f"the same as {lines[same]}"
        raise InputError(f"{piece.at(row)}: {what}", "two runs that are alike are told apart by names in a column run")
    lines[same] = piece.at(row).rpartition(", ")[2]
    return values


def _file_name(name: str) -> str:
    """A name that a folder can have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "task"


def _entries(keys: Sequence[Key]) -> list[dict[str, Any]]:
    """A row of results.csv for each run, in the order of the study: its cell, arm and number among its fellows."""
    for key in keys:
        if _file_name(key.task) != key.task:
            raise InputError(
                f"{key}: no task can be called {key.task!r}", "letters, digits, - and _: it names a folder"
            )
        if key.arm and key.arm not in ARMS:
            hint = f"arms: {'; '.join(f'{arm}, {words}' for arm, words in ARMS.items())}"
            raise InputError(f"{key}: the arm {key.arm!r} is not known", hint)
    seeds = Counter((key.task, key.model, key.arm, key.seed) for key in keys)
    # Where no two runs share a seed, the seed is one more thing that is free, and the runs count together.
    shared = {arm for (_, _, arm, seed), n in seeds.items() if n > 1 and seed}
    cells = []
    for place, key in enumerate(keys):
        free = key.arm in ("", "all") and key.arm not in shared
        arm = key.arm or ("all" if free else "nd")
        cells.append((key.task, key.model, ANY if free or not key.seed else key.seed, arm, place))
    tasks, models = ({v: n for n, v in enumerate(dict.fromkeys(str(cell[i]) for cell in cells))} for i in (0, 1))
    arms = list(ARMS)

    def rank(cell: tuple[str, str, str, str, int]) -> tuple[object, ...]:
        task, model, seed, arm, place = cell
        number = (0, int(seed), "") if seed.isdecimal() else (1, 0, seed)
        return tasks[task], models[model], number, arms.index(arm), place

    cells.sort(key=rank)
    counts: Counter[tuple[str, ...]] = Counter()
    entries = []
    for task, model, seed, arm, place in cells:
        counts[task, model, seed, arm] += 1
        number = counts[task, model, seed, arm]
        label, key = f"{arm}_{number}", keys[place]
        entries.append({
            "id": f"{task}/{model}/{seed}/{label}", "task": task, "optimizer": model,
            "seed": int(seed) if seed.isdecimal() else seed, "arm": arm, "replicate": number, "label": label,
            "run": key.run, "run_seed": key.seed, "place": place,
        })  # fmt: skip
    return entries


def _write_task(
    folder: Path, gathered: Gathered, entries: Sequence[dict[str, Any]], keys: Sequence[Key], columns: Columns,
    wanted: Sequence[str], computed: dict[int, dict[str, float | None]],
) -> dict[str, Any]:  # fmt: skip
    n, soft = len(gathered.examples), bool(columns.probabilities)
    if n < 2:
        said = f"{len(entries):,} run{'s' if len(entries) > 1 else ''} of one example"
        raise InputError(said, "a test set has more: do run and example name the right columns?")
    classes, order = classes_of(gathered, columns, wanted)
    labels = order[gathered.labels]
    if (labels < 0).any():
        name = list(gathered.names.codes)[int(gathered.labels[np.flatnonzero(labels < 0)[0]])]
        raise InputError(
            f"the label {name!r} is none of the classes {', '.join(classes)}",
            "name the columns p_<class> as the labels are",
        )
    folder.mkdir(parents=True)
    k = len(classes)
    shape, kind = (
        ((len(entries), n, k), np.dtype(np.float32)) if soft else ((len(entries), n), np.min_scalar_type(k - 1))
    )
    with written_rows(folder / ("probabilities.npy" if soft else "predictions.npy"), shape, kind) as writer:
        for entry in entries:
            key = keys[entry["place"]]
            parts = gathered.runs.pop(key)
            places = np.concatenate([codes for codes, _ in parts])
            require_each_once(key, places, gathered.examples)
            row: NDArray[Any] = np.empty(shape[1:], np.float32 if soft else np.int64)
            row[places] = np.concatenate([values for _, values in parts])
            row = row if soft else order[row]
            predicted = row.argmax(axis=1) if soft else row
            writer.add(row)
            computed[entry["place"]] = classification_metrics(labels, predicted, k, row if soft else None)._asdict()
    np.save(folder / "labels.npy", labels)
    write_csv(folder / "ids.csv", pd.DataFrame({"id": list(gathered.examples.codes)}))
    return {"classes": classes, "n_test": n}


def _write(
    folder: Path, study: str, entries: Sequence[dict[str, Any]], computed: Mapping[int, Mapping[str, float | None]],
    described: Mapping[str, dict[str, Any]], read: Sequence[Columns], metrics: list[str], sources: Sequence[Source],
) -> None:  # fmt: skip
    tasks = list(dict.fromkeys(entry["task"] for entry in entries))
    columns = {role: list(names) for part in reversed(read) for role, names in part.names.items() if names != ("",)}
    model = read[0].names.get("model", ("model",))
    recorded = ["predictions", "probabilities"] if read[0].probabilities else [] if read[0].numbers else ["predictions"]
    info = {
        "schema": COLLECTED_SCHEMA,
        "study": study,
        "imported": {
            "files": [{"name": source.path.name, "sha256": sha256_file(source.path)} for source in sources],
            "columns": columns | ({"probabilities": list(read[0].probabilities)} if read[0].probabilities else {}),
            "unread": list(dict.fromkeys(name for part in read for name in part.unread)),
            "recorded": recorded,
            "metrics": [name for name in metrics if name != "loss"] or metrics,
            "words": {"optimizer": model[0] if len(model) == 1 else "setting"},
        },
        "grid": {
            name: list(dict.fromkeys(entry[key] for entry in sorted(entries, key=_SORTED[name])))
            for name, key in (("tasks", "task"), ("optimizers", "optimizer"), ("seeds", "seed"), ("runs", "label"))
        },
        "params": {task: {"title": task, "recipe": {"metric": metrics[0]}} for task in tasks},
        "tasks": {task: described.get(task, {"classes": [], "n_test": None}) for task in tasks},
        "runs": [entry["id"] for entry in entries],
        "diverged": {},
    }
    write_json(folder / "study.json", info)
    rows = [{**entry, "status": "complete", **computed[entry["place"]]} for entry in entries]
    write_csv(folder / "results.csv", pd.DataFrame(rows).drop(columns="place"))
    write_digests(folder)


_SORTED: dict[str, Any] = {
    "tasks": lambda entry: 0,
    "optimizers": lambda entry: 0,
    "seeds": lambda entry: (isinstance(entry["seed"], str), entry["seed"] if isinstance(entry["seed"], int) else 0),
    "runs": lambda entry: (list(ARMS).index(entry["arm"]), entry["replicate"]),
}
