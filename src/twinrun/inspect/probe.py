"""Time of single training steps in a fresh process: under given flags for `twinrun cost`, a run's own for an estimate.

twinrun probe digits/sgd/42/det_1 --rung one_thread      # in a study folder after `twinrun prepare`; prints JSON
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

from twinrun.data.packed import load_packed
from twinrun.inspect.ladder import Rung, ladder_for
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.training.batches import Batch
from twinrun.training.checkpoint import model_state
from twinrun.training.environment import host_facts, versions
from twinrun.training.fingerprint import fingerprint
from twinrun.training.gpu import Gpu
from twinrun.training.loop import begin_epoch, evaluate, synchronized, train_step
from twinrun.training.numerics import read_flags, set_flags
from twinrun.training.randomness import fresh_entropy
from twinrun.training.setup import Conditions, Setup, assemble, set_conditions

POWER_SECONDS = 2.0  # NVML's energy counter moves every tenth of a second or so
LEAST_STEPS = 3  # of which the median is taken, however slow they are
FIXED_STEPS = {"cuda": 20, "cpu": 3}  # before a fingerprint that processes are compared by; a CPU's steps are slow
WARM_AGAIN = 0.2  # seconds of warm-up of a process that is measured again: the processor is warm from the others


class Probe:
    """A run under the flags of `rung`, ready and idle until it is measured; None: under its own flags and noise."""

    def __init__(
        self, params: Params, run: Run, layout: Layout, *, rung: str | None, batch_size: int | None, device: str
    ) -> None:
        task = params.tasks[run.task]
        if batch_size is not None:
            recipe = task.recipe.model_copy(update={"batch_size": batch_size})
            task = task.model_copy(update={"recipe": recipe})
            params = params.model_copy(update={"tasks": params.tasks | {run.task: task}})
        self.run_id, self.rung, self.batch_size = run.id, rung, task.recipe.batch_size
        self.settings: Rung | None = None
        if rung is None:
            conditions = set_conditions(params, run, layout, device)
        else:
            run = replace(run, arm="det")
            self.settings = ladder_for(device, tf32=params.execution.precision == "tf32").rungs[rung]
            conditions = rung_conditions(params, run, layout, device, self.settings)
        self.device, self.conditions = conditions.device, conditions
        cuda = self.device.type == "cuda"
        self.gpu = Gpu(str(torch.cuda.get_device_properties(self.device).uuid)) if cuda else None
        self.setup = assemble(conditions, fresh_entropy())
        self.stream = endless(self.setup)
        self.startup_seconds = time.time() - psutil.Process().create_time()
        self.fingerprint: str | None = None

    def measure(self, seconds: float, warmup: float) -> dict[str, Any]:
        """Train for `warmup` and then for `seconds`; seconds of each step, and the machine.

        On a GPU they are between CUDA events. On a CPU they are wall time on a rung, for threads share the work, and
        else processor time, where other work hardly matters. On a rung the first time begins with a fixed number of
        steps and the fingerprint after them.
        """
        begin = time.perf_counter()
        if self.fingerprint is None and self.rung is not None:
            for _ in range(FIXED_STEPS[self.device.type]):
                self.step()
            self.fingerprint = fingerprint(self.setup.model)
        elif self.rung is not None:
            warmup = min(warmup, WARM_AGAIN)
        self.step()
        while time.perf_counter() - begin < warmup:
            self.step()
        before = readings(self.gpu)
        marks = Marks(self.device, wall=self.rung is not None)
        begin, count = time.perf_counter(), 0
        while count < LEAST_STEPS or time.perf_counter() - begin < seconds:
            self.step()  # the making of the batch belongs to it
            marks.mark()
            count += 1
        step_seconds = marks.seconds()
        after = readings(self.gpu)
        if self.settings and self.settings.fingerprints:
            # One an epoch, its time spread over the epoch's steps.
            fingerprint(self.setup.model)
            marks = Marks(self.device, wall=True)
            fingerprint(self.setup.model)
            marks.mark()
            share = marks.seconds()[0] / -(-self.conditions.packed.n_train // self.batch_size)
            step_seconds = [step + share for step in step_seconds]
        return {
            "run": self.run_id,
            "rung": self.rung,
            "device": self.device.type,
            "batch_size": self.batch_size,
            "warmup_seconds": warmup,
            "startup_seconds": self.startup_seconds,
            "step_seconds": step_seconds,
            "clock": marks.name,
            "fingerprint": self.fingerprint,
            "peak_memory_bytes": peak_memory(self.device),
            "train_images": self.conditions.packed.n_train,
            "data": self.conditions.packed.digest,
            "before": before,
            "after": after,
            "flags": self.conditions.flags,
            "host": host_facts(self.device),
            "versions": versions(self.device),
        }

    def estimate(self) -> dict[str, Any]:
        """Power, seconds of one evaluation and bytes of the model: what an estimate needs beside the steps."""
        watts = mean_watts(self.setup, self.stream, self.gpu, self.device)
        evaluate(self.setup.model, self.setup.batches)  # the first one loads kernels and chooses algorithms
        clock = Marks(self.device, wall=False)
        evaluate(self.setup.model, self.setup.batches)
        clock.mark()
        size = sum(tensor.nbytes for tensor in model_state(self.setup.model).values())
        return {"watts": watts, "evaluation_seconds": clock.seconds()[0], "model_bytes": size}

    def step(self) -> None:
        """One training step on the next batch."""
        train_step(self.setup, next(self.stream))


def rung_conditions(params: Params, run: Run, layout: Layout, device: str, rung: Rung) -> Conditions:
    """A run's conditions under the flags of a rung; on a CPU those that runs refuse, too."""
    if device != "cpu":
        return set_conditions(params, run, layout, device, instead=rung.flags)
    packed = load_packed(layout.prepared(run.task), params.data_params_digest(run.task))
    set_flags({"deterministic_algorithms": rung.flags.deterministic_algorithms, "fill_uninitialized_memory": False})
    return Conditions(params, run, layout.root, torch.device("cpu"), "none", read_flags(), packed)


def endless(setup: Setup) -> Iterator[Batch]:
    """Full batches of one epoch after the other; the last, smaller one of an epoch would be a faster step."""
    epoch, full = 0, min(setup.batches.recipe.batch_size, setup.batches.train_count)
    while True:
        begin_epoch(setup, epoch)
        yield from (batch for batch in setup.batches.train(epoch) if len(batch.labels) >= full)
        epoch += 1


class Marks:
    """Points in time on a device, read only at the end, so that nothing waits in between."""

    def __init__(self, device: torch.device, *, wall: bool) -> None:
        self._cuda = device.type == "cuda"
        self.name = "CUDA events" if self._cuda else "wall time" if wall else "processor time"
        self._now: Callable[[], Any] = self._event if self._cuda else time.perf_counter if wall else time.process_time
        if self._cuda:
            torch.cuda.synchronize(device)
        self._points: list[Any] = [self._now()]

    @staticmethod
    def _event() -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def mark(self) -> None:
        """End a stretch of time and begin the next."""
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
