"""`twinrun export`: finished records for other trackers, or a whole study as one RO-Crate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from twinrun.cli.options import DEFAULT_PARAMS, ParamsFile, load_params, note_other_study
from twinrun.study.errors import IncompleteError, plural
from twinrun.study.layout import Layout


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
