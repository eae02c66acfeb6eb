"""The `twinrun` command: only wiring; whatever is heavy is imported inside the command that needs it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinrun import __version__
from twinrun.cli.audit import audit, repeat_calls
from twinrun.cli.cost import cost, plan, probe
from twinrun.cli.data import data_app, prepare
from twinrun.cli.export import export
from twinrun.cli.launch import finish, slurm, status, sweep
from twinrun.cli.locate import follow_run, locate
from twinrun.cli.options import (
    DEFAULT_PARAMS,
    Device,
    ExpectGrid,
    Jobs,
    ParamsFile,
    check_grid,
    enter_clean_environment,
    load_params,
    note_other_study,
    require_same_analysis,
)
from twinrun.cli.statistics import power, reanalyze_app
from twinrun.cli.twins import twins
from twinrun.study.errors import InputError, MismatchError, TwinrunError
from twinrun.study.layout import Layout

if TYPE_CHECKING:  # heavy to import
    from twinrun.study.grid import Run
    from twinrun.study.params import Params

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train identical twins of an image classifier and say which differences are noise. "
    "Run it in the study folder: the one that holds params.yaml.",
)
app.add_typer(data_app, name="data")
app.add_typer(reanalyze_app, name="reanalyze")
for command in (prepare, plan, sweep, slurm, finish, status, power, cost, locate, audit, twins, export):
    app.command()(command)
for part in (probe, follow_run, repeat_calls):  # what those above start afresh
    app.command(hidden=True)(part)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def show_version(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Say which version this is."""


def main() -> None:
    """Run the command line; a user's mistake ends in one sentence and an exit code, not in a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)  # as ctrl-C: children are stopped, files are put back
    try:
        app()
    except TwinrunError as error:
        _fail(error)
    except OSError as error:
        from twinrun.study.files import explain_os_error

        _fail(explain_os_error(error))
    except SystemExit as stop:  # typer makes it of a KeyboardInterrupt
        if stop.code == 130:
            print(f"twinrun: interrupted{_GOES_ON if _goes_on(sys.argv[1:]) else ''}", file=sys.stderr)
            sys.stdout.flush()
            os._exit(130)  # a cluster stops a container's file system, too: nothing more can be imported from it
        raise


_GOES_ON = "; what was finished is kept, and the same command goes on"


def _goes_on(words: list[str]) -> bool:
    """Whether the command of these words keeps what it finished."""
    return words[:2] == ["data", "fetch"] or words[:1] in (
        ["prepare"], ["train"], ["sweep"], ["slurm"], ["finish"], ["cost"], ["export"],
    )  # fmt: skip


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _fail(error: TwinrunError) -> None:
    print(f"twinrun: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


@app.command()
def train(
    run_id: Annotated[str | None, typer.Argument(help="A run's id, such as digits/sgd/42/det_1.")] = None,
    index: Annotated[int | None, typer.Option(help="The run's index in `twinrun plan`.")] = None,
    task: Annotated[str | None, typer.Option(help="With --optimizer, --seed and --run: the run by its parts.")] = None,
    optimizer: Annotated[str | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    label: Annotated[str | None, typer.Option("--run", help="Arm and replicate, such as det_1 or nd_3.")] = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the record; default: runs/.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Record folder whose emulated noise is used again.")] = None,
    stop_after: Annotated[int | None, typer.Option(min=1, help="Stop after so many epochs; needs --out.")] = None,
    shared: Annotated[bool, typer.Option(help="Other runs share the machine: mark the timings.")] = False,
    unless_done: Annotated[bool, typer.Option(help="Do nothing when the run is there already.")] = False,
    prepared: Annotated[Path | None, typer.Option(help="A copy of prepared/ to read, as on a node's disk.")] = None,
    expect_grid: ExpectGrid = None,
) -> None:
    """Train one run and write its record; go on where an interrupted one stopped."""
    params = load_params(params_file)
    check_grid(params, expect_grid)
    run = _choose(params, run_id, index, task, optimizer, seed, label)
    if (stop_after or replay) and (not out or out.resolve() == Path("runs").resolve()):
        option = "--stop-after" if stop_after else "--replay"
        raise InputError(f"{option} needs --out", "it makes no run of the study: put it somewhere else than runs/")
    enter_clean_environment()
    from twinrun.launch.progress import Progress
    from twinrun.study.records import current_code_digest, read_record
    from twinrun.training.loop import Options, train_run

    progress = Progress(f"{run.id} epoch", params.tasks[run.task].recipe.epochs)

    def show(row: dict[str, Any], epochs: int) -> None:
        metric = params.tasks[run.task].recipe.metric
        value = "n/a" if row[metric] is None else f"{row[metric]:.4f}"
        progress.done = row["epoch"] - 1  # an interrupted run does not begin at the first
        progress.advance(f"train loss {row['train_loss']:.4f} test {metric} {value}")

    options = Options(
        device=device or params.execution.device,
        replay=read_record(replay).noise if replay else None,
        stop_after=stop_after,
        shared=shared,
        unless_done=unless_done,
        progress=show,
    )
    with progress:
        record = train_run(params, run, Layout(Path(), out, prepared), current_code_digest(), options)
    print(f"{record.run} {record.status} {record.final_fingerprint}")


def _choose(
    params: Params,
    run_id: str | None,
    index: int | None,
    task: str | None,
    optimizer: str | None,
    seed: int | None,
    label: str | None,
) -> Run:
    parts = {"--task": task, "--optimizer": optimizer, "--seed": seed, "--run": label}
    given = [name for name, value in parts.items() if value is not None]
    if (run_id is not None) + (index is not None) + bool(given) != 1:
        raise InputError("which run?", "give one of: its id; --index; --task, --optimizer, --seed and --run together")
    if run_id is not None:
        return params.find(run_id)
    if index is not None:
        if not 0 <= index < len(params.runs):
            raise InputError(f"--index {index}: the study has the runs 0 to {len(params.runs) - 1}")
        return params.runs[index]
    if len(given) < len(parts):
        raise InputError(f"{', '.join(sorted(set(parts) - set(given)))} is missing")
    return params.find(f"{task}/{optimizer}/{seed}/{label}")


@app.command()
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


@app.command()
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


@app.command()
def report() -> None:
    """Write report/index.html from analysis/ and collected/."""
    from twinrun.report.page import write_report

    require_same_analysis()
    note_other_study()
    layout = Layout()
    print(write_report(layout.analysis, layout.collected, layout.report))


@app.command()
def verify(
    ids: Annotated[list[str] | None, typer.Argument(help="Runs; default: every deterministic one.")] = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
    first: Annotated[bool, typer.Option(help="One run per task and optimizer is enough.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Compare only the first so many epochs.")] = None,
    replay: Annotated[bool, typer.Option(help="Also replay the runs with emulated noise.")] = False,
    jobs: Jobs = None,
    device: Device = None,
    prefix: Annotated[str, typer.Option(help="Words before the interpreter, such as an emulator's command.")] = "",
    write_expected: Annotated[bool, typer.Option(help="Note the fingerprints in expected/ instead.")] = False,
) -> None:
    """Train again in fresh processes and compare fingerprints with expected/ and the records; exit 4 if any differs."""
    import shlex

    from twinrun.launch import verify as verifying
    from twinrun.launch.process_slots import places
    from twinrun.launch.status import require_prepared
    from twinrun.study.errors import IncompleteError

    params = load_params(params_file)
    runs = verifying.select(params, Layout(), ids or [], first=first, replay=replay)
    if not runs:
        raise IncompleteError("no run to verify", "the grid has no det run: name runs, or add det_1 to grid.runs")
    if write_expected and (ids or first or epochs or replay):
        raise InputError("--write-expected notes every deterministic run whole", "leave the other choices away")
    require_prepared((run.task for run in runs), Layout())
    processes, gpus = places(device or params.execution.device, jobs)
    records = verifying.retrain(
        params,
        Path(),
        runs,
        params_file=params_file,
        jobs=processes,
        gpus=gpus,
        epochs=epochs,
        device=device,
        prefix=shlex.split(prefix),
    )
    if write_expected:
        verifying.write_expected(Layout(), records)
        print(f"{len(records)} runs noted in {Layout().expected}")
        return
    comparisons = verifying.compare(Layout(), runs, records, epochs)
    for item in comparisons:
        outcome = f"differs first at {item.first_difference}" if item.first_difference else "equal"
        print(f"{item.run}\t{item.against}\t{item.epochs} epochs\t{outcome}")
    compared = {item.run for item in comparisons}
    if compared != {run.id for run in runs}:
        nothing = [run.id for run in runs if run.id not in compared]
        raise IncompleteError(
            f"nothing to compare with for {', '.join(nothing)}",
            "expected/ is for other params, data or device, and the runs are not in runs/: train them first",
        )
    different = [item for item in comparisons if item.first_difference]
    if different:
        raise MismatchError(
            f"{len(different)} of {len(comparisons)} comparisons differ, the first: {different[0].run} against "
            f"{different[0].against} at {different[0].first_difference}",
            "`twinrun doctor` says what in this machine may change the bits",
        )
    print(f"{len(comparisons)} comparison{',' if len(comparisons) == 1 else 's, all'} equal to the last bit")


@app.command()
def doctor() -> None:
    """Say in plain words what this machine can do; exit 2 when a study would fail or differ here."""
    from twinrun.launch.doctor import examine

    findings = examine(Path())
    for finding in findings:
        print(f"[{finding.level:4}] {finding.text}")
    bad = sum(finding.level == "bad" for finding in findings)
    if bad:
        raise InputError(f"{bad} findings would make a study fail or differ here", "they are marked [bad] above")
    print("this machine can run the study")
