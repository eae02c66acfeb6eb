"""Where a report's numbers come from: digests, versions, hardware, dates, runs that diverged or were resumed."""

from __future__ import annotations

import pandas as pd

from twinrun.collect.study import Study
from twinrun.report.names import network
from twinrun.report.section import Draft, Section
from twinrun.study.errors import plural

_SHOWN = 6


def _distinct(values: pd.Series) -> str:
    texts = sorted({str(value) for value in values.dropna()})
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more if texts else "not recorded"


def _ids(ids: list[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"{len(ids)}: {', '.join(ids[:_SHOWN])}{more}" if ids else "none"


def _noise_by_device(study: Study) -> str:
    """`cpu: det none, nd reorder`, devices apart by a semicolon."""
    texts = []
    for device, runs in study.results.groupby("device"):
        kinds = runs.groupby("arm", sort=False)["noise"].unique()
        texts.append(f"{device}: " + ", ".join(f"{arm} {' and '.join(noise)}" for arm, noise in kinds.items()))
    return "; ".join(texts)


def provenance(study: Study) -> list[tuple[str, str]]:
    """Pairs of what and value, in the order of the report."""
    if study.imported:
        return _imported(study)
    info, measured = study.info, study.measured
    resumed = measured["resumed"].astype(str).eq("True")
    complete = int((study.results["status"] == "complete").sum())
    rows = [
        ("Runs", f"{len(study.results)} in the grid, {complete} complete, none missing"),
        ("Diverged", "; ".join(f"{run}: {note}" for run, note in info["diverged"].items()) or "none"),
        ("Resumed after an interruption", _ids(measured.loc[resumed, "id"].tolist())),
        ("Grid digest (params)", info["grid_digest"]),
        ("Code digest", info["code_digest"]),
    ]
    for task in study.tasks:
        described = info["tasks"][task]
        model = info["params"][task]["model"]
        classes = ", ".join(map(str, described["classes"]))
        rows += [
            (
                f"{study.title(task)}: data",
                f"{described['n_train']} training and {described['n_test']} test images of "
                f"{len(described['classes'])} classes ({classes}); digest {described['data_digest']}"
                + ("; drawn by a program, not photographed" if described["procedural"] else ""),
            ),
            (
                f"{study.title(task)}: model",
                f"{network(model)}, {info['parameter_counts'][task]} parameters, "
                + plural(info["params"][task]["recipe"]["epochs"], "epoch"),
            ),
        ]
    execution = info["execution"]
    rows += [
        ("Execution asked for", ", ".join(f"{key} {value}" for key, value in sorted(execution.items()))),
        ("Device and noise in fact", _noise_by_device(study)),
    ]
    if "started" in measured and "finished" in measured:
        rows.append(("Trained", f"{measured['started'].dropna().min()} to {measured['finished'].dropna().max()} (UTC)"))
    for prefix, word in (("versions.", "Version"), ("host.", "Host"), ("environment.", "Variable")):
        rows += [
            (f"{word}: {column.removeprefix(prefix)}", _distinct(measured[column]))
            for column in measured.columns
            if column.startswith(prefix)
        ]
    return rows


def _imported(study: Study) -> list[tuple[str, str]]:
    imported = study.imported or {}
    rows = [("Runs", f"{len(study.results)} imported"), ("Digest of the study", study.digest)]
    rows += [(f"File {file['name']}", f"SHA-256 {file['sha256']}") for file in imported["files"]]
    rows += [(f"Column of {role}", ", ".join(names)) for role, names in imported["columns"].items()]
    rows.append(("Columns that were not read", ", ".join(imported["unread"]) or "none"))
    for task in study.tasks:
        if study.records("predictions"):
            classes = study.classes(task)
            said = f"{study.info['tasks'][task]['n_test']} examples of {len(classes)} classes ({', '.join(classes)})"
            rows.append((f"{study.title(task)}: data", said))
    return rows


def sentences(draft: Draft) -> list[str]:
    """Each as `**what**: value`."""
    return [f"**{what}**: {value}" for what, value in provenance(draft.study)]


SECTION = Section(
    "provenance",
    "Provenance",
    about=(
        "Every number on this page is computed from the collected files by `twinrun analyze` and `twinrun report`; the "
        "tables lie beside it as CSV, the figures as SVG and PNG."
    ),
    sentences=sentences,
)
