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
            "each twin. The program finds the seed in TWINRUN_SEED and the arm in TWINRUN_ARM; compilers get an "
            "empty cache."
        ),
    ] = "det",
    outputs: Annotated[
        list[str] | None,
        typer.Option(help="Files to compare: 'out/*.safetensors'. Default without --metric: all that it wrote."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A number to compare: FILE.json:KEY, the last value of FILE.csv:COLUMN, or log:WORD for the number "
            "after the last WORD that the program printed. FILE may be a pattern."
        ),
    ] = None,
    log: Annotated[
        bool | None, typer.Option("--log/--no-log", help="Compare what it printed. Default: as for all that it wrote.")
    ] = None,
    load: Annotated[bool, typer.Option(help="Keep every core busy while every second twin runs.")] = False,
    share_caches: Annotated[bool, typer.Option(help="Let twins share what compilers cached.")] = False,
    self_test: Annotated[bool, typer.Option(help="Show that planted differences would be seen.")] = False,
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
    from twinrun.twins.metrics import metric_parts
    from twinrun.twins.running import Plan

    for pattern in outputs or []:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise InputError(f"--outputs {pattern!r} leaves the twin's folder", "patterns are relative to that folder")
        _check_pattern("--outputs", pattern, pattern)
    for wanted in metric or []:
        name = Path(metric_parts(wanted)[0])
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"--metric {wanted!r} leaves the twin's folder", "files are relative to that folder")
        _check_pattern("--metric", wanted, str(name))
    everything = not outputs and not metric
    plan = Plan(command, Path(), out, outputs or [], link or [], seconds, load, share_caches)
    with _says_what_is_left(out):
        code = _run(plan, metric or [], arm, seed, count, log=everything if log is None else log, self_test=self_test)
    if code:
        raise typer.Exit(code)


def _check_pattern(option: str, given: str, pattern: str) -> None:
    try:
        any(Path("/nowhere").glob(pattern))
    except ValueError as error:
        said = f"{option} {given!r}: no pattern of files ({error})"
        raise InputError(said, "such as 'out/*.pt' or '**/*.pt'") from error


@contextmanager
def _says_what_is_left(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if out.exists():
            print(f"twinrun: the twins so far are in {out}: remove it before the same command", file=sys.stderr)
        raise


def _run(plan: Plan, metric: list[str], arm: str, seed: int, count: int, *, log: bool, self_test: bool) -> int:
    """Run, compare and report; the exit code."""
    from twinrun.launch.progress import Progress
    from twinrun.twins import arms, comparing
    from twinrun.twins.metrics import compare_metric
    from twinrun.twins.reporting import Result, sentences, write_result
    from twinrun.twins.running import Twin, run_twins

    seeds = arms.seeds(arm, seed, count)
    with Progress("twins", count) as progress:

        def note(twin: Twin) -> None:
            progress.advance(f"{twin.seconds:.1f} s" + (" failed" if twin.problem else ""))

        twins = run_twins(plan, [arms.environment(arm, each, os.environ) for each in seeds], seeds, note)
    finished = [twin for twin in twins if not twin.problem or (twin.code == 0 and twin.written_outside)]
    files, metrics, bad, tested = [], [], [], []
    if len(finished) > 1:
        everything = not plan.outputs and not metric and any(any(twin.folder.iterdir()) for twin in finished)
        try:
            patterns = ["**/*"] if everything else plan.outputs
            files = comparing.compare_files(finished, patterns, log=log)
        except InputError as error:
            bad.append(str(error))
        for wanted in metric:
            result, problems = compare_metric(finished, wanted)
            metrics += [result] if result else []
            bad += problems
        if not (files or metrics or bad):
            bad.append("nothing to compare: the twins wrote no file")
        tested = comparing.self_test(finished, files) if self_test else []
    summary = Result(plan, arm, twins, files, metrics, bad, tested)
    page = write_result(summary)
    print("\n".join(sentences(summary)))
    print(page)
    return summary.exit_code
