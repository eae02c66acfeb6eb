"""Training runs as fresh processes, several at a time, and what became of each."""

from __future__ import annotations

import os
import queue
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
    gpus: Sequence[str] = (),
) -> list[Finished]:
    """Train `runs` in `jobs` processes at a time; each gets `twinrun train ID` and `arguments(run)`.

    `done` is called in this thread after each; a failed run does not stop the others, an interrupt stops all.
    `prefix` goes before the Python interpreter, such as an emulator and its options. What a run says is kept below
    `logs`, if given. With `gpus`, each process sees one of them, and as few as can be share one.
    """
    alive: set[subprocess.Popen[str]] = set()
    guard, stopping = threading.Lock(), threading.Event()
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for slot in range(max(1, jobs) if gpus else 0):
        free.put(gpus[slot % len(gpus)])

    def train(run: Run) -> Finished:
        if stopping.is_set():
            return Finished(run, 130, "not started")
        gpu = free.get() if gpus else None  # there are as many as threads: nobody waits
        try:
            return execute(run, {"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {})
        finally:
            if gpu is not None:
                free.put(gpu)

    def execute(run: Run, variables: dict[str, str]) -> Finished:
        command = [*prefix, sys.executable, "-m", "twinrun", "train", run.id, *arguments(run)]
        # The environment is made here, before the interpreter starts: under an emulator nothing may be re-executed.
        process = subprocess.Popen(
            command,
            cwd=root,
            env=clean_environment() | variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with guard:
            alive.add(process)
        if stopping.is_set():  # while it was being started, so that nobody else has stopped it
            process.kill()
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
