"""Commands that calculate without training: how many runs to plan, and published tables read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from twinrun.study.errors import IncompleteError, InputError
from twinrun.study.layout import Layout

reanalyze_app = typer.Typer(no_args_is_help=True, help="Read a published study again from its tables alone.")


def power(
    sd: Annotated[
        list[float] | None, typer.Option(help="SD of identical runs, in points; default: those of collected/.")
    ] = None,
    precision: Annotated[float, typer.Option(help="Wanted precision of an SD; 0.25: known to 25 %.")] = 0.25,
    difference: Annotated[
        float | None, typer.Option(help="Difference of means to find, in points; default: the margin.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Equivalence margin, in points; default: that of the params, or 0.5.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Level of the tests; default: that of the params, or 0.05.")
    ] = None,
    wanted_power: Annotated[float, typer.Option("--power", help="Chance of finding what is there.")] = 0.8,
) -> None:
    """Say how many replicates a wanted precision, difference or equivalence margin takes."""
    from twinrun.collect.study import load_study
    from twinrun.report.planning import Wanted, check_sds, plan_text, study_sds, study_wanted

    if sd:
        sds, wanted = check_sds(sd), Wanted()
    else:
        if not Layout().collected.exists():
            raise IncompleteError(
                "there is no collected/ here", "run `twinrun collect` in the study, or give an SD: --sd 0.2"
            )
        study = load_study(Layout().collected)
        sds, wanted = study_sds(study), study_wanted(study)
    if precision > 1:
        raise InputError(f"--precision is {precision:g}", "it is a share, above 0 and at most 1; 0.25: known to 25 %")
    wanted = replace(wanted, precision=precision, power=wanted_power)
    if margin is not None:
        wanted = replace(wanted, margin=margin, difference=margin)
    if difference is not None:
        wanted = replace(wanted, difference=difference)
    if alpha is not None:
        if not 0 < alpha < 0.5:
            raise InputError(f"--alpha is {alpha:g}", "give a level above 0 and below 0.5")
        wanted = replace(wanted, alpha=alpha)
    print(plan_text(sds, wanted))


@reanalyze_app.command("thesis")
def reanalyze_thesis(
    out: Annotated[Path | None, typer.Option(help="Folder for cells.csv, checks.csv and reanalysis.md.")] = None,
) -> None:
    """Read the thesis's published tables again: what holds of them, and which printed numbers do not fit."""
    from twinrun.report.thesis import reanalysis

    found = reanalysis.reanalyze_thesis()
    for sentence in found.summary:
        print(sentence)
    for _, row in found.mistakes.iterrows():
        print(f"FAIL {row['where']}: {row['what']}: printed {row['printed']:.5g}, recomputed {row['recomputed']:.5g}")
    if out:
        for path in reanalysis.write_reanalysis(found, out):
            print(path)


@reanalyze_app.callback()
def _reanalyze() -> None:
    # A group even while it has one command: other published studies are to follow.
    pass
