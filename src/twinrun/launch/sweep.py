"""`twinrun sweep`: train what is missing on this machine, several processes at a time, then record it in DVC."""

from __future__ import annotations

import signal
from collections.abc import Collection, Sequence
from pathlib import Path

from twinrun.launch.dvc import only_one, record_finished
from twinrun.launch.processes import Finished, train_processes
from twinrun.launch.progress import Progress, say
from twinrun.launch.status import missing_runs, states
from twinrun.launch.workers import modules_of
from twinrun.study.errors import BusyError, IncompleteError, InputError, OutOfMemoryError
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import FINISHED

BUSY = BusyError.exit_code
SHORT_OF_MEMORY = (OutOfMemoryError.exit_code, -signal.SIGKILL)  # the second is how Linux stops a process for it


def sweep(
    params: Params,
    root: Path,
    *,
    params_file: Path,
    jobs: int,
    device: str | None,
    record: bool,
    gpus: Sequence[str] = (),
) -> int:
    """Train every run that is not there in `jobs` processes and record all in DVC; return how many were trained.

    With `gpus`, the processes take turns on them. Raises IncompleteError naming the runs that failed, the others being
    kept and recorded, or the tasks that are not prepared; BusyError when another sweep is at work in this study folder,
    or when another process has a run, all others being recorded.
    """
    if gpus and (device or params.execution.device) == "cpu":
        raise InputError("--gpus: this study runs on the CPU", "leave it out, or set execution.device to cuda")
    layout = Layout(root)
    with only_one(layout.sweep_lock):
        missing = missing_runs(params, layout)
        for run, state in missing.items():
            if state != "missing":
                say(f"{run.id}: its record is trained again ({state})")
        failed: list[Finished] = []
        try:
            failed = _train(params, missing, root, params_file=params_file, jobs=jobs, device=device, gpus=gpus)
            least = max(1, len(gpus))
            while jobs > least and (short := [item.run for item in failed if item.code in SHORT_OF_MEMORY]):
                jobs = max(least, jobs // 2)
                what = "1 run: it is" if len(short) == 1 else f"{len(short)} runs: they are"
                say(f"memory ran out in {what} tried again, {jobs} at a time")
                failed = [item for item in failed if item.code not in SHORT_OF_MEMORY]
                failed += _train(params, short, root, params_file=params_file, jobs=jobs, device=device, gpus=gpus)
        finally:
            # Also after an interrupt: `dvc repro` removes and repeats what is not recorded.
            there = states(params, layout)
            if record:
                record_finished(root, there, trained=len(failed) < len(missing))
    elsewhere = [item.run for item in failed if item.code == BUSY]
    failed = [item for item in failed if item.code != BUSY]
    if failed:
        lines = "\n".join(f"  {item.run.id} (exit {item.code}): {item.message}" for item in failed[:10])
        more = f"\n  and {len(failed) - 10} more" if len(failed) > 10 else ""
        raise IncompleteError(
            f"{len(failed)} of {len(missing)} runs failed:\n{lines}{more}",
            "the others are kept; `twinrun sweep` tries the failed ones again",
        )
    if awaited := [run.id for run in elsewhere if there[run] not in FINISHED]:
        more = f" and {len(awaited) - 1} more" if len(awaited) > 1 else ""
        raise BusyError(
            f"{len(awaited)} of {len(missing)} runs {'is' if len(awaited) == 1 else 'are'} with another process: "
            f"{awaited[0]}{more}",
            "all others are there; when that process has ended, `twinrun sweep` records its runs or trains them",
        )
    return len(missing) - len(elsewhere)


def _train(
    params: Params,
    missing: Collection[Run],
    root: Path,
    *,
    params_file: Path,
    jobs: int,
    device: str | None,
    gpus: Sequence[str],
) -> list[Finished]:
    """Train `missing`; those that failed or are with another process.

    When the first ones all fail, the rest is not tried: IncompleteError. Where it is memory that ran out, and fewer at
    a time may do, all of `missing` count as failed by it.
    """
    options = ["--params", str(params_file), "--unless-done"]
    options += ["--device", device] if device else []
    options += ["--shared"] if jobs > 1 and len(missing) > 1 else []
    failed: list[Finished] = []
    with Progress("train", len(missing)) as progress:

        def note(finished: Finished) -> None:
            failed.extend([finished] if finished.code else [])
            outcome = {0: "", BUSY: " is being trained by another process"}.get(finished.code, " failed")
            progress.advance(finished.run.id + outcome)
            if len(failed) == progress.done == max(3, 2 * jobs) and all(item.code != BUSY for item in failed):
                if jobs > 1 and all(item.code in SHORT_OF_MEMORY for item in failed):
                    raise OutOfMemoryError(finished.message)
                raise IncompleteError(
                    f"the first {len(failed)} runs all failed, such as {finished.run.id}: {finished.message}"
                )

        try:
            train_processes(
                list(missing),
                root=root,
                jobs=jobs,
                arguments=lambda run: options,
                done=note,
                modules=modules_of(params, {run.task for run in missing}),
                logs=Layout(root).logs,
                gpus=gpus,
                cpu_bits=params.execution.cpu_bits,
            )
        except OutOfMemoryError as error:
            failed = [Finished(run, error.exit_code, error.message) for run in missing]
    return failed
