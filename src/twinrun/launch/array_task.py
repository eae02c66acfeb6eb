"""One task of a SLURM array: its runs one after the other, as children of one worker server where they are several."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from twinrun.launch.workers import Workers, modules_of
from twinrun.study.errors import BusyError, MismatchError
from twinrun.study.grid import Run
from twinrun.study.params import Params

BUSY, OTHER_GRID = BusyError.exit_code, MismatchError.exit_code
PAUSE_SECONDS, PAUSES = 40, 3


def train_chunk(params: Params, runs: Sequence[Run], root: Path, options: Sequence[str], *, restarted: bool) -> int:
    """Call `twinrun train ID` with `options` for each of `runs`; the exit code of the last that failed, or 0.

    What a run says is shown as it comes. One that another process has is left to it: of a task that SLURM started again
    (`restarted`) only after two minutes, for of a node that died, a file server may hold the locks a little longer.
    After params that were changed nothing more is tried.
    """
    code = 0
    modules = modules_of(params, {run.task for run in runs}) if len(runs) > 1 else ()
    with Workers(root, modules, cpu_bits=params.execution.cpu_bits) as workers:
        for run in runs:
            for _ in range(PAUSES if restarted else 0):
                if (ended := _train(workers, run, options)) != BUSY:
                    break
                time.sleep(PAUSE_SECONDS)
            else:
                ended = _train(workers, run, options)
            if ended == BUSY:
                print(f"{run.id} is left to the process that is training it", flush=True)
            elif ended:
                code = ended
                print(f"twinrun: {run.id} failed with exit code {code}", file=sys.stderr, flush=True)
            if ended == OTHER_GRID:
                break
    return code


def _train(workers: Workers, run: Run, options: Sequence[str]) -> int:
    """The exit code, as a shell gives it: 128 and the signal of one that a signal ended."""
    code = workers.run(["train", run.id, *options], shown=True).code
    return 128 - code if code < 0 else code
