"""`twinrun twins`: any program run several times and compared."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twinrun.cli.options import MOST_SECONDS
from twinrun.study.errors import InputError

if TYPE_CHECKING:  # heavy to import
    from twinrun.twins.interrupting import Interrupt
    from twinrun.twins.reporting import Result
    from twinrun.twins.running import Plan


def twins(
    command: Annotated[list[str], typer.Argument(help="The program and its arguments, after `--`.")],
    count: Annotated[int, typer.Option("-n", "--count", min=2, max=10_000, help="How many twins.")] = 5,
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
    interrupt: Annotated[
        str | None,
        typer.Option(
            help="Is the resume exact? Twins after the second are stopped at this moment and started again: random, "
            "seconds such as 20, or 'log:TEXT' as soon as TEXT is printed."
        ),
    ] = None,
    signal: Annotated[str | None, typer.Option(help="With --interrupt: the signal that stops. Default: TERM.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="With --interrupt: the command that goes on. Default: the same one.")
    ] = None,
    share_caches: Annotated[bool, typer.Option(help="Let twins share what compilers cached.")] = False,
    self_test: Annotated[bool, typer.Option(help="Show that planted differences would be seen.")] = False,
    seconds: Annotated[float | None, typer.Option(min=0.1, max=MOST_SECONDS, help="Time limit of one twin.")] = None,
    seed: Annotated[int, typer.Option(help="The seed that twins share in det and nd.")] = 0,
    link: Annotated[
        list[str] | None, typer.Option(help="Folder or file that twins only read: linked, not copied.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results; it must not exist. Default: twins, or twins_2 and so on."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Run a program N times in fresh processes and folders and say whether its twins are identical.

    Each twin runs in a fresh copy of the current folder; what it writes there is kept in OUT. Exit 0: every output has
    the same contents and every metric the same bits; 4: something differs; 3: a twin failed; 2: a mistake in the call,
    or a program that writes into the current folder itself.
    """
    from twinrun.twins.metrics import metric_parts
    from twinrun.twins.running import Plan, own_folder

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
    stop = _interrupt(interrupt, signal, resume, command, arm, count, log=log)
    log = (everything and not stop) if log is None else log
    with own_folder(Path(), out, command) as folder, _says_what_is_left(folder):
        plan = Plan(command, Path(), folder, outputs or [], link or [], seconds, load, share_caches, stop)
        result = _run(plan, metric or [], arm, seed, count, log=log, self_test=self_test)
        _print(result, as_json=as_json)
    if code := result.exit_code:
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
        if any(path.is_dir() for path in out.glob("twin_*")):
            from twinrun.launch.progress import say

            say(f"twinrun: the twins so far are in {out}")
        raise


def _interrupt(
    when: str | None,
    name: str | None,
    resume: str | None,
    command: list[str],
    arm: str,
    count: int,
    *,
    log: bool | None,
) -> Interrupt | None:
    """The checked wishes of --interrupt, --signal and --resume; None without the first."""
    from twinrun.twins import interrupting
    from twinrun.twins.running import UNINTERRUPTED

    if when is None:
        for option, value in (("--signal", name), ("--resume", resume)):
            if value is not None:
                raise InputError(f"{option} without --interrupt", "say when twins are stopped: --interrupt random")
        return None
    if arm == "all":
        raise InputError("--interrupt with --arm all", "a resume is compared with twins of the same seed")
    if log:
        raise InputError("--interrupt with --log", "a program that was stopped and started again prints other lines")
    if count <= UNINTERRUPTED:
        raise InputError(f"--interrupt with -n {count}", "two twins stay uninterrupted: give 3 or more")
    try:
        words = command if resume is None else shlex.split(resume)
    except ValueError as error:
        raise InputError(f"--resume {resume!r}: no command ({error})") from error
    return interrupting.interrupt(when, name or "TERM", words)


def _run(plan: Plan, metric: list[str], arm: str, seed: int, count: int, *, log: bool, self_test: bool) -> Result:
    """Run and compare."""
    from twinrun.launch.progress import Progress
    from twinrun.twins.judging import run_and_judge
    from twinrun.twins.running import Twin

    with Progress("twins", count) as progress:

        def note(twin: Twin) -> None:
            progress.advance(f"{twin.seconds:.1f} s" + (" failed" if twin.problem else ""))

        return run_and_judge(plan, arm, seed, count, metric, log=log, with_self_test=self_test, done=note)


def _print(result: Result, *, as_json: bool) -> None:
    from twinrun.twins.reporting import json_line, sentences, write_result

    page = write_result(result)
    print(json_line(result) if as_json else "\n".join([*sentences(result), str(page)]))
