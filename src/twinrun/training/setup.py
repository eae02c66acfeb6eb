"""A run ready to be trained: model, optimizer and batches as its params, streams and noise make them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from twinrun.data.packed import Packed
from twinrun.study import schema
from twinrun.study.errors import InputError
from twinrun.study.grid import Run
from twinrun.study.params import Params
from twinrun.training.batches import Batches
from twinrun.training.fingerprint import fingerprint
from twinrun.training.models import build_model
from twinrun.training.optimizers import build_optimizer
from twinrun.training.randomness import Noise, StreamDropout, Streams, take_over_dropout


@dataclass(frozen=True)
class Trainee:
    """What a run's steps work on; `initial` is the fingerprint before the first of them."""

    model: nn.Module
    dropouts: list[StreamDropout]
    optimizer: Optimizer
    settings: schema.Adam | schema.Sgd
    batches: Batches
    streams: Streams
    initial: str


def adapt(model: nn.Module, device: torch.device, execution: schema.Execution) -> None:
    """Put the model on the device, in the memory format and with the precision of the params."""
    model.to(device)
    if execution.channels_last:
        if device.type == "cpu":
            # Measured: with PyTorch 2.11 a thin network corrupts the heap there (4 channels, AVX2 kernels).
            raise InputError("execution.channels_last: true is for CUDA devices only", "set it to false for a CPU run")
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if execution.precision == "bf16":
        mixed = MixedPrecision(device.type)
        model.register_forward_pre_hook(mixed.begin)
        model.register_forward_hook(mixed.end, always_call=True)


class MixedPrecision:
    """bfloat16 in a model's calls, by hooks: a copy has its own, where a wrapped `forward` would be the original's."""

    def __init__(self, device_type: str) -> None:
        self.device_type = device_type
        self.open: list[torch.autocast] = []

    def begin(self, module: nn.Module, inputs: Any) -> None:
        """Before the model's forward pass."""
        self.open.append(torch.autocast(self.device_type, torch.bfloat16))
        self.open[-1].__enter__()

    def end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """After it, also when it failed."""
        self.open.pop().__exit__(None, None, None)


def assemble(params: Params, run: Run, packed: Packed, noise: Noise, device: torch.device, root: Path) -> Trainee:
    """Build the run's model with its initial weights, its optimizer and its batches on `device`."""
    task, streams = params.tasks[run.task], Streams.of(run)
    streams.seed_initialization()
    model = build_model(task.model, len(packed.classes), root, packed.image_size)
    dropouts = take_over_dropout(model)
    noise.disturb(model, packed.image_size)
    initial = fingerprint(model)
    adapt(model, device, params.execution)
    settings = task.optimizer(run.optimizer)
    optimizer = build_optimizer(settings, model)
    batches = Batches(packed, task.recipe, streams, noise, device, channels_last=params.execution.channels_last)
    return Trainee(model, dropouts, optimizer, settings, batches, streams, initial)
