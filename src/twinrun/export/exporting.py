"""`twinrun export`: each finished run once, with its parameters, curve and results, and the study's tables and figures.

What was exported is remembered in the export's own folder; nothing is written twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, Field

from twinrun.collect.checks import read_run
from twinrun.report.index import read_index, require_whole
from twinrun.study.documents import read_document
from twinrun.study.errors import IncompleteError, InputError, MismatchError, ResourceError, TwinrunError
from twinrun.study.files import sha256_file, write_json
from twinrun.study.grid import Run
from twinrun.study.layout import CURVE_COLUMNS, RECORD, Layout
from twinrun.study.params import Params
from twinrun.study.records import current_code_digest, read_manifest

SCHEMA = 1
NOTE = "twinrun-export.json"
STUDY = "study"  # under which the tables and figures are noted
CRATE = "ro-crate"
TRACKERS = {"tensorboard": "to_tensorboard", "wandb": "to_wandb", "mlflow": "to_mlflow"}
TARGETS = TRACKERS | {CRATE: "to_crate"}  # also the names of the extras
Value = str | int | float | bool


@dataclass(frozen=True)
class FinishedRun:
    """One run as a tracker takes it."""

    id: str
    version: str  # SHA-256 of its record
    params: Mapping[str, Value]  # dotted keys of the params file
    curve: tuple[tuple[int, Mapping[str, float]], ...]  # (epoch, values); what is not defined is left out
    results: Mapping[str, float]  # final metrics and what was measured, by names with their units
    tags: Mapping[str, str]
    started: float  # seconds since 1970
    finished: float


@dataclass(frozen=True)
class Shown:
    """A table (CSV and Markdown) or figure (PNG) of the analysis."""

    name: str
    title: str
    caption: str
    path: Path


@dataclass(frozen=True)
class Analysis:
    """The study as a whole; empty when it was not analyzed yet."""

    version: str
    tables: tuple[Shown, ...] = ()
    figures: tuple[Shown, ...] = ()


class Target(Protocol):
    """A tracker's files in one folder; what an interrupted export left of a run is replaced, not added to."""

    def add_run(self, run: FinishedRun) -> None:
        """Write one run."""

    def add_analysis(self, study: str, analysis: Analysis) -> None:
        """Write the tables and figures of a study."""


@dataclass(frozen=True)
class Summary:
    """What an export did."""

    added: int
    there: int
    left_out: dict[str, str]
    tables: int
    figures: int


def export(params: Params, layout: Layout, target: str, out: Path, done: Callable[[str, int, int], None]) -> Summary:
    """Export every finished run and, when there is an analysis, its tables and figures.

    Raises InputError for an unknown target, a missing extra, or a folder into which other records of these runs were
    exported before; IncompleteError when no run is finished.
    """
    writer: Target = _module(target).Writer(out)
    runs, left_out = finished_runs(params, layout)
    analysis = read_analysis(layout)
    noted = _read_note(out / NOTE, target)
    changed = [run.id for run in runs if noted.get(run.id, run.version) != run.version]
    changed += [STUDY] if analysis.version and noted.get(STUDY, analysis.version) != analysis.version else []
    if changed:
        raise InputError(
            f"{out}: {len(changed)} of the exports there are of other records, such as {changed[0]}",
            "export into another folder with --out, or remove this one",
        )
    fresh = [run for run in runs if run.id not in noted]
    with_analysis = bool(analysis.version) and STUDY not in noted
    total = len(fresh) + with_analysis
    for place, run in enumerate(fresh, 1):
        writer.add_run(run)
        noted[run.id] = run.version
        _write_note(out / NOTE, target, noted)
        done(run.id, place, total)
    if with_analysis:
        writer.add_analysis(params.study, analysis)
        noted[STUDY] = analysis.version
        _write_note(out / NOTE, target, noted)
        done("tables and figures", total, total)
    return Summary(len(fresh), len(runs) - len(fresh), left_out, len(analysis.tables), len(analysis.figures))


def pack(params: Params, params_file: Path, layout: Layout, out: Path) -> Summary:
    """Pack every finished run, and what was made of them, as one RO-Crate into `out`, in place of an older one.

    Raises InputError for a missing extra or a folder of something else, IncompleteError when no run is finished.
    """
    module = _module(CRATE)
    runs, left_out = finished_runs(params, layout)
    analysis = read_analysis(layout)
    module.write_crate(params, params_file, layout, runs, out)
    return Summary(len(runs), 0, left_out, len(analysis.tables), len(analysis.figures))


def _module(target: str) -> Any:
    if target not in TARGETS:
        raise InputError(f"--to {target} is not known", f"targets: {', '.join(TARGETS)}")
    try:
        return import_module(f"twinrun.export.{TARGETS[target]}")
    except ModuleNotFoundError as error:
        raise InputError(
            f"--to {target} needs the package {error.name}, which is not installed",
            f"in a checkout of twinrun: pip install --editable '.[{target}]'",
        ) from error


class Note(BaseModel):
    """What was exported already: the digest by run."""

    schema_version: Literal[1] = Field(alias="schema")
    target: str
    exported: dict[str, str]


def _read_note(path: Path, target: str) -> dict[str, str]:
    if not path.is_file():
        return {}
    hint = "give another folder with --out"
    note = read_document(path, Note, "the note of an export", hint)
    if note.target != target:
        raise InputError(f"{path}: not of an export to {target}", hint)
    return dict(note.exported)


def _write_note(path: Path, target: str, noted: dict[str, str]) -> None:
    write_json(path, {"schema": SCHEMA, "target": target, "exported": noted})


def finished_runs(params: Params, layout: Layout) -> tuple[list[FinishedRun], dict[str, str]]:
    """Every finished run of the grid, and for each other one why it is left out; IncompleteError when none is there."""
    finished, left_out = [], {}
    code, manifests = current_code_digest(), {task: _manifest(layout, task) for task in params.grid.tasks}
    for run in params.runs:
        try:
            finished.append(_finished(params, layout, run, manifests[run.task], code))
        except ResourceError:  # says nothing of the run
            raise
        except TwinrunError as error:
            left_out[run.id] = error.message
    if not finished:
        first = next(iter(left_out.items()))
        raise IncompleteError(f"no run is finished, such as {first[0]}: {first[1]}", "`twinrun sweep` trains them")
    return finished, left_out


def _manifest(layout: Layout, task: str) -> dict[str, Any] | None:
    path = layout.prepared(task) / "manifest.json"
    return read_manifest(path).model_dump() if path.is_file() else None


def _finished(params: Params, layout: Layout, run: Run, manifest: dict[str, Any] | None, code: str) -> FinishedRun:
    folder = layout.run(run)
    data = manifest["digest"] if manifest else None
    item, faults = read_run(run, folder, params.expected(run, data, code), manifest)
    if item is None:
        raise IncompleteError("not trained yet", "`twinrun sweep` trains it")
    if faults:
        raise MismatchError(f"{folder}: {'; '.join(faults)}", "remove it, and `twinrun sweep` trains it again")
    record, measured, curve = item.record, item.measured, []
    for cells in item.curve:
        row = dict(zip(CURVE_COLUMNS, cells, strict=True))
        values = {name: float(text) for name, text in row.items() if name not in ("epoch", "fingerprint") and text}
        curve.append((int(row["epoch"]), values))
    metrics = record.metrics.model_dump() if record.metrics else {}
    results = {f"final/{name}": value for name, value in metrics.items()}
    results |= {
        name: getattr(measured, name) for name in ("train_seconds", "eval_seconds", "total_seconds", "energy_joules")
    }
    task = params.tasks[run.task]
    blocks = {
        "task": run.task, "optimizer": run.optimizer, "seed": run.seed, "arm": run.arm, "replicate": run.replicate,
        "parameter_count": record.parameter_count, "noise": record.noise.kind, "device": record.device,
        "model": task.model.model_dump(), "recipe": task.recipe.model_dump(), "data": task.data.model_dump(),
        run.optimizer: task.optimizer(run.optimizer).model_dump(), "flags": dict(record.flags),
    }  # fmt: skip
    return FinishedRun(
        id=run.id,
        version=sha256_file(folder / RECORD),
        params=dict(_flat(blocks)),
        curve=tuple(curve),
        results={name: float(value) for name, value in results.items() if value is not None and math.isfinite(value)},
        tags={
            "twinrun.run": run.id, "twinrun.study": params.study, "twinrun.status": record.status,
            "twinrun.fingerprint": record.final_fingerprint, "twinrun.code_digest": record.code_digest,
            "twinrun.params_digest": record.params_digest, "twinrun.data_digest": record.data_digest,
        },
        started=_seconds(measured.started),
        finished=_seconds(measured.finished),
    )  # fmt: skip


def _flat(blocks: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Value]]:
    flat: list[tuple[str, Value]] = []
    for key, value in blocks.items():
        if isinstance(value, Mapping):
            flat += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat.append((f"{prefix}{key}", value if isinstance(value, str | int | float) else str(value)))
    return flat


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def read_analysis(layout: Layout) -> Analysis:
    """The tables and figures of analysis/; MismatchError when its index is damaged or a file is missing."""
    index_path = layout.analysis / "analysis.json"
    if not index_path.is_file():
        return Analysis("")
    index = read_index(index_path)
    require_whole(layout.analysis, index)
    tables, figures = (
        tuple(
            Shown(
                entry["name"],
                " ".join(part for part in (entry["thesis_name"], entry["title"]) if part),
                entry["caption"],
                layout.analysis / next(name for name in entry["files"] if name.endswith(suffix)),
            )
            for entry in index[kind]
        )
        for kind, suffix in (("tables", ".csv"), ("figures", ".png"))
    )
    return Analysis(sha256_file(index_path), tables, figures)
