"""From the collected study to tables, figures and key numbers: all of them or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from twinrun.collect.study import Study, load_study
from twinrun.report import style as drawing
from twinrun.report.rendering import COMMAND, write_table
from twinrun.report.sections import (
    figures,
    figures_hidden,
    figures_layers,
    figures_normality,
    figures_runtime,
    figures_sources,
    figures_weights,
)
from twinrun.report.sections.agreement import agreements
from twinrun.report.sections.footprint import footprint_table
from twinrun.report.sections.parting import parting_figures, parting_table
from twinrun.report.sections.tables_determinism import determinism_arms_table, determinism_table
from twinrun.report.sections.tables_features import features_table
from twinrun.report.sections.tables_hidden import classes_table, flips_table, hidden_table
from twinrun.report.sections.tables_layers import depths_table, layers_checkpoints_table, layers_frame, layers_table
from twinrun.report.sections.tables_performance import performance_table, spread_table, summary_table
from twinrun.report.sections.tables_runtime import runtime_table
from twinrun.report.sections.tables_sources import literature_table, sources_table
from twinrun.report.sections.tables_tests import build_test_tables
from twinrun.report.sections.tables_twins import churn_arms_table, churn_table, paired_arms
from twinrun.report.sections.tables_weights import weights_seeds_table, weights_table
from twinrun.report.style import Drawn
from twinrun.report.table import Table, missing
from twinrun.report.thesis.beside import footprint_notes, summary_notes, thesis_table
from twinrun.stats.samples import Progress, silent
from twinrun.study.files import write_json
from twinrun.study.folders import replaced_folder

ANALYSIS_SCHEMA = 1


def analyze(collected: Path, out: Path, progress: Progress = silent) -> None:
    """Write tables/*.csv, figures/*.svg and *.png, statistics.json and the index analysis.json into `out`.

    Raises what `load_study` raises. The same input gives the same bytes.
    """
    study = load_study(collected)
    tables = build_tables(study, progress)
    measured = len(paired_arms(study)) * len(list(study.cells()))
    with replaced_folder(out, ("analysis.json", "statistics.json", "tables", "figures")) as folder:
        files = {name: write_table(table, folder / "tables") for name, table in tables.items()}
        found, drawn = build_figures(study, tables), []
        for figure in found:
            drawn.append(_figure_entry(figure, drawing.save(figure, folder / "figures")))
            progress(measured + len(drawn), measured + len(found))
        write_json(folder / "statistics.json", key_numbers(study, tables))
        entries = [_table_entry(table, files[table.name]) for table in tables.values()]
        index = {"schema": ANALYSIS_SCHEMA, "study_digest": study.digest, "tables": entries, "figures": drawn}
        write_json(folder / "analysis.json", index)


def build_tables(study: Study, progress: Progress = silent) -> dict[str, Table]:
    """Every table of the study by name, in the order of the report."""
    groups = agreements(study, paired_arms(study), progress)
    churn, weights, layers = churn_table(study, groups), weights_table(study), layers_frame(study)
    performance = {task: performance_table(study, task) for task in study.tasks}
    tables = [
        determinism_table(study),
        determinism_arms_table(study),
        *performance.values(),
        replace(summary_table(study), notes=summary_notes(study)),
        spread_table(study),
        *build_test_tables(study),
        thesis_table(study, {task: table.frame for task, table in performance.items()}),
        churn,
        churn_arms_table(study, churn.frame),
        hidden_table(study, groups),
        classes_table(study, groups),
        flips_table(study, groups),
        weights,
        weights_seeds_table(study, weights.frame),
        layers_table(study, layers),
        depths_table(study, layers),
        layers_checkpoints_table(study, layers),
        features_table(study),
        sources_table(study),
        literature_table(),
        parting_table(study),
        runtime_table(study),
        replace(footprint_table(study), notes=footprint_notes()),
    ]
    procedural = [task for task in study.tasks if study.info["tasks"][task]["procedural"]]
    note = f"Procedural images: {', '.join(procedural)}."
    return {
        table.name: replace(table, notes=(*table.notes, note)) if procedural and "task" in table.frame else table
        for table in tables
    }


def build_figures(study: Study, tables: dict[str, Table]) -> list[Drawn]:
    """Every figure of the study, in the order of the report."""
    spread, weights = tables["spread"].frame, tables["weights"].frame
    sources = figures_sources.sources_figure(study, tables["sources"].frame)
    return [
        *(figures.sd_figure(study, task, spread) for task in study.tasks),
        *(figures.difference_figure(study, task, tables[f"performance_{task}"].frame) for task in study.tasks),
        figures_normality.qq_figure(study),
        figures_hidden.churn_figure(study, tables["churn"].frame),
        figures_hidden.classes_figure(study, tables["classes"].frame),
        *figures_hidden.picture_figures(study, tables["flips"].frame),
        figures_weights.head_sd_figure(study, weights),
        *(figures_weights.cosine_figure(study, optimizer, weights) for optimizer in study.optimizers),
        figures_layers.layers_figure(study, tables["layers_depth"].frame),
        *([sources] if sources else []),
        *parting_figures(study),
        *(figures_runtime.runtime_figure(study, task, tables["runtime"].frame) for task in study.tasks),
    ]


def key_numbers(study: Study, tables: dict[str, Table]) -> dict[str, Any]:
    """The numbers that a reader or a later study looks up: per task, and per cell `<optimizer>/<seed>`.

    null is a value that is not available; the remark beside it says why.
    """
    summary, spread, churn = (tables[name].frame for name in ("summary", "spread", "churn"))
    determinism, weights = tables["determinism"].frame, tables["weights"].frame
    result: dict[str, Any] = {}
    for task in study.tasks:
        cells = {}
        performance = tables[f"performance_{task}"].frame
        for cell in study.cells(task):
            heads = _of(weights, task, cell.optimizer, cell.seed)
            last = heads[heads["epoch"] == heads["epoch"].max()] if len(heads) else heads
            cells[f"{cell.optimizer}/{cell.seed}"] = {
                "performance": _records(_of(performance, None, cell.optimizer, cell.seed)),
                "spread": _records(_of(spread, task, cell.optimizer, cell.seed)),
                "churn": _records(_of(churn, task, cell.optimizer, cell.seed)),
                "hidden": _records(_of(tables["hidden"].frame, task, cell.optimizer, cell.seed)),
                "last_heads": _records(last),
                "determinism": _records(_of(determinism, task, cell.optimizer, cell.seed)),
            }
        result[task] = {
            "title": study.title(task),
            "n_test": study.info["tasks"][task]["n_test"],
            "main_metric": study.main_metric(task),
            "summary": _records(summary[summary["task"] == study.title(task)].drop(columns="task")),
            "cells": cells,
        }
    return {"study": study.info["study"], "runs": len(study.results), "tasks": result}


def _of(frame: pd.DataFrame, task: str | None, optimizer: str, seed: int) -> pd.DataFrame:
    chosen = (frame["optimizer"] == optimizer) & (frame["seed"] == seed)
    if task is not None:
        chosen &= frame["task"] == task
    rest: pd.DataFrame = frame[chosen].drop(columns=["optimizer", "seed", *(["task"] if task else [])])
    return rest


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    # .item() turns numpy's numbers into Python's, which JSON knows.
    return [
        {
            str(key): None if missing(value) else value.item() if hasattr(value, "item") else value
            for key, value in row.items()
        }
        for row in frame.to_dict("records")
    ]


def _table_entry(table: Table, files: list[str]) -> dict[str, Any]:
    return {
        "name": table.name,
        "thesis_name": table.thesis_name,
        "title": table.title,
        "caption": table.caption,
        "notes": list(table.notes),
        "columns": list(table.frame.columns),
        "rows": len(table.frame),
        "file": f"tables/{table.name}.csv",
        "files": [f"tables/{name}" for name in files],
        "for_programs": table.for_programs,
        "command": COMMAND,
    }


def _figure_entry(figure: Drawn, files: list[str]) -> dict[str, Any]:
    return {
        "name": figure.name,
        "thesis_name": figure.thesis_name,
        "title": figure.title,
        "caption": figure.caption,
        "alt": figure.alt,
        "files": [f"figures/{name}" for name in files],
        "command": COMMAND,
    }
