"""From the collected study to tables, figures, sentences and key numbers: all of them or none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from twinrun.collect.study import Study, load_study
from twinrun.report.index import ANALYSIS_SCHEMA
from twinrun.report.names import corresponds, positive_words, said
from twinrun.report.section import Answer, Draft, Section, chosen
from twinrun.report.sections import (
    answers,
    compared,
    design,
    determinism,
    energy,
    features,
    first_difference,
    guidelines,
    hidden,
    intervals,
    layers,
    predictions,
    provenance,
    results,
    runtime,
    seeds,
    sources,
    spread,
    statement,
    tests,
    thesis,
    weights,
)
from twinrun.report.style import Drawn, save
from twinrun.report.table import COMMAND, Column, Table, missing, write_table
from twinrun.stats.samples import Progress, silent
from twinrun.study.files import sha256_file, write_json
from twinrun.study.folders import replaced_folder
from twinrun.study.records import seal

# The order of the page. The tables of a section may use those of the sections before it; all else may use every table.
SECTIONS: tuple[Section, ...] = (
    answers.SECTION,
    guidelines.SECTION,
    compared.SECTION,
    design.SECTION,
    determinism.SECTION,
    results.SECTION,
    spread.SECTION,
    tests.SECTION,
    seeds.SECTION,
    intervals.SECTION,
    predictions.SECTION,
    hidden.SECTION,
    weights.SECTION,
    layers.SECTION,
    features.SECTION,
    first_difference.SECTION,
    sources.SECTION,
    runtime.SECTION,
    energy.SECTION,
    statement.SECTION,
    provenance.SECTION,
    thesis.SECTION,
)


def analyze(collected: Path, out: Path, progress: Progress = silent) -> None:
    """Write tables/*.csv, figures/*.svg and *.png, statistics.json and the index analysis.json into `out`.

    Raises what `load_study` raises. The same input gives the same bytes.
    """
    study = load_study(collected)
    groups = len(list(study.groups(*study.paired_arms)))
    steps = groups + len(SECTIONS)
    draft = Draft(study, lambda done, _: progress(done, steps))
    index: dict[str, Any] = {"schema": ANALYSIS_SCHEMA, "study_digest": study.digest}
    index |= {"sections": [], "tables": [], "figures": []}
    ours = ("analysis.json", "statistics.json", "tables", "figures")
    with replaced_folder(out, ours, mark=ours[0]) as folder:
        made = [_add_tables(draft, section) for section in SECTIONS]
        for place, (section, tables) in enumerate(zip(SECTIONS, made, strict=True), 1):
            lacks = section.lacks(study)
            figures = [
                replace(figure, thesis_name=_named(study, figure), caption=_with_positive(study, figure))
                for figure in ([] if lacks else section.figures(draft))
            ]
            cards = list(section.answers(draft))
            sentences = [f"Not recorded: {lacks}."] if lacks else list(section.sentences(draft))
            shown = lacks or figures or cards or any(table.filled for table in tables) or (sentences and not tables)
            index["tables"] += [_table_entry(study, table, write_table(table, folder / "tables")) for table in tables]
            index["figures"] += [_figure_entry(study, figure, save(figure, folder / "figures")) for figure in figures]
            if study.imported and not shown:
                continue
            index["sections"].append(
                {
                    "name": section.name,
                    "title": said(study, section.title),
                    "about": "" if lacks else said(study, section.about),
                    "filled_by": "" if shown else section.filled_by,
                    "folded": section.folded,
                    "answers": [_answer_entry(answer) for answer in cards],
                    "sentences": sentences,
                    "tables": [table.name for table in tables],
                    "figures": [figure.name for figure in figures],
                }
            )
            progress(groups + place, steps)
        write_json(folder / "statistics.json", key_numbers(draft))
        named = [name for kind in ("tables", "figures") for entry in index[kind] for name in entry["files"]]
        index["digests"] = {name: sha256_file(folder / name) for name in named}
        write_json(folder / "analysis.json", index | {"seal": seal(index)})


def build_tables(study: Study) -> dict[str, Table]:
    """Every table of the study by name, in the order of the report."""
    draft = Draft(study)
    for section in SECTIONS:
        _add_tables(draft, section)
    return draft.tables


def _add_tables(draft: Draft, section: Section) -> list[Table]:
    """Make the tables of a section and put them into the draft; procedural images are named below each."""
    study = draft.study
    if section.lacks(study):
        return []
    procedural = [task for task in study.tasks if study.procedural(task)]
    note, positive = f"Procedural images: {', '.join(procedural)}.", positive_words(study)
    tables = [
        replace(
            table,
            notes=(
                *table.notes,
                *([positive] if _CLASSWISE.search(_texts(table).upper()) else []),
                *([note] if procedural and "task" in table.frame else []),
            ),
            thesis_name=_named(study, table),
        )
        for table in section.tables(draft)
    ]
    tables = [replace(table, columns=tuple(_called(study, column) for column in table.columns)) for table in tables]
    draft.tables |= {table.name: table for table in tables}
    return tables


def _called(study: Study, column: Column) -> Column:
    """The column by the name that its factor has in an import, and its runs where none are identical."""
    if study.imported and column.name == "optimizer":
        return column._replace(label=study.setting_word.capitalize(), meaning="as in the imported table", words={})
    if study.free_arm == "all":
        meaning = column.meaning.replace("nd runs", "runs")
        return column._replace(label=column.label.removesuffix(" nd"), meaning=meaning)
    return column


_CLASSWISE = re.compile(r"\b(F1|AUC)\b")


def _texts(table: Table) -> str:
    """What its columns for the metric, or for one quantity of several, hold."""
    return " ".join(str(value) for name in ("metric", "quantity") for value in table.frame.get(name, []))


def _with_positive(study: Study, figure: Drawn) -> str:
    """The caption, of a figure of F1 or AUC with the class that they are of."""
    words = f"{figure.alt} {figure.caption}".replace(
        "main metric", " ".join(map(study.main_metric, study.tasks)).upper()
    )
    return f"{figure.caption} {positive_words(study)}" if _CLASSWISE.search(words) else figure.caption


def _named(study: Study, item: Table | Drawn) -> str:
    """The thesis's name, where any task of the study corresponds to one of the thesis's."""
    return item.thesis_name if corresponds(study) else ""


def key_numbers(draft: Draft) -> dict[str, Any]:
    """The numbers that a reader or a later study looks up: per task, and per cell `<optimizer>/<seed>`.

    null is a value that is not available; the remark beside it says why.
    """
    study, numbers = draft.study, {}
    names = ("spread", "churn", "hidden", "determinism")
    frames: dict[str, pd.DataFrame] = {name: draft.frame(name) for name in names if name in draft.tables}
    if "weights" in draft.tables:
        heads = draft.frame("weights")
        frames["last_heads"] = heads[heads["epoch"] == heads.groupby("task")["epoch"].transform("max")]
    for task in study.tasks:
        of_task: dict[str, pd.DataFrame] = {
            name: chosen(frame, task=task).drop(columns="task") for name, frame in frames.items()
        }
        of_task["performance"] = draft.frame(f"performance_{task}")
        cells = {}
        for cell in study.cells(task):
            keys = {"optimizer": cell.optimizer, "seed": cell.seed}
            cells[f"{cell.optimizer}/{cell.seed}"] = {
                name: _records(chosen(frame, **keys).drop(columns=list(keys))) for name, frame in of_task.items()
            }
        summary = chosen(draft.frame("summary"), task=study.title(task))
        numbers[task] = {
            "title": study.title(task),
            "n_test": study.info["tasks"][task]["n_test"],
            "main_metric": study.main_metric(task),
            "summary": _records(summary.drop(columns="task")),
            "cells": cells,
        }
    return {"study": study.info["study"], "runs": len(study.results), "tasks": numbers}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    # .item() turns numpy's numbers into Python's, which JSON knows.
    return [
        {
            str(key): None if missing(value) else value.item() if hasattr(value, "item") else value
            for key, value in row.items()
        }
        for row in frame.to_dict("records")
    ]


def _answer_entry(answer: Answer) -> dict[str, Any]:
    return {**answer._asdict(), "rows": [row._asdict() for row in answer.rows], "scale": list(answer.scale)}


def _table_entry(study: Study, table: Table, files: list[str]) -> dict[str, Any]:
    return {
        "name": table.name,
        "thesis_name": "" if study.imported else table.thesis_name,
        "title": said(study, table.title),
        "caption": said(study, table.caption),
        "notes": list(table.notes),
        "columns": [column._asdict() for column in table.columns],
        "rows": len(table.frame),
        "filled": table.filled,
        "filled_by": table.filled_by,
        "file": f"tables/{table.name}.csv",
        "files": [f"tables/{name}" for name in files],
        "main": table.main,
        "for_programs": table.for_programs,
        "command": COMMAND,
    }


def _figure_entry(study: Study, figure: Drawn, files: list[str]) -> dict[str, Any]:
    return {
        "name": figure.name,
        "thesis_name": "" if study.imported else figure.thesis_name,
        "title": said(study, figure.title),
        "caption": said(study, figure.caption),
        "alt": figure.alt,
        "files": [f"figures/{name}" for name in files],
        "command": COMMAND,
    }
