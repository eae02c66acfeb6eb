"""The environment variables of a run: pinned before torch is imported, so that the shell cannot change the bits."""

from __future__ import annotations

import os
from collections.abc import Mapping

# Measured: with these, a training step gives the same bits on every x86-64 CPU that has AVX2; without any one of
# the first three it does not.
PINNED = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own vectorized kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    "MKL_CBWR": "COMPATIBLE",  # matrix products and vector mathematics: same results on Intel and AMD
    "OMP_NUM_THREADS": "1",  # the split of a sum among threads changes its rounding
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # order of sets and dicts of strings in a user's own model code
}
# cuBLAS picks workspaces at run time unless told which; ordinary training leaves it free.
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_DETERMINISTIC = ":4096:8"
# Variables that would override the numerics from outside.
REMOVED = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_CUDNN_V8_API_DISABLED",
    "DNNL_MAX_CPU_ISA",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_DYNAMIC",
    "OMP_DYNAMIC",
    "PYTORCH_TEST_WITH_SLOW",
)


def pinned(deterministic: bool) -> dict[str, str | None]:
    """Every variable that a run controls, with the value it must have; None: it must be unset."""
    wanted: dict[str, str | None] = dict(PINNED)
    wanted |= dict.fromkeys(REMOVED)
    wanted[CUBLAS] = CUBLAS_DETERMINISTIC if deterministic else None
    return wanted


def leaks(environment: Mapping[str, str], deterministic: bool) -> dict[str, str | None]:
    """The controlled variables that are not as they must be, with the value they have now (None: unset)."""
    return {
        name: environment.get(name) for name, value in pinned(deterministic).items() if environment.get(name) != value
    }


def clean_environment(deterministic: bool, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of `base` (default: this process's environment) with every controlled variable as it must be."""
    environment = dict(os.environ if base is None else base)
    for name, value in pinned(deterministic).items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    return environment
