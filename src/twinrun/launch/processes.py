"""Training runs as processes, several at a time, on which GPUs, and what became of each."""

from __future__ import annotations

import os
import queue
import re
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from twinrun.launch.workers import NOT_STARTED, Workers
from twinrun.study.files import write_text
from twinrun.study.grid import Run
from twinrun.study.pins import JOBS, CpuBits


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
    modules: Sequence[str] = (),
    prefix: Sequence[str] = (),
    logs: Path | None = None,
    gpus: Sequence[str] = (),
    cpu_bits: CpuBits = "anywhere",
) -> list[Finished]:
    """Train `runs` in `jobs` processes at a time; each gets `twinrun train ID` and `arguments(run)`.

    `done` is called in this thread after each; a failed run does not stop the others, an interrupt stops all.
    `modules`, `prefix` and `cpu_bits` are those of `Workers`: without modules, each process starts from nothing. What a
    run says is kept below `logs`, if given. With `gpus`, each process sees one of them, and as few as can be share one.
    """
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for slot in range(max(1, jobs) if gpus else 0):
        free.put(gpus[slot % len(gpus)])

    def train(run: Run) -> Finished:
        gpu = free.get() if gpus else None  # there are as many as threads: nobody waits
        try:
            variables = {JOBS: str(jobs)} | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
            ended = workers.run(["train", run.id, *arguments(run)], variables)
        finally:
            if gpu is not None:
                free.put(gpu)
        if logs and ended is not NOT_STARTED:  # the log of an earlier attempt stays
            write_text(logs / f"{run.id}.log", ended.errors)
        return Finished(run, ended.code, ended.errors.strip()[-2000:])

    finished = []
    with Workers(root, modules if runs else (), prefix, cpu_bits) as workers, ThreadPoolExecutor(max(1, jobs)) as pool:
        try:
            for future in as_completed([pool.submit(train, run) for run in runs]):
                finished.append(future.result())
                done(finished[-1])
        except BaseException:
            workers.stop()
            raise
    return finished


def places(device: str, jobs: int | None, gpus: Sequence[str] = ()) -> tuple[int, list[str]]:
    """How many processes at a time, and the GPUs that they take turns on: `jobs` and `gpus` where they are given.

    Else every visible GPU gets one process: two would slow each other down, and neither's time could be used. On a
    `device` of `cpu`, and of `auto` where there is no GPU, every core does.
    """
    visible = list(gpus) or ([] if device == "cpu" else visible_gpus())
    return jobs or len(visible) or (1 if device == "cuda" else usable_cores()), visible


def visible_gpus() -> list[str]:
    """What to put into CUDA_VISIBLE_DEVICES for each GPU, or MIG slice, that a process started here would see."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    there = [] if done.returncode else listed(done.stdout)
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None or not there:
        return there
    names = []
    for name in map(str.strip, allowed.split(",")):
        if not name or name.startswith("-"):  # CUDA reads no further
            break
        names.append(name)
    return names


def listed(text: str) -> list[str]:
    """The UUIDs in what `nvidia-smi -L` prints: of the cards, and of its slices in place of a card that is cut.

    >>> listed("GPU 0: A100 (UUID: GPU-1)\\n  MIG 3g.20gb Device 0: (UUID: MIG-2)\\nGPU 1: A100 (UUID: GPU-3)\\n")
    ['MIG-2', 'GPU-3']
    """
    names: list[str] = []
    card = ""
    for line in text.splitlines():
        match = re.search(r"\(UUID: ([^)]+)\)", line)
        if not match:
            continue
        if line.startswith("GPU "):
            card = match[1]
        elif names[-1:] == [card]:
            names.pop()
        names.append(match[1])
    return names
