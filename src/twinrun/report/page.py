"""One self-contained HTML page and a short text version, from the analysis and the collected study."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from twinrun.collect.study import Study, load_study
from twinrun.report.build import ANALYSIS_SCHEMA
from twinrun.report.names import procedural_words
from twinrun.report.rendering import column, columns_shown, markdown_table
from twinrun.report.sections import findings
from twinrun.report.sections.guidelines import guidelines
from twinrun.report.sections.parting import parting_sentences
from twinrun.report.sections.provenance import provenance
from twinrun.report.table import missing, shown
from twinrun.study.errors import InputError, MismatchError
from twinrun.study.files import explain_os_error, read_json, write_text

AGAIN = "run `twinrun analyze` again"
_BACKTICKS = re.compile(r"`([^`]+)`")
NONE_DECIDED = "The numbers of this study decide none of the rules."
_LONG = 40  # rows; a longer table is folded
_MAIN_TABLES = ("determinism_arms", "summary", "churn_arms", "sources")  # in report.md, beside Tables 5.1-5.3


def write_report(analysis: Path, collected: Path, out: Path) -> Path:
    """Write `out`/index.html and `out`/report.md; returns the path of the page.

    Raises InputError or MismatchError when files are missing or the analysis is that of another study.
    """
    study = load_study(collected)
    index = _read_index(analysis, study)
    frames = {entry["name"]: _read_table(analysis / entry["file"]) for entry in index["tables"]}
    environment = Environment(
        loader=PackageLoader("twinrun.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = _code
    context = _context(study, index, frames, analysis)
    page = environment.get_template("report.html.j2").render(context)
    write_text(out / "report.md", _markdown(study, index, frames))
    write_text(out / "index.html", page)
    return out / "index.html"


def _code(text: str) -> Markup:
    """Escape `text` and set what stands between backticks as code."""
    return Markup(_BACKTICKS.sub(r"<code>\1</code>", str(escape(text))))


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
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", AGAIN) from error
    except ValueError as error:
        raise MismatchError(f"{path}: cannot be read ({' '.join(str(error).split())})", AGAIN) from error


def _context(study: Study, index: dict[str, Any], frames: findings.Frames, analysis: Path) -> dict[str, Any]:
    return {
        "study": study.info["study"],
        "procedural": procedural_words(study),
        "design": findings.design(study),
        "arms": findings.arms(study),
        "diverged": study.info["diverged"],
        "determinism": findings.determinism(frames),
        "results": findings.results(study, frames),
        "churn": findings.churn(study, frames) + findings.hidden(study, frames),
        "weights": findings.weights(study, frames),
        "parting": parting_sentences(frames["parting"]),
        "parting_figures": _drawn(index, "parting_"),
        "guidelines": guidelines(study, frames),
        "cost": findings.cost(study, frames),
        "provenance": provenance(study),
        "holds": _between(index, "spread", "thesis"),
        "tables": {
            entry["name"]: _table(entry, frames[entry["name"]])
            for entry in index["tables"]
            if not entry["for_programs"]
        },
        "figures": {entry["name"]: _figure(entry, analysis) for entry in index["figures"]},
        "tasks": study.tasks,
        "sd_figures": _drawn(index, "sd_"),
        "runtime_figures": _drawn(index, "runtime_"),
        "difference_figures": _drawn(index, "difference_"),
        "picture_figures": _drawn(index, "pictures_"),
        "optimizers": study.optimizers,
    }


def _between(index: dict[str, Any], before: str, after: str) -> list[str]:
    """Names of the tables that stand between two others: those of the tests and intervals."""
    names = [entry["name"] for entry in index["tables"]]
    return names[names.index(before) + 1 : names.index(after)]


def _files(entry: dict[str, Any]) -> str:
    """`tables/spread.csv, .tex, .md`."""
    first, *others = entry["files"]
    return ", ".join([first, *(f".{name.rpartition('.')[2]}" for name in others)])


def _drawn(index: dict[str, Any], prefix: str) -> list[str]:
    """Names of the figures of one kind, in the order of the tasks as the tables have it."""
    return [entry["name"] for entry in index["figures"] if entry["name"].startswith(prefix)]


def _table(entry: dict[str, Any], frame: pd.DataFrame) -> dict[str, Any]:
    columns = columns_shown(frame)
    head = [
        {"label": reads.label, "meaning": reads.meaning, "number": bool(reads.form)} for reads in map(column, columns)
    ]
    rows = [
        [{"text": shown(name, row[name]), "sort": "" if missing(row[name]) else str(row[name])} for name in columns]
        for row in frame.to_dict("records")
    ]
    return {**entry, "files": _files(entry), "head": head, "body": rows, "folded": len(rows) > _LONG}


def _figure(entry: dict[str, Any], analysis: Path) -> dict[str, Any]:
    path = analysis / next(name for name in entry["files"] if name.endswith(".svg"))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise explain_os_error(error, path) from error
    # As an image, not inline: element ids of two figures would clash on one page.
    return {
        **entry,
        "files": _files(entry),
        "source": "data:image/svg+xml;base64," + base64.b64encode(content).decode(),
    }


def _markdown(study: Study, index: dict[str, Any], frames: findings.Frames) -> str:
    lines = [f"# Report of the study `{study.info['study']}`", ""]
    if procedural_words(study):
        lines += [f"**{procedural_words(study)}**", ""]
    lines += [*findings.design(study), ""]
    lines += [f"- `{arm}`: {words}" for arm, words in findings.arms(study)]
    for title, sentences in (
        ("Determinism verified?", findings.determinism(frames)),
        ("Results", findings.results(study, frames)),
        ("Predictions", findings.churn(study, frames) + findings.hidden(study, frames)),
        ("Weights", findings.weights(study, frames)),
        ("Where the runs part", parting_sentences(frames["parting"])),
        ("Runtime, energy, carbon", findings.cost(study, frames)),
    ):
        lines += ["", f"## {title}", "", *(f"- {sentence}" for sentence in sentences)]
    lines += ["", "## Guidelines", ""]
    lines += [f"- {one.advice} {one.ground}" for one in guidelines(study, frames)] or [f"- {NONE_DECIDED}"]
    lines += ["", "## Main tables"]
    for entry in index["tables"]:
        main = entry["name"] in _MAIN_TABLES or entry["name"].startswith("performance_")
        if main and len(frames[entry["name"]]):
            name = f"{entry['thesis_name']}. " if entry["thesis_name"] else ""
            lines += ["", f"### {name}{entry['title']}", "", *markdown_table(frames[entry["name"]])]
            lines += ["", entry["caption"]]
    lines += ["", "## Provenance", "", *(f"- {what}: {value}" for what, value in provenance(study))]
    return "\n".join(lines) + "\n"
