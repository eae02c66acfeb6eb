"""What comes after the training: the finished runs are recorded in DVC, and when all are there the report is made."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from twinrun.launch.dvc import commit_stages, is_dvc_study, reproduce
from twinrun.launch.status import Watch
from twinrun.study.errors import IncompleteError, InputError
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.lock import hold
from twinrun.study.params import Params
from twinrun.study.records import FINISHED

SHOWN = 20  # missing runs named in one error
PATIENCE_SECONDS = 600.0


def record_finished(root: Path, states: Mapping[Run, str]) -> None:
    """Record in DVC what is finished by `found`, where the study is under it. Call it under `only_one`."""
    if is_dvc_study(root):
        stages = [run.stage for run, state in states.items() if state in FINISHED]
        commit_stages(root, stages, every=len(stages) == len(states))


def finish(params: Params, root: Path, patience: float = PATIENCE_SECONDS) -> None:
    """Record what is finished and, when every run is, bring collected/, analysis/ and report/ up to date.

    Raises IncompleteError naming the runs that are missing, the others being recorded; BusyError when a sweep stays at
    work in this study folder for longer than `patience` seconds: the finishing jobs of two arrays may well meet.
    """
    if not is_dvc_study(root):
        raise InputError(f"{root.resolve()}: no .dvc and dvc.yaml here", "run in a checkout of the project")
    with only_one(Layout(root).sweep_lock, patience):
        # One look decides all: a run that ends after it is not recorded, and DVC would remove and repeat it.
        states = Watch(params, Layout(root)).look()
        record_finished(root, states)
        missing = [f"{run.id} ({state})" for run, state in states.items() if state not in FINISHED]
        if missing:
            more = f"\n  and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            raise IncompleteError(
                f"{len(missing)} of {len(states)} runs are not there:\n  " + "\n  ".join(missing[:SHOWN]) + more,
                "the others are kept and recorded; `twinrun slurm` or `twinrun sweep` trains only what is missing",
            )
        reproduce(root)


def only_one(lock: Path, patience: float = 0.0) -> AbstractContextManager[None]:
    """Hold `lock` for the length of the block; BusyError when another process has it for longer than `patience`."""
    return hold(lock, "a sweep, or what comes after one, is at work in this study folder already", patience=patience)
