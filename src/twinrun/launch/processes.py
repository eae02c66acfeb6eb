"""Training runs as fresh processes, several at a time, and what became of each."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from twinrun.study.files import write_text
from twinrun.study.grid import Run
from twinrun.study.pins import clean_environment


@dataclass(frozen=True)
class Finished:
    """A run's process after its end; `message` is the last of what it said when it failed."""

    run: Run
    code: int
    message: str


def usable_cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


def train_processes(
    runs: Sequence[Run],
    *,
    root: Path,
    jobs: int,
    arguments: Callable[[Run], Sequence[str]],
    done: Callable[[Finished], None],
    prefix: Sequence[str] = (),
    logs: Path | None = None,
) -> list[Finished]:
    """Train `runs` in `jobs` processes at a time; each gets `twinrun train ID` and `arguments(run)`.

    `done` is called in this thread after each; a failed run does not stop the others, an interrupt stops all.
    `prefix` goes before the Python interpreter, such as an emulator and its options. What a run says is kept below
    `logs`, if given.
    """
    alive: set[subprocess.Popen[str]] = set()
    guard, stopping = threading.Lock(), threading.Event()

    def train(run: Run) -> Finished:
        if stopping.is_set():
            return Finished(run, 130, "not started")
        command = [*prefix, sys.executable, "-m", "twinrun", "train", run.id, *arguments(run)]
        # The environment is made here, before the interpreter starts: under an emulator nothing may be re-executed.
        process = subprocess.Popen(
            command,
            cwd=root,
            env=clean_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with guard:
            alive.add(process)
        _, said = process.communicate()
        with guard:
            alive.discard(process)
        if logs:
            write_text(logs / f"{run.id}.log", said)
        return Finished(run, process.returncode, said.strip()[-2000:])

    finished = []
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        try:
            for future in as_completed([pool.submit(train, run) for run in runs]):
                finished.append(future.result())
                done(finished[-1])
        except BaseException:
            stopping.set()
            with guard:
                for process in alive:
                    process.terminate()
            raise
    return finished
