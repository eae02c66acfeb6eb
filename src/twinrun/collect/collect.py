"""Gather exactly the runs of the grid into a few files: enough to rebuild every number and figure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from twinrun.collect.artifacts import read_features, read_predictions, read_weights
from twinrun.collect.cells import write_csv
from twinrun.collect.checks import Found, read_manifests, read_runs, read_unfinished
from twinrun.collect.load import DIGESTS, write_digests
from twinrun.collect.pictures import write_pictures
from twinrun.collect.schema import COLLECTED_SCHEMA
from twinrun.collect.study_arrays import written_rows
from twinrun.stats.samples import Progress, silent
from twinrun.study.errors import MismatchError, plural
from twinrun.study.files import sha256_file, write_json
from twinrun.study.folders import replaced_folder
from twinrun.study.layout import CURVE_COLUMNS, Layout
from twinrun.study.params import Params

LAYER_RUNS = 16  # of a cell and arm: the first complete replicates, whose layers and features are kept (120 pairs)
NO_LABEL = -1  # in labels.npy, where every run of the task diverged and none left its labels


@dataclass(frozen=True)
class CollectSummary:
    """What `collect` found; `folder` is None when it was only to check."""

    runs: int
    diverged: tuple[str, ...]
    resumed: tuple[str, ...]
    folder: Path | None

    @property
    def sentence(self) -> str:
        """The summary for a person."""
        text = f"{plural(self.runs, 'run')}, all there and of one kind"
        if self.diverged:
            text += f"; {len(self.diverged)} diverged: {', '.join(self.diverged)}"
        if self.resumed:
            text += f"; {len(self.resumed)} were resumed, so their seconds are not used"
        return text


_TABLES = ("results.csv", "curves.csv", "measured.csv", "unfinished.csv")
COLLECTED = ("study.json", DIGESTS, *_TABLES, "*/labels.npy", "*/heads.npy")  # what collected/ consists of


def collect(
    params: Params, layout: Layout, *, code_digest: str, check_only: bool = False, progress: Progress = silent
) -> CollectSummary:
    """Check every run of the grid and write `layout.collected`, the whole of it or nothing.

    Raises IncompleteError naming the missing runs, MismatchError naming the runs that do not belong to this study
    (edited, of other params, code or data, on mixed devices). A diverged run belongs to it and is reported as such.
    """
    manifests = read_manifests(params, layout)
    items = read_runs(params, layout, manifests, code_digest, progress)
    if not check_only:
        with replaced_folder(layout.collected, COLLECTED, mark=COLLECTED[0]) as folder:
            tasks = {
                task: _write_task(folder / task, params, layout, items, manifests[task], task) for task in manifests
            }
            write_csv(folder / "results.csv", pd.DataFrame([_result(item) for item in items]))
            write_csv(folder / "curves.csv", _curves(items))
            write_csv(folder / "measured.csv", _measured(items))
            write_csv(
                folder / "unfinished.csv", pd.DataFrame(read_unfinished(layout), columns=["id", "task", "attempts"])
            )
            write_json(folder / "study.json", _study(params, items, tasks, code_digest))
            write_digests(folder)
    return CollectSummary(
        runs=len(items),
        diverged=tuple(item.run.id for item in items if not item.complete),
        resumed=tuple(item.run.id for item in items if item.measured.resumed),
        folder=None if check_only else layout.collected,
    )


def _study(params: Params, items: list[Found], tasks: dict[str, dict[str, Any]], code_digest: str) -> dict[str, Any]:
    return {
        "schema": COLLECTED_SCHEMA,
        "study": params.study,
        "grid": params.grid.model_dump(mode="json"),
        "execution": params.execution.model_dump(mode="json"),
        "analysis": params.analysis.model_dump(mode="json"),
        "params": {task: params.tasks[task].model_dump(mode="json") for task in params.grid.tasks},
        "tasks": tasks,
        "grid_digest": params.grid_digest,
        "code_digest": code_digest,
        "runs": [item.run.id for item in items],
        "diverged": {item.run.id: item.record.note for item in items if not item.complete},
        "parameter_counts": {task: _parameter_count(items, task) for task in params.grid.tasks},
        "flags": {item.run.arm: item.record.flags for item in reversed(items)},
    }


def _parameter_count(items: list[Found], task: str) -> int:
    return next(item.record.parameter_count for item in items if item.run.task == task)


def _write_task(
    folder: Path, params: Params, layout: Layout, items: list[Found], manifest: dict[str, Any], task: str
) -> dict[str, Any]:
    """Write the arrays of one task run by run, so that memory holds one run at a time; returns what describes them."""
    folder.mkdir(parents=True)
    runs = [item for item in items if item.run.task == task]
    model = next((item for item in runs if item.complete), None)
    epochs = model.head_epochs if model else ()
    shapes = model.head_shapes if model else {}
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    # Either may know it: what is procedural must never be shown as photographs.
    procedural = params.tasks[task].data.procedural or bool(manifest.get("procedural", False))
    n_test, n_classes = manifest["n_test"], len(manifest["classes"])
    labels = np.full(n_test, NO_LABEL, np.int64)
    with (
        written_rows(folder / "probabilities.npy", (len(runs), n_test, n_classes)) as probabilities,
        written_rows(folder / "heads.npy", (len(runs), len(epochs), size)) as heads,
    ):
        for item in runs:
            rows: Any = np.nan
            if item.complete:
                rows, labels = read_predictions(layout.run(item.run))
            probabilities.add(rows)
            reached = read_weights(layout.run(item.run))
            vectors = np.full((len(epochs), size), np.nan, np.float32)
            for epoch, vector in zip(reached.epochs, reached.heads, strict=True):
                if epoch in epochs and vector.size == size:
                    vectors[epochs.index(epoch)] = vector
            heads.add(vectors)
    np.save(folder / "labels.npy", labels)
    _write_ids(folder, layout.prepared(task) / "ids.csv", n_test, manifest.get("files"))
    shown = params.tasks[task].show_images
    first, prepared = int(manifest.get("n_train") or 0), layout.prepared(task)
    mapped = np.load(folder / "probabilities.npy", mmap_mode="r") if shown else None
    flipping = None if mapped is None else write_pictures(folder, prepared, first, mapped, _nd_rows(runs))
    return {
        "classes": manifest["classes"],
        "n_train": manifest.get("n_train"),
        "n_test": n_test,
        "counts": manifest.get("counts"),
        "procedural": procedural,
        "data_digest": manifest["digest"],
        "remarks": manifest["remarks"],
        "flipping": flipping,
        "head_epochs": list(epochs),
        "head_shapes": shapes,
        "head_size": size,
        **_write_layers(folder, layout, runs),
    }


def _write_layers(folder: Path, layout: Layout, runs: list[Found]) -> dict[str, Any]:
    """Write samples of the layers, and features, of some runs of a task; returns what describes the two arrays.

    Pairs of a few replicates say what there is to say, and the arrays of all would take gigabytes.
    """
    kept, counts = [], Counter[tuple[str, str]]()
    for row, item in enumerate(runs):
        counts[item.run.cell, item.run.arm] += item.complete
        if item.complete and counts[item.run.cell, item.run.arm] <= LAYER_RUNS:
            kept.append(row)
    if not kept:
        return {"layers": [], "layer_rows": [], "features_shape": None}
    model = read_weights(layout.run(runs[kept[0]].run))
    shape = runs[kept[0]].features_shape
    folders = [layout.run(runs[row].run) for row in kept]
    if model.samples.size:
        with written_rows(folder / "layers.npy", (len(kept), *model.samples.shape)) as layers:
            for place in folders:
                layers.add(read_weights(place).samples)
    if shape:
        with written_rows(folder / "features.npy", (len(kept), *shape)) as features:
            for place in folders:
                features.add(read_features(place))
    return {
        # A list, for JSON's keys are sorted and the network's order is wanted.
        "layers": [{"name": name, **layer} for name, layer in model.layers.items()] if model.samples.size else [],
        "layer_rows": kept,
        "features_shape": shape,
    }


def _nd_rows(runs: list[Found]) -> list[list[int]]:
    """For each cell, the rows of its complete nd runs among `runs`."""
    cells: dict[str, list[int]] = {}
    for row, item in enumerate(runs):
        if item.run.arm == "nd" and item.complete:
            cells.setdefault(item.run.cell, []).append(row)
    return list(cells.values())


def _write_ids(folder: Path, ids: Path, n_test: int, digests: object) -> None:
    """The ids of the test images, in the order of the predictions, where the prepared task has them."""
    again = "prepare the task again"
    noted = digests.get(ids.name) if isinstance(digests, dict) else None
    if noted is None and not ids.is_file():
        return
    if noted is not None and (not ids.is_file() or sha256_file(ids) != noted):
        raise MismatchError(f"{ids}: missing, or not the file that was prepared", again)
    rows = pd.read_csv(ids, dtype=str, keep_default_na=False)
    if not {"id", "split"} <= set(rows.columns) or int((rows["split"] == "test").sum()) != n_test:
        raise MismatchError(f"{ids}: not the ids of {n_test} test images", again)
    write_csv(folder / "ids.csv", rows.loc[rows["split"] == "test", ["id"]])


def _result(item: Found) -> dict[str, Any]:
    record, metrics = item.record, item.record.metrics
    return {
        "id": item.run.id,
        "task": item.run.task,
        "optimizer": item.run.optimizer,
        "seed": item.run.seed,
        "arm": item.run.arm,
        "replicate": item.run.replicate,
        "label": item.run.label,
        "status": record.status,
        "device": record.device,
        "noise": record.noise.kind,
        "entropy": record.noise.entropy,
        "epochs": len(record.fingerprints),
        "accuracy": metrics.accuracy if metrics else None,
        "f1": metrics.f1 if metrics else None,
        "auc": metrics.auc if metrics else None,
        "loss": metrics.loss if metrics else None,
        "initial_fingerprint": record.initial_fingerprint,
        "fingerprint": record.final_fingerprint,
        "params_digest": record.params_digest,
    }


def _curves(items: list[Found]) -> pd.DataFrame:
    # Text, not numbers: what the run wrote is what is collected, digit by digit.
    rows = [[item.run.id, *row] for item in items for row in item.curve]
    return pd.DataFrame(rows, columns=["id", *CURVE_COLUMNS], dtype=str)


def _measured(items: list[Found]) -> pd.DataFrame:
    rows = []
    for item in items:
        body = item.measured.model_dump(exclude={"schema_version", "record_sha256", "host", "versions", "environment"})
        row = {"id": body.pop("run"), **body}
        for block in ("host", "versions", "environment"):
            row |= {f"{block}.{key}": value for key, value in sorted(getattr(item.measured, block).items())}
        rows.append(row)
    fixed = [column for column in rows[0] if "." not in column]
    flattened = sorted({column for row in rows for column in row} - set(fixed))
    return pd.DataFrame(rows, columns=[*fixed, *flattened], dtype=object)
