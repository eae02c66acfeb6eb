"""Commands from records to the report, and out to other tools: collect, analyze, report, export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from twinrun.cli.options import DEFAULT_PARAMS, ParamsFile, load_params, note_other_study, require_same_analysis
from twinrun.study.errors import IncompleteError, plural
from twinrun.study.layout import Layout


def collect(
    params_file: ParamsFile = DEFAULT_PARAMS,
    check: Annotated[bool, typer.Option(help="Only check that every run is there and fits.")] = False,
) -> None:
    """Gather exactly the grid's records into collected/."""
    from twinrun.collect.collect import collect as run_collect
    from twinrun.launch.progress import Progress
    from twinrun.study.records import current_code_digest

    require_same_analysis()
    params, code = load_params(params_file), current_code_digest()
    with Progress("collect", len(params.runs)) as bar:
        summary = run_collect(params, Layout(), code_digest=code, check_only=check, progress=bar.update)
    print(summary.sentence)


def analyze() -> None:
    """Make tables, statistics and figures from collected/."""
    from twinrun.launch.progress import Progress
    from twinrun.report.build import analyze as run_analyze

    require_same_analysis()
    note_other_study()
    layout = Layout()
    with Progress("analyze", 1) as bar:
        run_analyze(layout.collected, layout.analysis, bar.update)
    print(f"tables and figures in {layout.analysis}")


class Checklist(StrEnum):
    """Whose paragraph --statement prints."""

    NEURIPS = "neurips"
    CLAIM = "claim"


def report(
    statement: Annotated[
        Checklist | None,
        typer.Option(
            help="Print the paragraph for a paper instead: NeurIPS's error bars, CLAIM's robustness and size."
        ),
    ] = None,
) -> None:
    """Write report/index.html from analysis/ and collected/, or print the words that a checklist asks for."""
    layout = Layout()
    if statement is not None:
        from twinrun.collect.study import load_study
        from twinrun.report.section import Draft
        from twinrun.report.sections.statement import statement as words

        print("\n\n".join(words(Draft(load_study(layout.collected)), statement.value)))
        return
    from twinrun.report.page import write_report

    require_same_analysis()
    note_other_study()
    print(write_report(layout.analysis, layout.collected, layout.report))


def export(
    to: Annotated[
        str, typer.Option("--to", help="tensorboard, wandb (offline), mlflow (SQLite) or ro-crate; each is an extra.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write into; default: export/<target>.")] = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Write finished runs, and the tables and figures of analysis/, for another tracker; exit 3 when runs are missing.

    What was exported before is left as it is. Nothing is sent anywhere. An RO-Crate is one folder with records, tables,
    figures, params, code and their digests; `twinrun verify` works in it.
    """
    from twinrun.export.exporting import CRATE, pack
    from twinrun.export.exporting import export as run_export
    from twinrun.launch.progress import Progress

    params = load_params(params_file)
    note_other_study()
    folder = out or Layout().export(to)
    if to == CRATE:
        from twinrun.export.crate import METADATA
        from twinrun.study.files import sha256_file

        summary = pack(params, params_file, Layout(), folder)
        print(f"{folder / METADATA}: SHA-256 {sha256_file(folder / METADATA)} stands for all that is in the crate")
        if not (folder / "LICENSE").is_file():
            print("there is no LICENSE in the study folder, so the crate states none: add one and export again")
    else:
        with Progress(f"export to {to}", 0) as progress:

            def note(name: str, place: int, total: int) -> None:
                progress.update(place, total)

            summary = run_export(params, Layout(), to, folder, note)
    shown = f", {summary.tables} tables, {summary.figures} figures"
    print(
        f"{folder}: {plural(summary.added, 'run')} added, {summary.there} were there already"
        f"{shown if summary.tables else '; no tables and figures: there is no analysis/ yet'}"
    )
    if summary.left_out:
        lines = "\n".join(f"  {run}: {why}" for run, why in list(summary.left_out.items())[:10])
        more = f"\n  and {len(summary.left_out) - 10} more" if len(summary.left_out) > 10 else ""
        raise IncompleteError(
            f"{len(summary.left_out)} of {len(params.runs)} runs were left out:\n{lines}{more}",
            "`twinrun sweep` trains what is missing; the same export then adds it",
        )
