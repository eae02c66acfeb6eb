"""What comes after the training: the finished runs are recorded in DVC, and when all are there the report is made."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twinrun.launch.dvc import commit_stages, is_dvc_study, reproduce
from twinrun.launch.standing import Watch, states
from twinrun.study.errors import BusyError, IncompleteError, InputError
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import FINISHED

SHOWN = 20  # missing runs named in one error


def record_finished(params: Params, root: Path) -> None:
    """Record what is finished in DVC, where the study is under it. Call it under `only_one`."""
    if is_dvc_study(root):
        found = states(params, Layout(root))
        stages = [run.stage for run, state in found.items() if state in FINISHED]
        commit_stages(root, stages, every=len(stages) == len(found))


def finish(params: Params, root: Path) -> None:
    """Record what is finished and, when every run is, bring collected/, analysis/ and report/ up to date.

    Raises IncompleteError naming the runs that are missing, the others being recorded; BusyError when a sweep is at
    work in this study folder.
    """
    if not is_dvc_study(root):
        raise InputError(f"{root.resolve()}: no .dvc and dvc.yaml here", "run in a checkout of the project")
    with only_one(Layout(root).sweep_lock):
        record_finished(params, root)
    found = Watch(params, Layout(root)).look()  # another array may be at work on some of them
    missing = [f"{run.id} ({state})" for run, state in found.items() if state not in FINISHED]
    if missing:
        more = f"\n  and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise IncompleteError(
            f"{len(missing)} of {len(found)} runs are not there:\n  " + "\n  ".join(missing[:SHOWN]) + more,
            "the others are kept and recorded; `twinrun slurm` or `twinrun sweep` trains only what is missing",
        )
    reproduce(root)


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
