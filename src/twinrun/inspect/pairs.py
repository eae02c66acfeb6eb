"""Which two runs are compared step by step, and whether they can be."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from twinrun.study.errors import IncompleteError, MismatchError
from twinrun.study.grid import Run
from twinrun.study.layout import RECORD, Layout
from twinrun.study.params import Params
from twinrun.study.records import Record, current_code_digest, read_manifest, read_record


@dataclass(frozen=True)
class Recorded:
    """A run with its record and the folder it is in."""

    run: Run
    record: Record
    folder: Path


def resolve(params: Params, layout: Layout, first: str, second: str) -> tuple[Recorded, Recorded]:
    """The two runs that ids, record folders or labels (`nd_1`: of the other's cell, else of the first cell) name.

    Raises InputError for a run that is not in the grid, IncompleteError for one that is not trained.
    """
    cells = [word.rpartition("/")[0] for word in (first, second) if "/" in word and not (Path(word) / RECORD).is_file()]
    cells += [
        read_record(Path(word)).run.rpartition("/")[0] for word in (first, second) if (Path(word) / RECORD).is_file()
    ]
    cell = cells[0] if cells else params.runs[0].cell

    def recorded(word: str) -> Recorded:
        if (Path(word) / RECORD).is_file():
            record = read_record(Path(word))
            return Recorded(params.find(record.run), record, Path(word))
        run = params.find(word if "/" in word else f"{cell}/{word}")
        if not (layout.run(run) / RECORD).is_file():
            raise IncompleteError(f"{run.id} is not trained yet", f"`twinrun train {run.id}` does it")
        return Recorded(run, read_record(layout.run(run)), layout.run(run))

    return recorded(first), recorded(second)


def first_pairs(params: Params) -> dict[str, tuple[str, str] | None]:
    """For each task the pair that the report shows: the first cell's first deterministic and first free run."""
    pairs: dict[str, tuple[str, str] | None] = {}
    for task in params.grid.tasks:
        runs = [run for run in params.runs if run.task == task]
        runs = [run for run in runs if run.cell == runs[0].cell]
        fixed = next((run.id for run in runs if run.arm == "det"), None)
        free = next((run.id for run in runs if run.arm == "nd"), None)
        pairs[task] = (fixed, free) if fixed and free else None
    return pairs


def check_pair(params: Params, layout: Layout, first: Recorded, second: Recorded) -> None:
    """Refuse runs that cannot be compared or trained again as they were: MismatchError naming all that differs."""
    a, b = first.record, second.record
    what = {
        "task": (a.task, b.task),
        "optimizer": (a.optimizer, b.optimizer),
        "params": (a.params_digest, b.params_digest),
        "code": (a.code_digest, b.code_digest),
        "data": (a.data_digest, b.data_digest),
        "device": (a.device, b.device),
    }
    differs = [f"{name} ({was[:12]} and {other[:12]})" for name, (was, other) in what.items() if was != other]
    if differs:
        raise MismatchError(
            f"{a.run} and {b.run} are of different {', '.join(differs)}: they part before the first step",
            "only runs of the same task, optimizer, params, code, data and device can be followed to where they part",
        )
    manifest = layout.prepared(a.task) / "manifest.json"
    if not manifest.is_file():
        raise IncompleteError(f"task {a.task} is not prepared", f"`twinrun prepare {a.task}` does it")
    now = {
        "params": (a.params_digest, params.run_digest(first.run)),
        "code": (a.code_digest, current_code_digest()),
        "data": (a.data_digest, read_manifest(manifest).digest),
    }
    changed = [f"{name} ({was[:12]}, now {other[:12]})" for name, (was, other) in now.items() if was != other]
    if changed:
        raise MismatchError(
            f"{a.run} and {b.run} were trained with other {', '.join(changed)}: they cannot be repeated",
            "go back to what they were trained with, or train both again",
        )


def differing_epoch(first: Record, second: Record) -> int | None:
    """The first epoch, from 1, after which the fingerprints differ; 0: before training; None: never."""
    if first.initial_fingerprint != second.initial_fingerprint:
        return 0
    pairs = zip_longest(first.fingerprints, second.fingerprints)
    return next((epoch for epoch, (a, b) in enumerate(pairs, 1) if a != b), None)
