"""What PyTorch raises in training, as one sentence: no memory, a GPU that is gone, no deterministic kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from torch import nn

from twinrun.study.errors import DeviceError, InputError, OutOfMemoryError

_CPU_ALLOCATOR = "DefaultCPUAllocator"  # begins the words of a refused allocation on the CPU, a plain RuntimeError
_NOT_DETERMINISTIC = " does not have a deterministic implementation"


@contextmanager
def named_faults(run_id: str, batch_size: int) -> Iterator[None]:
    """Raise the named error for what PyTorch could not do in the run; all else passes.

    OutOfMemoryError, DeviceError for a GPU that failed, InputError for an operation that deterministic mode refuses.
    """
    try:
        yield
    except torch.AcceleratorError as error:
        # It has spoiled the process: nothing more can be done with the device in it.
        first = str(error).partition("\n")[0]
        hint = "the last checkpoint is kept: look at `nvidia-smi` and `dmesg`, then the same command goes on"
        raise DeviceError(f"{run_id}: the GPU failed: {first}", hint) from error
    except (RuntimeError, MemoryError) as error:
        said = str(error)
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_ALLOCATOR in said:
            words = f"{run_id}: out of memory{f': {said}' if said else ''}".partition("\n")[0]
            hint = f"run fewer at a time (`--jobs`), or lower batch_size ({batch_size}), image_size or model width"
            raise OutOfMemoryError(words, hint) from error
        if _NOT_DETERMINISTIC in said:
            operation, module = said.partition(_NOT_DETERMINISTIC)[0], _innermost_module(error.__traceback__)
            place = f" in {module}" if module else ""
            words = f"{run_id}: the operation {operation}{place}{_NOT_DETERMINISTIC} on this device"
            raise InputError(words, "`twinrun audit` names the layer and what to use in its place") from error
        raise


def _innermost_module(trace: TracebackType | None) -> str | None:
    """Class of the module whose code failed; None in the backward pass, which passes through no module's code."""
    found = None
    while trace:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            found = type(owner).__name__
        trace = trace.tb_next
    return found
