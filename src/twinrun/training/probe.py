"""Time of single training steps under given flags, in a fresh process: what `twinrun cost` and `plan --estimate` ask.

twinrun probe digits --rung free --steps 20         # in a study folder after `twinrun prepare`; prints JSON
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

from twinrun.data.packed import load_packed
from twinrun.study.grid import Run
from twinrun.study.ladder import ladder
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.training.batches import Batch, Batches
from twinrun.training.environment import host_facts, versions
from twinrun.training.gpu import Gpu
from twinrun.training.loop import choose_device, evaluate
from twinrun.training.models import build_model
from twinrun.training.numerics import apply_flags
from twinrun.training.optimizers import build_optimizer
from twinrun.training.randomness import Noise, Streams, take_over_dropout


def probe(
    params: Params, run: Run, layout: Layout, *, rung: str, batch_size: int | None, steps: int, warmup: int, device: str
) -> dict[str, Any]:
    """Train `warmup` and then `steps` steps of `run` under the flags of `rung`; seconds of each step, and the machine.

    Seconds are between CUDA events on a GPU, of processor time on a CPU, where other work then hardly matters.
    """
    name = choose_device(device)
    where = torch.device(name)
    gpu = Gpu(str(torch.cuda.get_device_properties(where).uuid)) if name == "cuda" else None
    flags = apply_flags(ladder(tf32=params.execution.precision == "tf32")[rung])
    task = params.tasks[run.task]
    packed = load_packed(layout.prepared(run.task), params.data_params_digest(run.task))
    recipe = task.recipe if batch_size is None else task.recipe.model_copy(update={"batch_size": batch_size})
    streams = Streams.of(replace(run, arm="det"))
    streams.seed_initialization()
    model = build_model(task.model, len(packed.classes), layout.root, packed.image_size)
    dropouts = take_over_dropout(model)
    model.to(where)
    optimizer = build_optimizer(task.optimizer(run.optimizer), model)
    batches = Batches(packed, recipe, streams, Noise("none", None), where)
    for dropout in dropouts:
        dropout.start_epoch(streams.dropout, 0)

    def step(batch: Batch) -> None:
        loss = functional.cross_entropy(model(batch.images), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    model.train()
    stream = endless(batches)
    for _ in range(warmup):
        step(next(stream))
    before = readings(gpu)
    marks = Marks(where)
    for _ in range(steps):
        step(next(stream))  # the making of the batch belongs to the step
        marks.mark()
    seconds = marks.seconds()
    after = readings(gpu)
    clock = Marks(where)
    evaluate(model, batches)
    clock.mark()
    return {
        "run": run.id,
        "rung": rung,
        "device": name,
        "batch_size": recipe.batch_size,
        "warmup": warmup,
        "step_seconds": seconds,
        "clock": "CUDA events" if name == "cuda" else "processor time",
        "evaluation_seconds": clock.seconds()[0],
        "peak_memory_bytes": peak_memory(where),
        "train_images": packed.n_train,
        "before": before,
        "after": after,
        "flags": flags,
        "host": host_facts(where),
        "versions": versions(),
    }


def endless(batches: Batches) -> Iterator[Batch]:
    """Full batches of one epoch after the other; the last, smaller one of an epoch would be a faster step."""
    epoch = 0
    while True:
        yield from (
            b for b in batches.train(epoch) if len(b.labels) == min(batches.recipe.batch_size, batches.train_count)
        )
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
