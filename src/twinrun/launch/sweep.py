"""`twinrun sweep`: train what is missing on this machine, several processes at a time, then record it in DVC."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twinrun.launch.dvc import commit_stages, is_dvc_study
from twinrun.launch.processes import Finished, train_processes
from twinrun.launch.progress import Progress
from twinrun.study.errors import BusyError, IncompleteError
from twinrun.study.files import read_json
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import FINISHED, current_code_digest

BUSY = 5


def states(params: Params, layout: Layout) -> dict[Run, str]:
    """What there is of each run of the grid."""
    code, data = current_code_digest(), {task: _data_digest(layout, task) for task in params.grid.tasks}
    return {run: params.state_of(run, layout, data[run.task], code) for run in params.runs}


def _data_digest(layout: Layout, task: str) -> str | None:
    manifest = layout.prepared(task) / "manifest.json"
    return str(read_json(manifest).get("digest")) if manifest.is_file() else None


def sweep(params: Params, root: Path, *, params_file: Path, jobs: int, device: str | None, record: bool) -> int:
    """Train every run that is not there in `jobs` processes and record all in DVC; return how many were trained.

    Raises IncompleteError naming the runs that failed, the others being kept and recorded, or the tasks that are not
    prepared; BusyError when another sweep is at work in this study folder.
    """
    layout = Layout(root)
    with only_one(root / "work" / "sweep.lock"):
        before = states(params, layout)
        missing = {run: state for run, state in before.items() if state not in FINISHED}
        unprepared = [task for task in params.grid.tasks if _data_digest(layout, task) is None]
        if missing and unprepared:
            raise IncompleteError(f"not prepared yet: {', '.join(unprepared)}", "`twinrun prepare` does it")
        for run, state in missing.items():
            if state != "missing":
                print(f"{run.id}: its record is trained again ({state})", file=sys.stderr)
        failed = _train(missing, root, params_file=params_file, jobs=jobs, device=device)
        if record and is_dvc_study(root):
            complete = [run.stage for run, state in states(params, layout).items() if state in FINISHED]
            commit_stages(root, complete, every=len(complete) == len(before))
    if failed:
        lines = "\n".join(f"  {item.run.id} (exit {item.code}): {item.message}" for item in failed[:10])
        more = f"\n  and {len(failed) - 10} more" if len(failed) > 10 else ""
        raise IncompleteError(
            f"{len(failed)} of {len(missing)} runs failed:\n{lines}{more}",
            "the others are kept; `twinrun sweep` tries the failed ones again",
        )
    return len(missing)


def _train(missing: dict[Run, str], root: Path, *, params_file: Path, jobs: int, device: str | None) -> list[Finished]:
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
            list(missing), root=root, jobs=jobs, arguments=lambda run: options, done=note, logs=root / "logs"
        )
    return failed


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold `lock` for the length of the block, or raise BusyError."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise BusyError("a sweep is at work in this study folder already", "wait for it, or stop it") from error
