"""One self-contained HTML page and a short text version, from what `twinrun analyze` wrote."""

from __future__ import annotations

import base64
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from twinrun.collect.cells import EXACT, unquote
from twinrun.collect.study import Study, load_study
from twinrun.report.index import AGAIN, read_index, require_whole
from twinrun.report.names import procedural_words
from twinrun.report.table import Column, cells, columns_shown, markdown_prose, markdown_table, missing
from twinrun.study.errors import InputError, MismatchError, plural
from twinrun.study.files import explain_os_error, refuse_pipe, write_text

_CODE, _BOLD = re.compile(r"`([^`]+)`"), re.compile(r"\*\*(.+?)\*\*")
_LONG = 40  # rows; a longer table is folded
_FORMS = {"csv": ("CSV", "text/csv"), "tex": ("LaTeX", "application/x-tex"), "svg": ("SVG", "image/svg+xml")}
_THESIS = re.compile(r"(Table|Figure)s? (?:[\d.]+-)?(\d+)\.(\d+)")


def write_report(analysis: Path, collected: Path, out: Path) -> Path:
    """Write `out`/index.html and `out`/report.md; returns the path of the page.

    Raises InputError or MismatchError when files are missing, when the analysis is that of another study, and when
    somebody else's page is in the place.
    """
    for name, mark in (("report.md", "# Report of the study"), ("index.html", ": twinrun report</title>")):
        _require_own(out / name, mark)
    study = load_study(collected)
    index = _read_index(analysis, study)
    shown = [entry for entry in index["tables"] if not entry["for_programs"]]
    frames = {entry["name"]: _read_table(analysis / entry["file"]) for entry in shown}
    tables = {entry["name"]: _table(entry, frames[entry["name"]], analysis) for entry in shown}
    figures = {entry["name"]: _figure(entry, analysis) for entry in index["figures"]}
    absent = {name for section in index["sections"] if section["filled_by"] for name in section["tables"]}
    last = sorted((entry for entry in (*tables.values(), *figures.values()) if _of_thesis(entry)), key=_thesis_order)
    page = template("report.html.j2").render(
        study=study.info["study"],
        identical="identical " if study.free_arm == "nd" else "",
        procedural=procedural_words(study),
        diverged=study.info["diverged"],
        sections=[_section(section, tables, figures) for section in index["sections"]],
        thesis=[list(group) for _, group in groupby(last, key=lambda entry: bool(entry["source"]))],
        tables={name: entry for name, entry in tables.items() if name not in absent},
        figures=figures,
    )
    write_text(out / "report.md", _markdown(study, index, frames))
    write_text(out / "index.html", page)
    return out / "index.html"


def _require_own(path: Path, mark: str) -> None:
    """InputError where the file is there and has not the words with which a report begins."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        if mark not in stream.read(1000):
            raise InputError(f"{path}: is no report of twinrun's", "nothing was changed; move it away")


def template(name: str) -> Template:
    """A template of this package."""
    environment = Environment(
        loader=PackageLoader("twinrun.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["marked"] = _marked
    return environment.get_template(name)


def _marked(text: str) -> Markup:
    """Escape `text`; set what stands between backticks as code, and between two asterisks bold."""
    return Markup(_BOLD.sub(r"<b>\1</b>", _CODE.sub(r"<code>\1</code>", str(escape(text)))))


def _read_index(analysis: Path, study: Study) -> dict[str, Any]:
    path = analysis / "analysis.json"
    index = read_index(path)
    if index["study_digest"] != study.digest:
        raise MismatchError(f"{path}: made from another study than {study.folder}", AGAIN)
    require_whole(analysis, index)
    return index


def _read_table(path: Path) -> pd.DataFrame:
    refuse_pipe(path, AGAIN)
    try:
        return unquote(pd.read_csv(path, keep_default_na=False, na_values=[""], **EXACT))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", AGAIN) from error
    except ValueError as error:
        raise MismatchError(f"{path}: cannot be read ({' '.join(str(error).split())})", AGAIN) from error


def _of_thesis(entry: dict[str, Any]) -> bool:
    """Whether it is shown at the end, under the thesis's name; `data of Figures 5.1-5.3` is not."""
    return bool(_THESIS.match(entry["thesis_name"])) and entry.get("filled", True)


def _thesis_order(entry: dict[str, Any]) -> tuple[bool, int, int, bool]:
    """Tables before figures, by number; what spans several comes after the last of them."""
    match = _THESIS.match(entry["thesis_name"])
    assert match
    return match[1] == "Figure", int(match[2]), int(match[3]), "-" in entry["thesis_name"]


def _section(section: dict[str, Any], tables: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """A section with its entries apart from those that are shown at the end, and how many of both."""
    shown = [tables[name] for name in section["tables"] if name in tables]
    drawn = [figures[name] for name in section["figures"]]
    moved = sorted((entry for entry in (*shown, *drawn) if _of_thesis(entry)), key=_thesis_order)
    kept = [[entry for entry in entries if entry not in moved] for entries in (shown, drawn)]
    filled = sum(entry["filled"] for entry in kept[0])
    counts = [plural(number, noun) for number, noun in ((filled, "table"), (len(kept[1]), "figure")) if number]
    return {**section, "tables": kept[0], "figures": kept[1], "moved": moved, "counts": ", ".join(counts)}


def _downloads(entry: dict[str, Any], analysis: Path) -> list[dict[str, str]]:
    """A link that holds the file, for each of its forms; a figure's is filled in on the page, from its picture."""
    links = []
    for name in entry["files"]:
        form = name.rpartition(".")[2]
        if form in _FORMS:
            word, kind = _FORMS[form]
            link = "" if form == "svg" else f"data:{kind};base64,{_base64(analysis / name)}"
            links.append({"word": word, "name": name.rpartition("/")[2], "link": link})
    return links


def _base64(path: Path) -> str:
    refuse_pipe(path, AGAIN)
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise explain_os_error(error, path) from error


def _columns(entry: dict[str, Any]) -> list[Column]:
    return [Column(**column) for column in entry["columns"]]


def _table(entry: dict[str, Any], frame: pd.DataFrame, analysis: Path) -> dict[str, Any]:
    """The table as the page sets it: remarks stand below it, numbered in its first column."""
    columns = [column for column in columns_shown(_columns(entry), frame) if column.name != "remark"]
    told = ["" if missing(text) else str(text) for text in frame.get("remark", [""] * len(frame))]
    remarks = [text for text in dict.fromkeys(told) if text]
    rows = [
        [
            {"text": text, "sort": "" if missing(row[column.name]) else str(row[column.name])}
            for column, text in zip(columns, texts, strict=True)
        ]
        for row, texts in zip(frame.to_dict("records"), cells(columns, frame), strict=True)
    ]
    marks = [remarks.index(text) + 1 if text else 0 for text in told]
    body = [{"cells": row, "mark": mark} for row, mark in zip(rows, marks, strict=True)]
    downloads = _downloads(entry, analysis)
    return {
        **entry, "downloads": downloads, "head": columns, "body": body, "remarks": remarks, "folded": len(rows) > _LONG,
        "source": "",
    }  # fmt: skip


def _figure(entry: dict[str, Any], analysis: Path) -> dict[str, Any]:
    source = svg_link(analysis / next(name for name in entry["files"] if name.endswith(".svg")))
    return {**entry, "downloads": _downloads(entry, analysis), "source": source}


def svg_link(path: Path) -> str:
    """A figure as an image, not inline: element ids of two figures would clash on one page."""
    return f"data:image/svg+xml;base64,{_base64(path)}"


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
        main = [tables[name] for name in section["tables"] if tables[name]["main"] and tables[name]["filled"]]
        if section["filled_by"]:
            lines += [f"## {section['title']}", "", f"Needs {section['filled_by']}.", ""]
            continue
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
