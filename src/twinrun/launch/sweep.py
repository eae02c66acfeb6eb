"""`twinrun sweep`: train what is missing on this machine, several processes at a time, then record it in DVC."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from twinrun.launch.finish import only_one, record_finished
from twinrun.launch.processes import Finished, train_processes
from twinrun.launch.progress import Progress
from twinrun.launch.standing import missing_runs
from twinrun.study.errors import IncompleteError, InputError
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params

BUSY = 5


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
    kept and recorded, or the tasks that are not prepared; BusyError when another sweep is at work in this study folder.
    """
    if gpus and (device or params.execution.device) == "cpu":
        raise InputError("--gpus: this study runs on the CPU", "leave it away, or set execution.device to cuda")
    layout = Layout(root)
    with only_one(layout.sweep_lock):
        missing = missing_runs(params, layout)
        for run, state in missing.items():
            if state != "missing":
                print(f"{run.id}: its record is trained again ({state})", file=sys.stderr)
        failed = _train(missing, root, params_file=params_file, jobs=jobs, device=device, gpus=gpus)
        if record:
            record_finished(params, root)
    if failed:
        lines = "\n".join(f"  {item.run.id} (exit {item.code}): {item.message}" for item in failed[:10])
        more = f"\n  and {len(failed) - 10} more" if len(failed) > 10 else ""
        raise IncompleteError(
            f"{len(failed)} of {len(missing)} runs failed:\n{lines}{more}",
            "the others are kept; `twinrun sweep` tries the failed ones again",
        )
    return len(missing)


def _train(
    missing: dict[Run, str],
    root: Path,
    *,
    params_file: Path,
    jobs: int,
    device: str | None,
    gpus: Sequence[str],
) -> list[Finished]:
    """Train `missing`; those that failed. When the first ones all fail, the rest is not tried: IncompleteError."""
    options = ["--params", str(params_file), "--unless-done"]
    options += ["--device", device] if device else []
    options += ["--shared"] if jobs > 1 and len(missing) > 1 else []
    failed: list[Finished] = []
    with Progress("train", len(missing)) as progress:

        def note(finished: Finished) -> None:
            failed.extend([finished] if finished.code not in (0, BUSY) else [])
            outcome = {0: "", BUSY: " is being trained by another process"}.get(finished.code, " failed")
            progress.advance(finished.run.id + outcome)
            if len(failed) == progress.done == max(3, 2 * jobs):
                raise IncompleteError(
                    f"the first {len(failed)} runs all failed, such as {finished.run.id}: {finished.message}"
                )

        train_processes(
            list(missing),
            root=root,
            jobs=jobs,
            arguments=lambda run: options,
            done=note,
            logs=Layout(root).logs,
            gpus=gpus,
        )
    return failed
