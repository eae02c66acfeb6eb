"""Deterministic and free mode: the one place that sets torch's switches, reads them back and puts them back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from torch.utils import deterministic as memory  # its one switch is a property that type checkers do not see

from twinrun.study.errors import MismatchError
from twinrun.study.flags import INSTRUCTION_SET, NumericFlags
from twinrun.study.pins import CUBLAS, CUBLAS_DETERMINISTIC, leaks

Flags = dict[str, bool | int | str | None]
_VECTORS = ("avx", "amx", "fma")  # begin the names of instructions for vectors and matrices
_TF32 = ("cuda_matmul_tf32", "cudnn_tf32")
_workspace_in_force: list[str | None] = []  # what the last mode of this process set, if there was one


def apply_flags(flags: NumericFlags) -> Flags:
    """Put torch into the mode of a run or a measurement, and return the flags in force, read back.

    Raises MismatchError when a flag cannot be brought to its value, when a controlled environment variable has another
    one (libraries read them when torch is imported), and for a second mode in a process that has started CUDA.
    """
    before = os.environ.pop(CUBLAS, None)  # this process may have had a run before
    wrong = leaks(os.environ, flags.cpu_bits)
    if wrong:
        raise MismatchError(
            f"environment variables that would change the results: {', '.join(sorted(wrong))}",
            "start the run with `twinrun train`, which sets them before torch is imported",
        )
    wanted: Flags = {
        "deterministic_algorithms": flags.deterministic_algorithms,
        "cudnn_deterministic": flags.cudnn_deterministic,
        "cudnn_benchmark": flags.cudnn_benchmark,
        "fill_uninitialized_memory": flags.fill_uninitialized_memory,
        "cuda_matmul_tf32": flags.tf32,
        "cudnn_tf32": flags.tf32,
        "cpu_threads": 1,
        "cublas_workspace_config": CUBLAS_DETERMINISTIC if flags.cublas_workspace else None,
    }
    if flags.cpu_bits == "anywhere":
        wanted["cpu_capability"] = "AVX2"
    workspace = wanted["cublas_workspace_config"]
    if _workspace_in_force and _workspace_in_force[0] != workspace and torch.cuda.is_initialized():
        if before is not None:
            os.environ[CUBLAS] = before
        raise MismatchError(
            f"numerics: this process has started CUDA with {CUBLAS}={_workspace_in_force[0]}, and cuBLAS keeps to it: "
            f"{workspace} would not take effect",
            "run the other mode in a process of its own, as `twinrun train` and `twinrun sweep` do",
        )
    _workspace_in_force[:] = [str(workspace) if workspace else None]
    set_flags({name: value for name, value in wanted.items() if name in _SET})
    in_force = read_flags()
    for name, value in wanted.items():
        if in_force[name] != value:
            raise MismatchError(
                f"numerics: {name} is {in_force[name]!r} and should be {value!r}",
                "`twinrun doctor` says what this machine can do",
            )
    if flags.cpu_bits == "this_cpu":
        in_force[INSTRUCTION_SET] = instruction_set()
    return in_force


def read_flags() -> Flags:
    """The flags in force, as torch reports them."""
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "fill_uninitialized_memory": memory.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "cuda_matmul_tf32": _tf32(torch.backends.cuda.matmul, "fp32_precision"),
        "cudnn_tf32": _tf32(torch.backends.cudnn, "conv.fp32_precision"),
        "cpu_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cublas_workspace_config": os.environ.get(CUBLAS),
    }


def set_flags(flags: Flags) -> None:
    """Set just these flags, named as `read_flags` does."""
    for name, value in flags.items():
        _SET[name](value)


@contextmanager
def flags_kept() -> Iterator[None]:
    """Put the flags back at the end of the block as they were before it, but for TF32, a user's own choice."""
    before = {name: value for name, value in read_flags().items() if name in _SET and name not in _TF32}
    warn_only, started = torch.is_deterministic_algorithms_warn_only_enabled(), torch.cuda.is_initialized()
    try:
        yield
    finally:
        if before["cublas_workspace_config"] is None and torch.cuda.is_initialized() and not started:
            # cuBLAS reads it once: where CUDA was started in the block, it holds on, and the next block must see that.
            del before["cublas_workspace_config"]
        set_flags(before)
        torch.use_deterministic_algorithms(bool(before["deterministic_algorithms"]), warn_only=warn_only)


def _set_deterministic(value: Any) -> None:
    # What use_deterministic_algorithms sets, but for the compiler's own switch: to set that, it imports the compiler,
    # which takes a third of the time in which a run starts (measured), and no run compiles anything.
    torch.set_deterministic_debug_mode("error" if value else "default")
    if compiler := sys.modules.get("torch._inductor.config"):
        compiler.deterministic = bool(value)  # type: ignore[attr-defined]


def _set_workspace(value: Any) -> None:
    # cuBLAS picks its workspaces at run time unless told which. It looks when CUDA starts, which is later.
    if value is None:
        os.environ.pop(CUBLAS, None)
    else:
        os.environ[CUBLAS] = str(value)


_SET: dict[str, Callable[[Any], None]] = {
    # Operations without a deterministic implementation raise instead of differing silently.
    "deterministic_algorithms": _set_deterministic,
    # Convolutions: only algorithms that give the same bits each time.
    "cudnn_deterministic": lambda value: setattr(torch.backends.cudnn, "deterministic", value),
    # Autotuning picks an algorithm by measured speed, another one from process to process; ordinary training has it on.
    "cudnn_benchmark": lambda value: setattr(torch.backends.cudnn, "benchmark", value),
    # Writes NaN into fresh memory to expose reads of it: most of deterministic mode's cost, and no bit changes.
    "fill_uninitialized_memory": lambda value: setattr(memory, "fill_uninitialized_memory", value),
    # TF32 keeps 10 bits of the mantissa in matrix products on CUDA: a choice of precision, not of determinism.
    "cuda_matmul_tf32": lambda value: setattr(torch.backends.cuda.matmul, "allow_tf32", value),
    "cudnn_tf32": lambda value: setattr(torch.backends.cudnn, "allow_tf32", value),
    "cpu_threads": torch.set_num_threads,  # the split of a sum among threads changes its rounding
    "cublas_workspace_config": _set_workspace,
}


def _tf32(backend: Any, newer: str) -> bool:
    """Whether TF32 is on: by the older of torch's two ways to say so, which fails once a user has used the newer."""
    try:
        return bool(backend.allow_tf32)
    except RuntimeError:
        return bool(attrgetter(newer)(backend) == "tf32")


def instruction_set() -> str:
    """What the libraries choose their CPU code by: torch's own level, the maker, the instructions, the caches.

    As the processor itself says, for an emulator passes the host's /proc/cpuinfo on.
    """
    facts = torch.cpu.get_capabilities()
    instructions = sorted(name for name, there in facts.items() if there is True and name.startswith(_VECTORS))
    maker = str(facts["cpu_name"]).partition(" ")[0]  # MKL
    caches = "/".join(str(facts[f"{level}_cache_size"] // 1024) for level in ("l1d", "l2"))  # oneDNN
    return f"{torch.backends.cpu.get_cpu_capability()} {maker} {' '.join(instructions)} {caches} KiB"
