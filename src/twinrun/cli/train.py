"""Commands about the runs of a study: list them, train one, train some again and compare."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinrun.cli.options import (
    DEFAULT_PARAMS,
    MOST_COUNT,
    Device,
    ExpectGrid,
    Jobs,
    ParamsFile,
    check_grid,
    enter_clean_environment,
    load_params,
)
from twinrun.study.errors import BusyError, IncompleteError, InputError, plural
from twinrun.study.layout import Layout

if TYPE_CHECKING:  # heavy to import
    from twinrun.study.grid import Run
    from twinrun.study.params import Params


def plan(
    params_file: ParamsFile = DEFAULT_PARAMS,
    ids: Annotated[bool, typer.Option("--ids", help="List every run with its index, for scripts.")] = False,
    estimate: Annotated[bool, typer.Option(help="Probe each kind of run: time, memory, energy, carbon.")] = False,
    device: Device = None,
) -> None:
    """Check the params and that the data are there, and say what the study is; or estimate what its runs take.

    A model factory is not called: the first run, or --estimate, finds out whether it gives a model.
    """
    from twinrun.launch.status import require_sources

    params = load_params(params_file)
    if ids:
        for index, run in enumerate(params.runs):
            print(f"{index}\t{run.id}")
    elif not estimate:
        from twinrun.launch.summary import summary

        print("\n".join(summary(params, Layout())))
    if not estimate:
        require_sources(params, Layout())
        return
    from twinrun.inspect.cost import probed
    from twinrun.launch.workers import Workers, modules_of
    from twinrun.stats.footprint import estimate_run, study_lines

    options = ["--params", str(params_file), "--seconds", "0.5", "--warmup", "0.3"]
    options += ["--device", device] if device else []
    kinds, name, sizes, models = {}, "", {}, []
    # From a worker server, as a sweep starts its runs: that is what is estimated.
    modules = [*modules_of(params, params.grid.tasks), "twinrun.inspect.probe"]
    with Workers(Path(), modules, cpu_bits=params.execution.cpu_bits) as workers:
        for run in params.runs:
            # Noise may differ in speed, other seeds and streams do not.
            noise = ("one ulp" if run.arm == "ulp" else "free noise") if run.free_noise else "no noise"
            kind = f"{run.task} {run.optimizer} {noise}"
            if kind not in kinds:
                ended = workers.run(["probe", run.id, *options])
                measured = probed(run.id, ended.code, ended.output, ended.errors)
                name = measured["host"]["gpu"] or measured["host"]["cpu"]
                kinds[kind] = (estimate_run(measured, params.tasks[run.task].recipe.epochs), 0)
                sizes[run.task] = measured["model_bytes"]
            kinds[kind] = (kinds[kind][0], kinds[kind][1] + 1)
            models += [sizes[run.task]] if params.keeps_model(run) else []
    print("\n".join(study_lines(kinds, name, models)))


def train(
    run_id: Annotated[str | None, typer.Argument(help="A run's id, such as digits/sgd/42/det_1.")] = None,
    index: Annotated[int | None, typer.Option(help="The run's index in `twinrun plan --ids`.")] = None,
    task: Annotated[str | None, typer.Option(help="With --optimizer, --seed and --run: the run by its parts.")] = None,
    optimizer: Annotated[str | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    label: Annotated[str | None, typer.Option("--run", help="Arm and replicate, such as det_1 or nd_3.")] = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the record; default: runs/.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Record folder whose emulated noise is used again.")] = None,
    stop_after: Annotated[
        int | None, typer.Option(min=1, max=MOST_COUNT, help="Stop after so many epochs; needs --out.")
    ] = None,
    shared: Annotated[bool, typer.Option(help="Other runs share the machine: mark the timings.")] = False,
    unless_done: Annotated[bool, typer.Option(help="Do nothing when the run is there already.")] = False,
    prepared: Annotated[Path | None, typer.Option(help="A copy of prepared/ to read, as on a node's disk.")] = None,
    expect_grid: ExpectGrid = None,
) -> None:
    """Train one run and write its record; go on where an interrupted one stopped."""
    params = load_params(params_file)
    enter_clean_environment(params.execution.cpu_bits)  # before torch is imported, which reads it, and takes long
    check_grid(params, expect_grid)
    run = _choose(params, run_id, index, task, optimizer, seed, label)
    if (stop_after or replay) and (not out or out.resolve() == Path("runs").resolve()):
        option = "--stop-after" if stop_after else "--replay"
        raise InputError(f"{option} needs --out", "it makes no run of the study: put it somewhere else than runs/")
    if prepared is None and not Layout().prepared(run.task).exists():  # as in a fresh clone
        from twinrun.cli.data import prepare_one

        if not os.access(Path(), os.W_OK):
            hint = f"`twinrun prepare {run.task}` where it can, then this command again"
            raise IncompleteError(f"{run.task} is not prepared, and the study folder cannot be written", hint)
        prepare_one(params, run.task)
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
    layout = Layout(Path(), out, prepared)
    with progress:
        record = train_run(params, run, layout, current_code_digest(), options)
    if out:  # a folder of the user's, who finds the record in it and nothing else
        _remove_empty(layout.work(run).parent, out)
    print(f"{record.run} {record.status} {record.final_fingerprint}")


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove `folder` and those above it, up to `top`, as far as they are empty."""
    with suppress(OSError):
        while folder != top:
            folder.rmdir()
            folder = folder.parent


def train_chunk(
    ids: list[str],
    shared: bool = False,
    prepared: Path | None = None,
    restarted: bool = False,
    expect_grid: ExpectGrid = None,
) -> None:
    """Train the runs of one task of a SLURM array, which may have been started before."""
    if len(ids) == 1 and not restarted:  # nothing to share: this process trains it
        try:
            train(ids[0], shared=shared, unless_done=True, prepared=prepared, expect_grid=expect_grid)
        except BusyError:
            print(f"{ids[0]} is left to the process that is training it")
        return
    from twinrun.launch import slurm

    params = load_params(DEFAULT_PARAMS)
    check_grid(params, expect_grid)
    options = ["--unless-done"] + (["--shared"] if shared else [])
    options += ["--prepared", str(prepared)] if prepared else []
    options += ["--expect-grid", expect_grid] if expect_grid else []
    runs = [params.find(name) for name in ids]
    raise typer.Exit(slurm.train_chunk(params, runs, Path(), options, restarted=restarted))


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


def verify(
    ids: Annotated[list[str] | None, typer.Argument(help="Runs; default: every deterministic one.")] = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
    first: Annotated[bool, typer.Option(help="One run per task and optimizer is enough.")] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=MOST_COUNT, help="Compare the first so many epochs alone.")
    ] = None,
    replay: Annotated[bool, typer.Option(help="Also replay the runs with emulated noise.")] = False,
    jobs: Jobs = None,
    device: Device = None,
    prefix: Annotated[str, typer.Option(help="Words before the interpreter, such as an emulator's command.")] = "",
    write_expected: Annotated[bool, typer.Option(help="Note the fingerprints in expected/ instead.")] = False,
) -> None:
    """Train again in fresh processes and compare fingerprints with expected/ and the records; exit 4 if any differs.

    In an unpacked RO-Crate every file is checked first.
    """
    import shlex

    from twinrun.export.crate import METADATA, check_crate
    from twinrun.launch import verify as verifying
    from twinrun.launch.processes import places
    from twinrun.launch.progress import say
    from twinrun.launch.status import require_prepared
    from twinrun.study.files import sha256_file

    if files := check_crate(Path()):
        say(f"{files} files of the crate are as they were packed; SHA-256 of {METADATA}: {sha256_file(Path(METADATA))}")
    try:
        before = shlex.split(prefix)
    except ValueError as error:
        raise InputError(f"--prefix {prefix!r}: no command ({error})") from error
    params = load_params(params_file)
    runs = verifying.select(params, Layout(), ids or [], first=first, replay=replay)
    if not runs:
        raise IncompleteError("no run to verify", "the grid has no det run: name runs, or add det_1 to grid.runs")
    if write_expected and (ids or first or epochs or replay):
        raise InputError("--write-expected notes every deterministic run whole", "leave the other choices away")
    if write_expected and params.execution.cpu_bits == "this_cpu":
        hint = "expected/ is for what every machine gives: without --write-expected, the runs' records are compared"
        raise InputError("--write-expected with execution.cpu_bits: this_cpu", hint)
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
        prefix=before,
    )
    if write_expected:
        verifying.write_expected(Layout(), records)
        print(f"{plural(len(records), 'run')} noted in {Layout().expected}")
        return
    comparisons = verifying.compare(Layout(), runs, records, epochs)
    for comparison in comparisons:
        print(comparison.line)
    print(verifying.judge(runs, comparisons))
