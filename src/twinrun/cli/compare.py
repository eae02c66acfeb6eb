"""`twinrun compare`: is the difference between two sets of runs, or two published numbers, real?"""

from __future__ import annotations

import sys
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from twinrun.study.errors import InputError, MismatchError
from twinrun.study.files import refuse_pipe
from twinrun.study.layout import Layout


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
    if margin is not None and not margin > 0:
        raise InputError(f"--margin is {margin:g}", "give a difference above 0, in the unit of the metric")
    if expect is Expected.EQUIVALENT and margin is None:
        raise InputError("--expect equivalent without --margin", "say which difference does not matter: --margin 0.005")
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
    from twinrun.report import comparison, evidence

    for word in what:
        refuse_pipe(Path(word))
    lines: list[str] = []
    if len(what) > 1 and all(word.endswith(".csv") for word in what):
        if by is not None:
            raise InputError("--by with several tables", "each of them is a group; --by is for one table that has all")
        runs = evidence.tables_runs([Path(word) for word in what], metric=metric, pair=pair)
    elif what[0].endswith(".csv") or Path(what[0]).is_file():
        runs = evidence.table_runs(Path(what[0]), what[1:], metric=metric, by=by, pair=pair)
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
        from twinrun.report.compare_page import write_page

        page = write_page(compared, out)
        print(page, file=sys.stderr if as_json else sys.stdout)
    if expect is not None:
        pairs = list(compared.comparisons)
        if len(pairs) > 1:
            raise InputError(f"--expect with {len(runs.values)} groups", "it is about two: name them")
        item, verdict = compared.comparisons[pairs[0]], compared.verdict(pairs[0])
        met = item.not_worse if expect is Expected.NOT_WORSE else str(verdict) == expect.value
        _require(expect, str(verdict), met=met)


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
        met = item.low > -(margin or 0.0) if expect is Expected.NOT_WORSE else str(verdict) == expect.value
        _require(expect, str(verdict), met=met)


def _require(expect: Expected, verdict: str, *, met: bool) -> None:
    if not met:
        raise MismatchError(f"expected B to be {expect.value}: the verdict is {verdict!r}", "the numbers are above")
