"""Time of single training steps in a fresh process: under given flags for `twinrun cost`, a run's own for an estimate.

twinrun probe digits/sgd/42/det_1 --rung free --steps 20      # in a study folder after `twinrun prepare`; prints JSON
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import psutil
import torch

from twinrun.inspect.ladder import ladder
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.training.batches import Batch
from twinrun.training.checkpoint import model_state
from twinrun.training.environment import host_facts, versions
from twinrun.training.gpu import Gpu
from twinrun.training.loop import begin_epoch, evaluate, synchronized, train_step
from twinrun.training.randomness import fresh_entropy
from twinrun.training.setup import Setup, assemble, set_conditions

POWER_SECONDS = 2.0  # NVML's energy counter moves every tenth of a second or so


def probe(
    params: Params,
    run: Run,
    layout: Layout,
    *,
    rung: str | None,
    batch_size: int | None,
    steps: int,
    warmup: int,
    device: str,
) -> dict[str, Any]:
    """Train `warmup` and then `steps` steps of `run` under the flags of `rung`; seconds of each step, and the machine.

    Seconds are between CUDA events on a GPU, of processor time on a CPU, where other work then hardly matters.
    Without a `rung` the run has its own flags and noise, and its evaluation and its power are measured, too.
    """
    run_id, task = run.id, params.tasks[run.task]
    if batch_size is not None:
        recipe = task.recipe.model_copy(update={"batch_size": batch_size})
        task = task.model_copy(update={"recipe": recipe})
        params = params.model_copy(update={"tasks": params.tasks | {run.task: task}})
    flags = None
    if rung is not None:
        run, flags = replace(run, arm="det"), ladder(tf32=params.execution.precision == "tf32")[rung]
    conditions = set_conditions(params, run, layout, device, instead=flags)
    where, packed = conditions.device, conditions.packed
    gpu = Gpu(str(torch.cuda.get_device_properties(where).uuid)) if where.type == "cuda" else None
    setup = assemble(conditions, fresh_entropy())
    stream = endless(setup)
    startup = time.time() - psutil.Process().create_time()
    for _ in range(warmup):
        train_step(setup, next(stream))
    before = readings(gpu)
    marks = Marks(where)
    for _ in range(steps):
        train_step(setup, next(stream))  # the making of the batch belongs to the step
        marks.mark()
    seconds = marks.seconds()
    after = readings(gpu)
    estimated: dict[str, Any] = {}
    if rung is None:
        estimated["watts"] = mean_watts(setup, stream, gpu, where)
        evaluate(setup.model, setup.batches)  # the first one loads kernels and chooses algorithms
        clock = Marks(where)
        evaluate(setup.model, setup.batches)
        clock.mark()
        estimated["evaluation_seconds"] = clock.seconds()[0]
    return estimated | {
        "run": run_id,
        "rung": rung,
        "device": where.type,
        "batch_size": task.recipe.batch_size,
        "warmup": warmup,
        "startup_seconds": startup,
        "step_seconds": seconds,
        "clock": "CUDA events" if where.type == "cuda" else "processor time",
        "peak_memory_bytes": peak_memory(where),
        "model_bytes": sum(tensor.nbytes for tensor in model_state(setup.model).values()),
        "train_images": packed.n_train,
        "data": packed.digest,
        "before": before,
        "after": after,
        "flags": conditions.flags,
        "host": host_facts(where),
        "versions": versions(where),
    }


def endless(setup: Setup) -> Iterator[Batch]:
    """Full batches of one epoch after the other; the last, smaller one of an epoch would be a faster step."""
    epoch, full = 0, min(setup.batches.recipe.batch_size, setup.batches.train_count)
    while True:
        begin_epoch(setup, epoch)
        yield from (batch for batch in setup.batches.train(epoch) if len(batch.labels) >= full)
        epoch += 1


class Marks:
    """Points in time on a device, read only at the end, so that nothing waits in between."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._now: Callable[[], Any] = self._event if self._cuda else time.process_time
        if self._cuda:
            torch.cuda.synchronize(device)
        self._points: list[Any] = [self._now()]

    @staticmethod
    def _event() -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def mark(self) -> None:
        """Here ends a stretch and the next begins."""
        self._points.append(self._now())

    def seconds(self) -> list[float]:
        """The length of each stretch."""
        pairs = pairwise(self._points)
        if self._cuda:
            torch.cuda.synchronize()
            return [begin.elapsed_time(end) / 1000 for begin, end in pairs]
        return [end - begin for begin, end in pairs]


def mean_watts(setup: Setup, stream: Iterator[Batch], gpu: Gpu | None, device: torch.device) -> float | None:
    """Power of the GPU over `POWER_SECONDS` of steps, from its energy counter; None where it has no power reading.

    A card without such a counter gives its reading at the end: an average over the last second.
    """
    if gpu is None:
        return None
    begin, joules = synchronized(device), gpu.energy_millijoules()
    while (seconds := synchronized(device) - begin) < POWER_SECONDS:
        for _ in range(10):  # waiting after every step would leave the GPU idle in between
            train_step(setup, next(stream))
    end = gpu.energy_millijoules()
    return gpu.power_watts() if joules is None or end is None else (end - joules) / 1000 / seconds


def readings(gpu: Gpu | None) -> dict[str, float | int | None]:
    """Clock, temperature and power of the GPU now."""
    if gpu is None:
        return {}
    return {
        "clock_mhz": gpu.clock_mhz(),
        "temperature_celsius": gpu.temperature_celsius(),
        "power_watts": gpu.power_watts(),
    }


def peak_memory(device: torch.device) -> int:
    """Most bytes that torch reserved on a GPU; on a CPU those of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
