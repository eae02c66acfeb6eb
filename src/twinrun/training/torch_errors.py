"""What PyTorch raises, as one sentence: no memory, a GPU that is gone, no deterministic kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from torch import nn

from twinrun.study.errors import DeviceError, InputError, OutOfMemoryError

NOT_DETERMINISTIC = " does not have a deterministic implementation"
_NO_ENGINE = "unable to find an engine"  # cuDNN: no algorithm of those allowed ran, with the memory that there was
# A refused allocation on the CPU, by the CUDA runtime, and by its libraries: nothing but words tells them from others.
_NO_MEMORY = re.compile(r"DefaultCPUAllocator|out of memory|ALLOC(ATION)?_FAILED")


def short_of_memory(error: BaseException) -> bool:
    """Whether it says that the device or the machine had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    no_engine = _NO_ENGINE in str(error) and not torch.are_deterministic_algorithms_enabled()
    return no_engine or bool(_NO_MEMORY.search(str(error)))


@contextmanager
def named_torch_errors(what: str, batch_size: int | None = None) -> Iterator[None]:
    """Raise the named error for what PyTorch could not do in `what`, such as a run's id; all else passes.

    OutOfMemoryError, DeviceError for a GPU that failed, InputError for an operation that deterministic mode refuses.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = str(error)
        if short_of_memory(error):
            words = f"{what}: out of memory{f': {said}' if said else ''}".partition("\n")[0]
            raise OutOfMemoryError(words, _less_memory(batch_size)) from error
        if isinstance(error, torch.AcceleratorError):
            # It has spoiled the process: nothing more can be done with the device in it.
            words = f"{what}: the GPU failed: {said}".partition("\n")[0]
            hint = "look at `nvidia-smi` and `dmesg`, then give the same command again: checkpoints are kept"
            raise DeviceError(words, hint) from error
        if _NO_ENGINE in said:
            words = f"{what}: cuDNN found no algorithm that deterministic mode allows: {said}".partition("\n")[0]
            hint = "try execution.channels_last: false or another precision, or lower batch_size: memory may be short"
            raise InputError(words, hint) from error
        if NOT_DETERMINISTIC in said:
            operation, module = said.partition(NOT_DETERMINISTIC)[0], _innermost_module(error.__traceback__)
            place = f" in {module}" if module else ""
            words = f"{what}: the operation {operation}{place}{NOT_DETERMINISTIC} on this device"
            raise InputError(words, "`twinrun audit` names the layer and what to use in its place") from error
        raise


def refuse_hidden_shortage(what: str, device: torch.device, batch_size: int) -> None:
    """OutOfMemoryError when an allocation has failed in this process, though PyTorch raised nothing.

    Its convolutions then take cuDNN's next engine, which needs less memory and may give other bits.
    """
    failed = torch.cuda.memory_stats(device)["num_ooms"] if device.type == "cuda" else 0
    if failed:
        words = f"{what}: out of memory: {failed} allocations failed, and PyTorch went on with other algorithms"
        raise OutOfMemoryError(f"{words}, whose bits may differ", _less_memory(batch_size))


def _less_memory(batch_size: int | None) -> str:
    size = f" ({batch_size})" if batch_size else ""
    return f"run fewer at a time (`--jobs` of a sweep), or lower batch_size{size}, image_size or model width"


def _innermost_module(trace: TracebackType | None) -> str | None:
    """Class of the module whose code failed; None in the backward pass, which passes through no module's code."""
    innermost = None
    while trace:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            innermost = type(owner).__name__
        trace = trace.tb_next
    return innermost
