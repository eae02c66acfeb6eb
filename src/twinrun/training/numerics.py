"""Deterministic and free mode: one function sets the flags, reads them back and refuses a contradiction."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch.utils import deterministic as memory  # its one switch is a property that type checkers do not see

from twinrun.study.errors import MismatchError
from twinrun.study.flags import NumericFlags, flags_for
from twinrun.study.pins import CUBLAS, CUBLAS_DETERMINISTIC, leaks

Flags = dict[str, bool | int | str | None]


def set_numerics(*, deterministic: bool, precision: str, fill_uninitialized_memory: bool) -> Flags:
    """Put torch into deterministic or free mode and return the flags in force; `precision` as in the params.

    Raises as `apply_flags` does.
    """
    return apply_flags(
        flags_for(
            deterministic=deterministic,
            tf32=precision == "tf32",
            fill_uninitialized_memory=fill_uninitialized_memory,
        )
    )


def apply_flags(flags: NumericFlags) -> Flags:
    """Set torch's switches and return those in force, read back.

    Raises MismatchError when a flag cannot be brought to its value, or when a controlled environment variable has
    another one (they are read by libraries when torch is imported).
    """
    os.environ.pop(CUBLAS, None)  # this process may have had a run before
    wrong = leaks(os.environ)
    if wrong:
        raise MismatchError(
            f"environment variables that would change the results: {', '.join(sorted(wrong))}",
            "start the run with `twinrun train`, which sets them before torch is imported",
        )
    if flags.cublas_workspace:
        # cuBLAS picks its workspaces at run time unless told which. It looks when CUDA starts, which is later.
        os.environ[CUBLAS] = CUBLAS_DETERMINISTIC
    torch.set_num_threads(1)  # the split of a sum among threads changes its rounding
    # Operations without a deterministic implementation raise instead of differing silently.
    torch.use_deterministic_algorithms(flags.deterministic_algorithms)
    # Convolutions: only algorithms that give the same bits each time.
    torch.backends.cudnn.deterministic = flags.cudnn_deterministic
    # Autotuning picks an algorithm by measured speed, another one from process to process; ordinary training has it on.
    torch.backends.cudnn.benchmark = flags.cudnn_benchmark
    # Writes NaN into fresh memory to expose reads of it: most of deterministic mode's cost, and no bit changes.
    memory.fill_uninitialized_memory = flags.fill_uninitialized_memory  # type: ignore[attr-defined]
    # TF32 keeps 10 bits of the mantissa in matrix products on CUDA: a choice of precision, not of determinism.
    torch.backends.cuda.matmul.allow_tf32 = flags.tf32
    torch.backends.cudnn.allow_tf32 = flags.tf32

    wanted: Flags = {
        "deterministic_algorithms": flags.deterministic_algorithms,
        "cudnn_deterministic": flags.cudnn_deterministic,
        "cudnn_benchmark": flags.cudnn_benchmark,
        "fill_uninitialized_memory": flags.fill_uninitialized_memory,
        "cuda_matmul_tf32": flags.tf32,
        "cudnn_tf32": flags.tf32,
        "cpu_threads": 1,
        "cpu_capability": "AVX2",
        "cublas_workspace_config": CUBLAS_DETERMINISTIC if flags.cublas_workspace else None,
    }
    found = read_flags()
    for name, value in wanted.items():
        if found[name] != value:
            raise MismatchError(
                f"numerics: {name} is {found[name]!r} and should be {value!r}",
                "`twinrun doctor` says what this machine can do",
            )
    return found


def read_flags() -> Flags:
    """The flags in force, as torch reports them."""
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "fill_uninitialized_memory": memory.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "cuda_matmul_tf32": _tf32(torch.backends.cuda.matmul, torch.backends.cuda.matmul),
        "cudnn_tf32": _tf32(torch.backends.cudnn, torch.backends.cudnn.conv),  # type: ignore[attr-defined]
        "cpu_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cublas_workspace_config": os.environ.get(CUBLAS),
    }


def _tf32(old: Any, new: Any) -> bool:
    """Whether TF32 is on: by the older of torch's two ways to say so, which fails once a user has used the newer."""
    try:
        return bool(old.allow_tf32)
    except RuntimeError:
        return bool(new.fp32_precision == "tf32")
