"""Commands that train many runs, on this machine or on a cluster, and what comes after them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from twinrun.cli.options import (
    DEFAULT_PARAMS,
    MOST_COUNT,
    MOST_SECONDS,
    Device,
    ExpectGrid,
    Jobs,
    ParamsFile,
    check_grid,
    load_params,
)
from twinrun.study.errors import IncompleteError, InputError, plural
from twinrun.study.layout import Layout


def sweep(
    jobs: Jobs = None,
    gpus: Annotated[
        str | None, typer.Option(help="GPUs to take turns on, such as 0,1; default: the visible ones.")
    ] = None,
    params_file: ParamsFile = DEFAULT_PARAMS,
    device: Device = None,
    record: Annotated[bool, typer.Option(help="Record the completed runs in DVC.")] = True,
) -> None:
    """Train every run that is missing, several at a time, then record them in DVC."""
    from twinrun.launch.processes import places
    from twinrun.launch.sweep import sweep as run_sweep

    chosen = [name.strip() for name in gpus.split(",")] if gpus is not None else []
    if not all(chosen) or len(set(chosen)) < len(chosen):
        raise InputError(
            f"--gpus {gpus!r}: not a list of different GPUs", "such as 0,1 or the UUIDs of `nvidia-smi -L`"
        )
    params = load_params(params_file)
    processes, turns = places(device or params.execution.device, jobs, chosen)
    trained = run_sweep(
        params,
        Path(),
        params_file=params_file,
        jobs=processes,
        device=device,
        record=record,
        gpus=turns,
    )
    print(f"{trained} {'run' if trained == 1 else 'runs'} trained, {len(params.runs) - trained} were there already")


def status(
    params_file: ParamsFile = DEFAULT_PARAMS,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again until every run is there.")] = False,
    every: Annotated[
        float, typer.Option(min=0.1, max=MOST_SECONDS, help="With --watch: seconds between two looks.")
    ] = 5.0,
) -> None:
    """Say what there is of each run and which are being trained; exit 3 when any is missing."""
    from twinrun.launch.dvc import SHOWN
    from twinrun.launch.status import Watch, count, follow
    from twinrun.study.records import FINISHED

    looker = Watch(load_params(params_file), Layout())
    if watch:
        follow(looker.look, every, FINISHED)
        return
    states = looker.look()
    unnamed = [run for run, state in states.items() if state == "missing"][SHOWN:]
    for run, state in states.items():
        if state != "complete" and run not in unnamed:
            print(f"{run.id}\t{state}")
    if unnamed:
        print(f"and {len(unnamed)} more missing")
    print(count(states))
    open_runs = sum(state not in FINISHED for state in states.values())
    if open_runs:
        hint = "`twinrun sweep` trains what is missing; `dvc pull` brings what somebody has trained and pushed"
        raise IncompleteError(f"still to be trained: {open_runs}", hint)


def slurm(
    chunk: Annotated[int, typer.Option(min=1, max=MOST_COUNT, help="Runs of one array task, one after the other.")] = 1,
    at_once: Annotated[
        int | None, typer.Option(min=1, max=MOST_COUNT, help="Array tasks at a time; default: as SLURM likes.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="Apptainer image as the nodes see it; default: the one this runs in, if any.")
    ] = None,
    scratch: Annotated[bool, typer.Option(help="Copy the packed arrays to the node's own disk first.")] = False,
    submit: Annotated[bool, typer.Option(help="Submit both jobs.")] = False,
) -> None:
    """Write the SLURM scripts for the missing runs into slurm/ and show them; site lines are in slurm/site.sbatch."""
    from twinrun.launch.slurm import submit as run_submit
    from twinrun.launch.slurm import write_scripts

    # Apptainer tells the path of the image that a process is in.
    image = image or os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if not image and Path(sys.prefix).is_relative_to("/opt/twinrun"):  # see container/install.sh
        raise InputError("this is the image's own twinrun, which the nodes do not have", "name a .sif with --image")
    params = load_params(DEFAULT_PARAMS)
    for text in write_scripts(params, Layout(), chunk=chunk, at_once=at_once, image=image, scratch=scratch):
        print(text, flush=True)
    if submit:
        run_submit(Layout())
    else:
        print("`bash slurm/submit.sh`, where sbatch is, submits this")


def finish(expect_grid: ExpectGrid = None) -> None:
    """Record the finished runs in DVC and, when all are there, make the report; exit 3 when any is missing."""
    from twinrun.launch.dvc import finish as run_finish

    params = load_params(DEFAULT_PARAMS)
    check_grid(params, expect_grid)
    run_finish(params, Path())
    count = plural(len(params.runs), "run")
    print(f"{count} {'is' if len(params.runs) == 1 else 'are'} recorded; report: {Layout().report / 'index.html'}")


def doctor() -> None:
    """Say in plain words what this machine can do; exit 2 when a study would fail or differ here."""
    from twinrun.launch.doctor import examine

    findings = examine(Path())
    for finding in findings:
        print(f"[{finding.level:4}] {finding.text}")
    bad = sum(finding.level == "bad" for finding in findings)
    if bad:
        raise InputError(
            f"{plural(bad, 'finding')} would make a study fail or differ here", "what is meant is marked [bad] above"
        )
    print("this machine can run the study")
