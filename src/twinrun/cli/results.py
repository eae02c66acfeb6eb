"""Commands for results that a user has, from anywhere: compare, import, power, and a published study read again."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from twinrun.study.errors import IncompleteError, InputError, MismatchError
from twinrun.study.files import refuse_pipe
from twinrun.study.layout import Layout

reanalyze_app = typer.Typer(no_args_is_help=True, help="Read a published study again from its tables alone.")


class Expected(StrEnum):
    """What --expect may ask of B."""

    BETTER = "better"
    EQUIVALENT = "equivalent"
    NOT_WORSE = "not-worse"


def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            help="A and B: a CSV table and two of its columns or groups (results.csv sgd adam --metric f1 --by model); "
            "a table of each (a.csv b.csv --metric f1); two folders of `twinrun twins`; two sets of runs of collected/ "
            "(cifar10/sgd cifar10/adam); one of these and a published number; or two published numbers "
            "(0.912 0.921 --images 2000)."
        ),
    ],
    metric: Annotated[str | None, typer.Option(help="The column, or the metric of twins or study.")] = None,
    by: Annotated[str | None, typer.Option(help="The column that says which group a row is of.")] = None,
    pair: Annotated[str | None, typer.Option(help="The column whose equal values make pairs, such as seed.")] = None,
    margin: Annotated[
        float | None, typer.Option(help="Differences below it do not matter, in the metric's unit.")
    ] = None,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="For an error; a loss is known.")] = False,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="An interval that holds however often you look while runs are added.")
    ] = False,
    images: Annotated[int | None, typer.Option(help="Published numbers: images of the test set.")] = None,
    both_right: Annotated[
        float | None, typer.Option(help="Published numbers: share of images that both get right; default: independent.")
    ] = None,
    sd: Annotated[float | None, typer.Option(help="Published numbers: SD over trainings, in their unit.")] = None,
    expect: Annotated[Expected | None, typer.Option(help="Exit 4 unless B is so.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All numbers as JSON.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a page with a picture of runs and differences (SVG, PNG).")
    ] = None,
) -> None:
    """Say whether B is better than A, they are equivalent, or nobody can tell yet."""
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise InputError(f"--margin is {margin:g}", "give a difference above 0, in the unit of the metric")
    if expect is Expected.EQUIVALENT and margin is None:
        raise InputError("--expect equivalent without --margin", "say which difference does not matter: --margin 0.005")
    commas = [word for word in what if re.fullmatch(r"\d+[.,]\d+", word) and not Path(word).exists()]
    if len(commas) == len(what) and "," in "".join(commas):
        hint = f"write points: {' '.join(commas).replace(',', '.')}"
        raise InputError(f"{' '.join(commas)}: a decimal comma", hint)
    numbers = [_as_number(word) for word in what]
    if len(set(what)) < len(what):
        raise InputError(f"{max(what, key=what.count)} is named twice", "a comparison needs two different things")
    if len(numbers) == 2 and None not in numbers:
        if lower_is_better:
            raise InputError("--lower-is-better with published numbers", "give the shares that are right")
        options = (
            ("--metric", metric),
            ("--by", by),
            ("--pair", pair),
            ("--sequential", sequential or None),
            ("--out", out),
        )
        for name, given in options:
            if given is not None:
                raise InputError(f"{name} is for runs", "two published numbers have none")
        _published([float(word) for word in what], images, both_right, sd, margin, expect, as_json=as_json)
        return
    for name, value in (("--images", images), ("--both-right", both_right), ("--sd", sd)):
        if value is not None:
            raise InputError(f"{name} is for two published numbers", "such as: twinrun compare 0.912 0.921")
    from twinrun.report import comparison, csv_runs, evidence

    for word in what:
        refuse_pipe(Path(word))
    lines: list[str] = []
    if len(what) > 1 and all(word.endswith(".csv") for word in what):
        if by is not None:
            raise InputError("--by with several tables", "each of them is a group; --by is for one table that has all")
        runs = csv_runs.tables_runs([Path(word) for word in what], metric=metric, pair=pair)
    elif what[0].endswith(".csv") or Path(what[0]).is_file():
        runs = csv_runs.table_runs(Path(what[0]), what[1:], metric=metric, by=by, pair=pair)
    else:
        for name, option in (("--by", by), ("--pair", pair)):
            if option is not None:
                raise InputError(f"{name} is for a CSV table", f"{what[0]} is none")
        if len(what) < 2:
            raise InputError(f"{what[0]} alone", "name A and B: see `twinrun compare --help`")
        named, published = evidence.published_of(what, ())
        if all((Path(word) / "twins.json").is_file() for word in named):
            runs = evidence.with_published(evidence.twins_runs([Path(word) for word in named], metric), published)
        else:
            absent = [word for word in named if not (Path(word) / "twins.json").is_file()]
            if len(absent) < len(named):
                raise InputError(f"{absent[0]}: no folder of `twinrun twins`", "the other one is")
            collected = Layout().collected
            if not collected.exists():
                raise InputError(
                    f"{what[0]!r} is no CSV table, no folder of `twinrun twins` and no number",
                    "and there is no collected/ here whose runs it could name",
                )
            runs, lines = evidence.study_runs(collected, what, metric)
    if sequential and min(len(at) for pair in combinations(runs.values, 2) for at in runs.compared(*pair)) == 1:
        raise InputError("--sequential with one run", "it is for pairs of runs that are added")
    compared = comparison.compare_runs(
        runs, lines, margin=margin, lower_is_better=lower_is_better, sequential=sequential
    )
    print(
        comparison.json_text(comparison.compared_json(compared))
        if as_json
        else "\n".join(comparison.sentences(compared))
    )
    if out is not None:
        from twinrun.launch.progress import say
        from twinrun.report.compare_page import write_page

        page = write_page(compared, out)
        say(str(page)) if as_json else print(page)
    if expect is not None:
        pairs = list(compared.comparisons)
        if len(pairs) > 1:
            raise InputError(f"--expect with {len(runs.values)} groups", "it is about two: name them")
        item, verdict = compared.comparisons[pairs[0]], compared.verdict(pairs[0])
        met = {
            Expected.BETTER: verdict.value == "better",
            Expected.EQUIVALENT: item.within_margin,  # one may be better by less than the margin
            Expected.NOT_WORSE: item.not_worse,
        }
        _require(expect, str(verdict), met=met[expect])


def _as_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _published(
    numbers: list[float],
    images: int | None,
    both_right: float | None,
    sd: float | None,
    margin: float | None,
    expect: Expected | None,
    *,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from twinrun.report import comparison
    from twinrun.stats.published import published

    if images is None:
        raise InputError("two published numbers without --images", "how many test images were they measured on?")
    item = published(numbers[0], numbers[1], images, both_right=both_right, sd=sd)
    verdict = comparison.published_verdict(item, margin)
    if as_json:
        print(comparison.json_text({**asdict(item), "difference": item.difference, "verdict": str(verdict)}))
    else:
        print("\n".join(comparison.published_words(item, margin)))
    if expect is not None:
        met = {
            Expected.BETTER: verdict.value == "better",
            Expected.EQUIVALENT: margin is not None and max(-item.low, item.high) < margin,
            Expected.NOT_WORSE: item.low > -(margin or 0.0),
        }
        _require(expect, str(verdict), met=met[expect])


def _require(expect: Expected, verdict: str, *, met: bool) -> None:
    if not met:
        raise MismatchError(f"expected B to be {expect.value}: the verdict is {verdict!r}", "the numbers are above")


def import_results(
    what: Annotated[
        list[Path],
        typer.Argument(
            help="Tables (.csv, .csv.gz, .parquet, .npz) with a row for each run and example, or a row a run with its "
            "metrics; or folders of `twinrun twins`."
        ),
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="ROLE=NAME where a column is not called as its role: model=arch, or several that together are one, "
            "model=arch,width. Roles: task, model, seed, arm, run, example, label, prediction."
        ),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="A row a run: the main metric, a share in [0, 1].")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Predicted classes in order, such as cat,dog; of two the second is the positive.")
    ] = None,
    predictions: Annotated[
        str | None, typer.Option(help="Folders of twins: the file of predictions of each twin, such as out/test.csv.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the study; the results go to its collected/.")] = Path(),
) -> None:
    """Make a study of results from anywhere, for report, compare, power and twinrun.load.

    Columns: example, label, and prediction or p_<class> for each class (a row for each run and example), or accuracy,
    f1, auc, loss (a row a run); what tells runs apart stands in task, model, seed, arm and run. More: docs/import.md.
    """
    from twinrun.collect.importing import Source, import_results, twins_sources
    from twinrun.collect.tables import parse_columns
    from twinrun.launch.progress import Progress

    for path in what:
        refuse_pipe(path)
    folders = [path for path in what if path.is_dir()]
    if predictions is not None and not folders:
        raise InputError("--predictions is for folders of `twinrun twins`", f"{what[0]} is none")
    sources = [
        source for path in what for source in (twins_sources(path, predictions) if path.is_dir() else [Source(path)])
    ]
    name = out.resolve().name if folders or len(what) > 1 else what[0].name.partition(".")[0]
    order = [part.strip() for part in classes.split(",")] if classes else []
    with Progress("import", len(sources)) as bar:
        summary = import_results(
            sources, Layout(out).collected, study=name, named=parse_columns(column or []), metric=metric, classes=order,
            progress=bar.update,
        )  # fmt: skip
    print("\n".join(summary.sentences))
    where = "" if out == Path() else f" in {out}"
    print(f"{summary.folder}: `twinrun analyze` and `twinrun report`{where} make the page")


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
    from twinrun.stats.power import MOST, positive

    for name, size in (("--difference", difference), ("--margin", margin), ("--sd-ratio", sd_ratio)):
        if size is not None:
            positive(name, size)
    if not 0 < precision <= 1:
        raise InputError(f"--precision is {precision:g}", "it is a share, above 0 and at most 1; 0.25: known to 25 %")
    if not 0 < wanted_power < 1:
        raise InputError(f"--power is {wanted_power:g}", "it is a chance, above 0 and below 1; 0.8: found in 80 %")
    if runs is not None and not 2 <= runs <= MOST:
        raise InputError(f"--n is {runs}", f"give a number of runs from 2 to {MOST:,}")
    if correlation is not None and not -1 <= correlation < 1:
        raise InputError(f"--correlation is {correlation:g}", "give a number from -1 to below 1")
    if alpha is not None and not 0 < alpha < 0.5:
        raise InputError(f"--alpha is {alpha:g}", "give a level above 0 and below 0.5")
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
    wanted = replace(
        wanted, precision=precision, power=wanted_power, runs=runs, correlation=correlation, sd_ratio=sd_ratio,
        true_difference=true_difference,
    )  # fmt: skip
    if margin is not None:
        wanted = replace(wanted, margin=margin, difference=margin)
    if difference is not None:
        wanted = replace(wanted, difference=difference)
    if alpha is not None:
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
