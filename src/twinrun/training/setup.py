"""The one set-up of a run: device, noise, flags and data first, then model, optimizer and batches from its streams."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer

from twinrun.data.packed import Packed, load_packed
from twinrun.study import schema
from twinrun.study.errors import DeviceError, InputError
from twinrun.study.flags import NumericFlags, flags_for
from twinrun.study.grid import Run
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.training.batches import Batches
from twinrun.training.fingerprint import fingerprint
from twinrun.training.models import build_model
from twinrun.training.numerics import Flags, apply_flags
from twinrun.training.optimizers import build_optimizer
from twinrun.training.randomness import Noise, StreamDropout, Streams, take_over_dropout

NoiseKind = Literal["none", "native", "reorder", "ulp"]
EMULATED = ("reorder", "ulp")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # options of mallopt in glibc's malloc.h
NO_CUDA = "`twinrun doctor` says why; in a container: docker run --gpus all, apptainer run --nv; or use --device cpu"


@dataclass(frozen=True)
class Conditions:
    """What holds before a run has any weights: its device, its kind of noise, the flags in force, its data."""

    params: Params
    run: Run
    root: Path
    device: torch.device
    noise_kind: NoiseKind
    flags: Flags
    packed: Packed

    @property
    def needs_entropy(self) -> bool:
        """Whether the noise is drawn from numbers, which a record keeps."""
        return self.noise_kind in EMULATED


@dataclass(frozen=True)
class Setup:
    """A run ready for its first step; `initial` is the fingerprint before it."""

    conditions: Conditions
    noise: Noise
    model: nn.Module
    dropouts: list[StreamDropout]
    optimizer: Optimizer
    settings: schema.Adam | schema.Sgd
    loss: Callable[
        [torch.Tensor, torch.Tensor], torch.Tensor
    ]  # of logits (b, classes) and labels (b,): their mean loss
    batches: Batches
    streams: Streams
    initial: str


def set_conditions(
    params: Params, run: Run, layout: Layout, device: str, *, instead: NumericFlags | None = None
) -> Conditions:
    """Choose the device, load the data and put torch into the run's mode; with `instead`, under those flags, no noise.

    Raises InputError for a device or data that are not there, MismatchError for flags that cannot be brought in force.
    """
    name = choose_device(device)
    if name == "cuda" and params.execution.cpu_bits == "this_cpu":
        raise InputError("execution.cpu_bits: this_cpu is for device cpu only", "leave it out, or train on the CPU")
    kind = noise_kind(params, run, name) if instead is None else "none"
    packed = load_packed(layout.prepared(run.task), params.data_params_digest(run.task))
    flags = apply_flags(instead or own_flags(params, kind))
    if name == "cpu":
        keep_freed_memory()
    return Conditions(params, run, layout.root, torch.device(name), kind, flags, packed)


def keep_freed_memory() -> None:
    """Have glibc keep the large blocks of a step for the next one; benchmarks/kept_memory.py says what that gains.

    By itself it gives blocks from 32 MiB on back to the system, which has to map and clear all their pages again. From
    128 MiB on they still go back: an evaluation's would stay for the whole run. Other C libraries are left as they are.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        # Before 2.35 glibc refuses more than 32 MiB. The second alone would have it map every block from 128 KiB on.
        if libc.mallopt(_MMAP_THRESHOLD, 128 << 20) or libc.mallopt(_MMAP_THRESHOLD, 32 << 20):
            libc.mallopt(_TRIM_THRESHOLD, (2 << 30) - 1)


def assemble(conditions: Conditions, entropy: str | None = None) -> Setup:
    """Build the run's model with its initial weights, its optimizer and its batches on the device.

    `entropy` is what emulated noise is drawn from.
    """
    params, run, packed, device = conditions.params, conditions.run, conditions.packed, conditions.device
    noise = Noise(conditions.noise_kind, entropy if conditions.needs_entropy else None)
    task, streams = params.tasks[run.task], Streams.of(run)
    streams.seed_initialization()
    model = build_model(task.model, len(packed.classes), conditions.root, packed.image_size)
    dropouts = take_over_dropout(model)
    noise.disturb(model, packed.image_size)
    initial = fingerprint(model)
    adapt(model, device, params.execution)
    settings = task.optimizer(run.optimizer)
    optimizer = build_optimizer(settings, model)
    batches = Batches(packed, task.recipe, streams, noise, device, channels_last=params.execution.channels_last)
    loss = training_loss(task.recipe, batches.train_labels, packed.classes)
    return Setup(conditions, noise, model, dropouts, optimizer, settings, loss, batches, streams, initial)


def training_loss(
    recipe: schema.Recipe, labels: torch.Tensor, classes: Sequence[str]
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Cross-entropy, its mean over a batch weighted as the recipe says; `labels` (n,) are those of the training set.

    Raises InputError where a class that has no training example would be divided by.
    """
    if recipe.class_weights == "none":
        return functional.cross_entropy
    counts = torch.bincount(labels.cpu(), minlength=len(classes)).double()
    if absent := [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]:
        raise InputError(
            f"class_weights: balanced: class {absent[0]!r} has no training example to weigh",
            "class_weights: none, or leave the class out",
        )
    weights = len(labels) / (len(classes) * counts)
    return partial(functional.cross_entropy, weight=weights.float().to(labels.device))


def choose_device(name: str) -> Literal["cpu", "cuda"]:
    """The device that `auto`, `cpu` or `cuda` means here; DeviceError when CUDA is asked for and absent."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise InputError(f"device {name!r} is not known", "cpu, cuda or auto")
    if not torch.cuda.is_available():
        raise DeviceError("device cuda: torch sees no CUDA device", NO_CUDA)
    return "cuda"


def noise_kind(params: Params, run: Run, device: str) -> NoiseKind:
    """The implementation noise of that run on that device."""
    if not run.free_noise:
        return "none"
    kind = "ulp" if run.arm == "ulp" else params.execution.noise
    if kind == "auto":
        return "native" if device == "cuda" else "reorder"
    if kind == "native" and device == "cpu":
        raise InputError("execution.noise native: a single-threaded CPU run has none", "use auto, reorder or ulp")
    return kind


def own_flags(params: Params, kind: NoiseKind) -> NumericFlags:
    """The flags of a run: emulated noise replays, so a run with it is deterministic in all else."""
    return flags_for(
        deterministic=kind != "native",
        tf32=params.execution.precision == "tf32",
        fill_uninitialized_memory=params.execution.fill_uninitialized_memory,
        cpu_bits=params.execution.cpu_bits,
    )


def adapt(model: nn.Module, device: torch.device, execution: schema.Execution) -> None:
    """Put the model on the device, in the memory format and with the precision of the params."""
    model.to(device)
    if execution.channels_last:
        if device.type == "cpu":
            # Measured: with PyTorch 2.11 a thin network corrupts the heap there (4 channels, AVX2 kernels).
            raise InputError("execution.channels_last: true is for CUDA devices only", "set it to false for a CPU run")
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adapt_precision(model, device.type, execution.precision)


def adapt_precision(model: nn.Module, device_type: str, precision: str) -> None:
    """Have the model compute with the precision of the params."""
    if precision == "bf16":
        mixed = MixedPrecision(device_type)
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
