"""`twinrun export`: each finished run once, remembered in the export's own folder; nothing is written twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, Field

from twinrun.export.finished import Analysis, FinishedRun, finished_runs, read_analysis
from twinrun.study.documents import read_document
from twinrun.study.errors import InputError
from twinrun.study.files import write_json
from twinrun.study.layout import Layout
from twinrun.study.params import Params

SCHEMA = 1
NOTE = "twinrun-export.json"
STUDY = "study"  # under which the tables and figures are noted
CRATE = "ro-crate"
TRACKERS = {"tensorboard": "to_tensorboard", "wandb": "to_wandb", "mlflow": "to_mlflow"}
TARGETS = TRACKERS | {CRATE: "to_crate"}  # also the names of the extras


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
            f"in a checkout of twinrun: pip install '.[{target}]'",
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
