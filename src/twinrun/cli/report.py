"""Commands from records to the report: collect, analyze, report."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from twinrun.cli.options import DEFAULT_PARAMS, ParamsFile, load_params, note_other_study, require_same_analysis
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
