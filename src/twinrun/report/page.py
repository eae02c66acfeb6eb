"""One self-contained HTML page and a short text version, from what `twinrun analyze` wrote."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from twinrun.collect.cells import EXACT, unquote
from twinrun.collect.study import Study, load_study
from twinrun.report.build import ANALYSIS_SCHEMA
from twinrun.report.columns import Column, missing
from twinrun.report.names import procedural_words
from twinrun.report.table import cells, columns_shown, markdown_prose, markdown_table
from twinrun.study.errors import InputError, MismatchError
from twinrun.study.files import explain_os_error, read_json, write_text

AGAIN = "run `twinrun analyze` again"
_CODE, _BOLD = re.compile(r"`([^`]+)`"), re.compile(r"\*\*(.+?)\*\*")
_LONG = 40  # rows; a longer table is folded


def write_report(analysis: Path, collected: Path, out: Path) -> Path:
    """Write `out`/index.html and `out`/report.md; returns the path of the page.

    Raises InputError or MismatchError when files are missing or the analysis is that of another study.
    """
    study = load_study(collected)
    index = _read_index(analysis, study)
    environment = Environment(
        loader=PackageLoader("twinrun.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["marked"] = _marked
    shown = [entry for entry in index["tables"] if not entry["for_programs"]]
    frames = {entry["name"]: _read_table(analysis / entry["file"]) for entry in shown}
    tables = {entry["name"]: _table(entry, frames[entry["name"]]) for entry in shown}
    figures = {entry["name"]: _figure(entry, analysis) for entry in index["figures"]}
    page = environment.get_template("report.html.j2").render(
        study=study.info["study"],
        identical="identical " if study.free_arm == "nd" else "",
        procedural=procedural_words(study),
        diverged=study.info["diverged"],
        sections=index["sections"],
        tables=tables,
        figures=figures,
    )
    write_text(out / "report.md", _markdown(study, index, frames))
    write_text(out / "index.html", page)
    return out / "index.html"


def _marked(text: str) -> Markup:
    """Escape `text`; set what stands between backticks as code, and between two asterisks bold."""
    return Markup(_BOLD.sub(r"<b>\1</b>", _CODE.sub(r"<code>\1</code>", str(escape(text)))))


def _read_index(analysis: Path, study: Study) -> dict[str, Any]:
    path = analysis / "analysis.json"
    index = read_json(path)
    if not isinstance(index, dict) or index.get("schema") != ANALYSIS_SCHEMA:
        raise MismatchError(f"{path}: not an analysis of this version", AGAIN)
    if index.get("study_digest") != study.digest:
        raise MismatchError(f"{path}: made from another study than {study.folder}", AGAIN)
    return index


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return unquote(pd.read_csv(path, keep_default_na=False, na_values=[""], **EXACT))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", AGAIN) from error
    except ValueError as error:
        raise MismatchError(f"{path}: cannot be read ({' '.join(str(error).split())})", AGAIN) from error


def _files(entry: dict[str, Any]) -> str:
    """`tables/spread.csv, .tex, .md`."""
    first, *others = entry["files"]
    return ", ".join([first, *(f".{name.rpartition('.')[2]}" for name in others)])


def _columns(entry: dict[str, Any]) -> list[Column]:
    return [Column(**column) for column in entry["columns"]]


def _table(entry: dict[str, Any], frame: pd.DataFrame) -> dict[str, Any]:
    columns = columns_shown(_columns(entry), frame)
    rows = [
        [
            {"text": text, "sort": "" if missing(row[column.name]) else str(row[column.name])}
            for column, text in zip(columns, texts, strict=True)
        ]
        for row, texts in zip(frame.to_dict("records"), cells(columns, frame), strict=True)
    ]
    return {**entry, "files": _files(entry), "head": columns, "body": rows, "folded": len(rows) > _LONG}


def _figure(entry: dict[str, Any], analysis: Path) -> dict[str, Any]:
    path = analysis / next(name for name in entry["files"] if name.endswith(".svg"))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise explain_os_error(error, path) from error
    # As an image, not inline: element ids of two figures would clash on one page.
    source = "data:image/svg+xml;base64," + base64.b64encode(content).decode()
    return {**entry, "files": _files(entry), "source": source}


def _answer_line(answer: dict[str, Any]) -> str:
    parts = "; ".join(f"{row['label']}: {row['note']}" for row in answer["rows"])
    said = f"- **{answer['question']} {answer['value']}** {answer['words']}{f' ({parts})' if parts else ''}"
    return markdown_prose(said)


def _markdown(study: Study, index: dict[str, Any], frames: dict[str, pd.DataFrame]) -> str:
    """The answers and sentences of every section, and its main tables."""
    tables = {entry["name"]: entry for entry in index["tables"]}
    lines = [f"# Report of the study `{study.info['study']}`", ""]
    if procedural_words(study):
        lines += [f"**{markdown_prose(procedural_words(study))}**", ""]
    for section in index["sections"]:
        main = [tables[name] for name in section["tables"] if tables[name]["main"] and len(frames[name])]
        if not (main or section["sentences"] or section["answers"]):
            continue
        sentences = [f"- {markdown_prose(sentence)}" for sentence in section["sentences"]]
        lines += [f"## {section['title']}", "", *sentences, *map(_answer_line, section["answers"])]
        for entry in main:
            name = f"{entry['thesis_name']}. " if entry["thesis_name"] else ""
            lines += [
                "",
                f"### {name}{markdown_prose(entry['title'])}",
                "",
                *markdown_table(_columns(entry), frames[entry["name"]]),
            ]
            lines += ["", markdown_prose(entry["caption"])]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"
