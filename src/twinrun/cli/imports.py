"""`twinrun import`: results that were made elsewhere become a study that report, compare and power read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twinrun.study.errors import InputError
from twinrun.study.files import refuse_pipe
from twinrun.study.layout import Layout


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
