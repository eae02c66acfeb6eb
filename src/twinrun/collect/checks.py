"""Whether the runs of a study are all there, whole, and of one kind: every offending run is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinrun.collect.artifacts import read_curve, read_features, read_predictions, read_weights
from twinrun.stats.samples import Progress, silent
from twinrun.study.documents import read_document
from twinrun.study.errors import IncompleteError, InputError, MismatchError, ResourceError, TwinrunError
from twinrun.study.files import digest, sha256_bytes
from twinrun.study.flags import INSTRUCTION_SET
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import WITHOUT_MODEL, AttemptNote, Expected, Measured, Record, agreed, read_manifest

SHOWN = 20  # offending runs named in one error


@dataclass(frozen=True)
class Found:
    """One run that was read and is what its record says, without its large arrays."""

    run: Run
    record: Record
    measured: Measured
    curve: list[list[str]]
    classes: int
    examples: int
    accuracy: float | None  # of the predictions; None where a diverged run has none
    labels_digest: str
    head_epochs: tuple[int, ...]
    head_shapes: dict[str, list[int]]
    layers_digest: str  # of the other layers' names and shapes
    features_shape: tuple[int, ...] | None  # None: not recorded

    @property
    def complete(self) -> bool:
        """Whether the run was trained to its end."""
        return self.record.status == "complete"


def read_manifests(params: Params, layout: Layout) -> dict[str, dict[str, Any]]:
    """The manifest of every task of the grid; IncompleteError names the tasks that are not prepared."""
    paths = {task: layout.prepared(task) / "manifest.json" for task in params.grid.tasks}
    absent = [task for task, path in paths.items() if not path.is_file()]
    if absent:
        raise IncompleteError(f"not prepared yet: {', '.join(absent)}", "run `twinrun prepare`, or `make study`")
    manifests = {task: read_manifest(path).model_dump() for task, path in paths.items()}
    for task, manifest in manifests.items():
        if manifest["params_digest"] != params.data_params_digest(task):
            again = f"run `twinrun prepare {task}` again"
            raise MismatchError(f"{paths[task]}: prepared for other params of tasks.{task}.data", again)
    return manifests


def read_runs(
    params: Params, layout: Layout, manifests: dict[str, dict[str, Any]], code_digest: str, progress: Progress = silent
) -> list[Found]:
    """Every run of the grid, in its order, read and checked.

    Raises MismatchError (naming what is wrong with which run) before IncompleteError (naming what is missing).
    """
    runs = params.runs  # made anew by each question
    items: list[Found] = []
    missing: list[str] = []
    wrong: list[tuple[str, str]] = []
    for place, run in enumerate(runs):
        progress(place, len(runs))
        expected = params.expected(run, manifests[run.task]["digest"], code_digest)
        try:
            item, faults = read_run(run, layout.run(run), expected, manifests[run.task])
        except ResourceError:
            raise
        except (MismatchError, InputError) as error:
            wrong.append((run.id, error.message))
            continue
        if item is None:
            missing.append(run.id)
            continue
        wrong.extend((run.id, fault) for fault in faults)
        if not faults:
            items.append(item)
    progress(len(runs), len(runs))
    wrong.extend(_mixed(items))
    if wrong:
        also = f"\n(and {len(missing)} runs are missing)" if missing else ""
        hint = "remove their folders and run `twinrun sweep`, or go back to the params and code they were made with"
        if {text for _, text in wrong} == {WITHOUT_MODEL}:
            hint = "`twinrun sweep` trains them again, to the same bits where they are deterministic, and keeps it"
        title = f"{len({run_id for run_id, _ in wrong})} of {len(runs)} runs do not fit this study"
        raise MismatchError(_listed(title, wrong) + also, hint)
    if missing:
        title = f"{len(missing)} of {len(runs)} runs are missing"
        raise IncompleteError(_listed(title, [(run_id, "") for run_id in missing]), "train them with `twinrun sweep`")
    return items


def read_unfinished(layout: Layout) -> list[tuple[str, str, int]]:
    """Run id, task and number of the attempts in work/ that have left no record; nobody measured how long they took."""
    rows = []
    for path in layout.unfinished():
        try:
            noted = read_document(path, AttemptNote, "the note of an attempt", "").number
        except ResourceError:
            raise
        except TwinrunError:
            noted = 1  # damaged, but begun
        task, optimizer, seed, label = path.parts[-5:-1]
        rows.append((f"{task}/{optimizer}/{seed}/{label}", task, noted))
    return rows


def _listed(title: str, items: list[tuple[str, str]]) -> str:
    lines = [f"  {run_id}: {text}" if text else f"  {run_id}" for run_id, text in items[:SHOWN]]
    if len(items) > SHOWN:
        lines.append(f"  and {len(items) - SHOWN} more")
    return "\n".join([f"{title}:", *lines])


def read_run(
    run: Run, folder: Path, expected: Expected, manifest: dict[str, Any] | None
) -> tuple[Found | None, list[str]]:
    """What is in the folder of a run, and what is wrong with it; None where it has no record.

    The check of all numbers that leave a record, for `collect` as for exports. It is `agreed`, and holds the metrics
    against the predictions, these against the prepared data and each file against what it is to contain. What decides
    whether a run is to be trained needs no more than `agreed`: the seal and the digests find every edit, and reading
    the arrays would make it several times as slow. Raises what `agreed` raises.
    """
    there = agreed(folder, expected)
    if there is None:
        return None, []
    record, measured, faults = there
    probabilities, labels = read_predictions(folder)
    weights = read_weights(folder)
    features = read_features(folder)
    item = Found(
        run=run,
        record=record,
        measured=measured,
        curve=read_curve(folder),
        classes=probabilities.shape[1],
        examples=len(labels),
        accuracy=int((probabilities.argmax(axis=1) == labels).sum()) / len(labels) if len(labels) else None,
        labels_digest=labels_digest(labels),
        head_epochs=weights.epochs,
        head_shapes=weights.head_shapes,
        layers_digest=digest(list(weights.layers.items())),
        features_shape=None if features is None else features.shape,
    )
    return item, [*faults.values(), *(_faults(item, manifest, expected.epochs) if manifest else ())]


def labels_digest(labels: NDArray[np.int64]) -> str:
    """SHA-256 of the labels, which must be the same in every run of a task."""
    return sha256_bytes(np.ascontiguousarray(labels).tobytes())


def _faults(item: Found, manifest: dict[str, Any], epochs: int) -> list[str]:
    """In what the files of a complete run are not what its record or the prepared data say."""
    record = item.record
    faults: list[str] = []
    if not item.complete:
        return faults
    if len(item.curve) != epochs:
        faults.append(f"{len(item.curve)} rows in its curve for {epochs} epochs")
    if (item.examples, item.classes) != (manifest["n_test"], len(manifest["classes"])):
        faults.append(f"predictions of shape ({item.examples}, {item.classes}), not that of the prepared test set")
    if record.metrics is None:
        faults.append("complete, but without metrics")
    elif record.metrics.accuracy != item.accuracy:
        faults.append(f"its record's accuracy is {record.metrics.accuracy}, that of its predictions {item.accuracy}")
    return faults


_SAME_IN_A_CELL: dict[str, Callable[[Found], object]] = {
    "torch": lambda item: item.measured.versions.get("torch"),
    "cuDNN": lambda item: item.measured.versions.get("cudnn"),
    "GPU": lambda item: item.measured.host.get("gpu"),
    "instruction set": lambda item: item.record.flags.get(INSTRUCTION_SET),
}
_SAME_IN_A_TASK: dict[str, Callable[[Found], object]] = {
    "labels": lambda item: item.labels_digest[:12],
    "heads": lambda item: str((item.head_epochs, item.head_shapes)),
    "layers": lambda item: item.layers_digest[:12],
    "features": lambda item: item.features_shape,
}


def _mixed(items: list[Found]) -> Iterable[tuple[str, str]]:
    """Runs that differ from their fellows in something that must be the same."""
    yield from _outliers(items, lambda item: "", lambda item: item.record.device, "device", "the study")
    yield from _outliers(items, lambda item: item.run.arm, lambda item: item.record.noise.kind, "noise", "its arm")
    # The twins of a cell differ in their arm and in nothing else: not in what computes them either.
    for what, value in _SAME_IN_A_CELL.items():
        yield from _outliers(items, lambda item: item.run.cell, value, what, "its cell")
    seen: dict[tuple[str, str], str] = {}
    for item in items:
        if item.record.noise.entropy:
            other = seen.setdefault((item.run.cell, item.record.noise.entropy), item.run.id)
            if other != item.run.id:
                yield item.run.id, f"has the very noise of {other}: it is a replay and no replicate of its own"
    complete = [item for item in items if item.complete]
    for what, value in _SAME_IN_A_TASK.items():
        yield from _outliers(complete, lambda item: item.run.task, value, what, "its task")


def _outliers(
    items: list[Found], group: Callable[[Found], str], value: Callable[[Found], object], what: str, where: str
) -> Iterable[tuple[str, str]]:
    groups: dict[str, list[Found]] = {}
    for item in items:
        groups.setdefault(group(item), []).append(item)
    for members in groups.values():
        # The commonest value is taken as the meant one; on a tie the first in grid order.
        usual = Counter(map(value, members)).most_common(1)[0][0]
        for item in members:
            if value(item) != usual:
                yield item.run.id, f"{what} {value(item)}, while most runs of {where} have {usual}"
