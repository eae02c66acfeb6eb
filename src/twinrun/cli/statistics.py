"""Commands that calculate without training: how many runs to plan, and published tables read again."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from twinrun.study.errors import IncompleteError, InputError
from twinrun.study.layout import Layout

reanalyze_app = typer.Typer(no_args_is_help=True, help="Read a published study again from its tables alone.")


def power(
    twins: Annotated[
        Path | None, typer.Argument(help="Folder of `twinrun twins`; default: collected/, or the SDs of --sd.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="The metric of the twins, if they have several.")] = None,
    sd: Annotated[
        list[float] | None,
        typer.Option(help="SD over runs, in the unit of --difference and --margin: 0.062 and 0.005, or 6.2 and 0.5."),
    ] = None,
    difference: Annotated[
        float | None,
        typer.Option(
            help="Difference of two models to show: in points for a study, else in the SD's unit; default: the margin."
        ),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Equivalence margin, in the same unit; default: that of the study's params.")
    ] = None,
    true_difference: Annotated[
        float, typer.Option(help="Equivalence: how far apart the models truly are, in the same unit.")
    ] = 0.0,
    runs: Annotated[
        int | None, typer.Option("--n", help="Runs of each model that you have: what can they show?")
    ] = None,
    correlation: Annotated[
        float | None, typer.Option(help="Plan pairs, too: how far two runs of one seed correlate (`compare` says it).")
    ] = None,
    sd_ratio: Annotated[float | None, typer.Option(help="Ratio of two SDs to show.")] = None,
    precision: Annotated[float, typer.Option(help="Wanted precision of an SD; 0.25: known to 25 %.")] = 0.25,
    alpha: Annotated[
        float | None, typer.Option(help="Level of the tests; default: that of the params, or 0.05.")
    ] = None,
    wanted_power: Annotated[float, typer.Option("--power", help="Chance of finding what is there.")] = 0.8,
) -> None:
    """Say how many runs a difference, an equivalence margin or an SD takes, or what the runs that you have can show."""
    from twinrun.collect.study import load_study
    from twinrun.report import planning
    from twinrun.stats.power import positive

    for name, size in (("--difference", difference), ("--margin", margin)):
        if size is not None:
            positive(name, size)
    if twins is not None and sd:
        raise InputError(f"{twins} and --sd", "give one of them")
    if metric is not None and twins is None:
        raise InputError(f"--metric {metric} without a folder of twins", "a study has a main metric for each task")
    if not math.isfinite(true_difference):
        raise InputError(f"--true-difference is {true_difference:g}", "give a number")
    if sd:
        sources, wanted = planning.given_sources(sd), planning.Wanted()
    elif twins is not None:
        sources, wanted = planning.twins_sources(twins, metric), planning.Wanted()
    else:
        if not Layout().collected.exists():
            raise IncompleteError(
                "there is no collected/ here",
                "run `twinrun collect` in the study, name a folder of `twinrun twins`, or give an SD and a difference "
                "in one unit: --sd 0.012 --difference 0.005",
            )
        study = load_study(Layout().collected)
        sources, wanted = planning.study_sources(study), planning.study_wanted(study)
    if precision > 1:
        raise InputError(f"--precision is {precision:g}", "it is a share, above 0 and at most 1; 0.25: known to 25 %")
    if not 0 < wanted_power < 1:
        raise InputError(f"--power is {wanted_power:g}", "it is a chance, above 0 and below 1; 0.8: found in 80 %")
    if runs is not None and runs < 2:
        raise InputError(f"--n is {runs}", "two runs of each model are the least")
    if correlation is not None and not -1 <= correlation < 1:
        raise InputError(f"--correlation is {correlation:g}", "give a number from -1 to below 1")
    wanted = replace(
        wanted, precision=precision, power=wanted_power, runs=runs, correlation=correlation, sd_ratio=sd_ratio,
        true_difference=true_difference,
    )  # fmt: skip
    if margin is not None:
        wanted = replace(wanted, margin=margin, difference=margin)
    if difference is not None:
        wanted = replace(wanted, difference=difference)
    if alpha is not None:
        if not 0 < alpha < 0.5:
            raise InputError(f"--alpha is {alpha:g}", "give a level above 0 and below 0.5")
        wanted = replace(wanted, alpha=alpha)
    if wanted.power <= wanted.alpha:
        said = f"--power {wanted.power:g} at a level of {wanted.alpha:g}"
        raise InputError(said, "the chance of finding what is there must be above the level")
    print(planning.plan_text(sources, wanted))


@reanalyze_app.command("thesis")
def reanalyze_thesis(
    out: Annotated[Path | None, typer.Option(help="Folder for cells.csv, checks.csv and reanalysis.md.")] = None,
) -> None:
    """Read the thesis's published tables again: what holds of them, and which printed numbers do not fit."""
    from twinrun.report.thesis import reanalysis

    reanalyzed = reanalysis.reanalyze_thesis()
    for sentence in reanalyzed.summary:
        print(sentence)
    for _, row in reanalyzed.mistakes.iterrows():
        print(f"FAIL {row['where']}: {row['what']}: printed {row['printed']:.5g}, recomputed {row['recomputed']:.5g}")
    if out:
        for path in reanalysis.write_reanalysis(reanalyzed, out):
            print(path)


@reanalyze_app.callback()
def _reanalyze() -> None:
    # A group even while it has one command: other published studies are to follow.
    pass
