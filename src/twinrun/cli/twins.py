"""`twinrun twins`: any program run several times and compared."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twinrun.study.errors import InputError

if TYPE_CHECKING:  # heavy to import
    from twinrun.twins.running import Plan


def twins(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments, after `--`.")],
    count: Annotated[int, typer.Option("-n", "--count", min=2, help="How many twins.")] = 5,
    arm: Annotated[
        str,
        typer.Option(
            help="det: the same seed and the pinned environment (one thread, the same vector instructions and cuBLAS "
            "workspace; study/pins.py lists them). nd: the same seed, the environment as it is. all: a fresh seed for "
            "each twin. The program finds the seed in TWINRUN_SEED and the arm in TWINRUN_ARM; nothing else is changed."
        ),
    ] = "det",
    outputs: Annotated[
        list[str] | None, typer.Option(help="Files to compare, relative to the twin's folder: 'out/*.safetensors'.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A number to compare: FILE.json:KEY, or the last row of FILE.csv:COLUMN.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Time limit of one twin.")] = None,
    seed: Annotated[int, typer.Option(help="The seed that twins share in det and nd.")] = 0,
    link: Annotated[
        list[str] | None, typer.Option(help="Folder or file that twins only read: linked, not copied.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results; it must not exist.")] = Path("twins"),
) -> None:
    """Run a program N times in fresh processes and folders and say whether its twins are identical.

    Each twin runs in a fresh copy of the current folder; what it writes there is kept in OUT. Exit 0: every output has
    the same contents and every metric the same bits; 4: something differs; 3: a twin failed; 2: a mistake in the call,
    or a program that writes into the current folder itself.
    """
    from twinrun.twins.comparing import metric_parts
    from twinrun.twins.running import Plan

    if not outputs and not metric:
        raise InputError(
            "nothing to compare", "name files with --outputs 'PATTERN', or a number with --metric FILE:KEY"
        )
    for pattern in outputs or []:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise InputError(f"--outputs {pattern!r} leaves the twin's folder", "patterns are relative to that folder")
    for wanted in metric or []:
        name = Path(metric_parts(wanted)[0])
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"--metric {wanted!r} leaves the twin's folder", "files are relative to that folder")
    with _says_what_is_left(out):
        code = _run(Plan(command, Path(), out, outputs or [], link or [], seconds), metric or [], arm, seed, count)
    if code:
        raise typer.Exit(code)


@contextmanager
def _says_what_is_left(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if out.exists():
            print(f"twinrun: the twins so far are in {out}: remove it before the same command", file=sys.stderr)
        raise


def _run(plan: Plan, metric: list[str], arm: str, seed: int, count: int) -> int:
    """Run, compare and report; the exit code."""
    from twinrun.launch.progress import Progress
    from twinrun.twins import arms
    from twinrun.twins.comparing import compare_files, compare_metric
    from twinrun.twins.reporting import Result, sentences, write_result
    from twinrun.twins.running import Twin, run_twins

    drawn = arms.seeds(arm, seed, count)
    with Progress("twins", count) as progress:

        def note(twin: Twin) -> None:
            progress.advance(f"{twin.seconds:.1f} s" + (" failed" if twin.problem else ""))

        run = run_twins(plan, [arms.environment(arm, one, os.environ) for one in drawn], drawn, note)
    finished = [twin for twin in run if not twin.problem or (twin.code == 0 and twin.written_outside)]
    bad: list[str] = []
    try:
        files = compare_files(finished, plan.outputs) if len(finished) > 1 else []
    except InputError as error:
        files, bad = [], [str(error)]
    metrics = []
    for wanted in metric if len(finished) > 1 else []:
        found, problems = compare_metric(finished, wanted)
        metrics += [found] if found else []
        bad += problems
    result = Result(plan, arm, run, files, metrics, bad)
    page = write_result(result)
    print("\n".join(sentences(result)))
    print(page)
    return result.exit_code
