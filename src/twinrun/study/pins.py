"""The environment variables of a run: pinned before torch is imported, so that the shell cannot change the bits."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

CpuBits = Literal["anywhere", "this_cpu"]

# Measured: with these, a training step gives the same bits on every x86-64 CPU that has AVX2; without any one of
# the first three it does not.
PINNED = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own vectorized kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    "MKL_CBWR": "COMPATIBLE",  # matrix products and vector mathematics: same results on Intel and AMD
    "OMP_NUM_THREADS": "1",  # the split of a sum among threads changes its rounding
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # order of sets and dicts of strings in a user's own model code
    "PYTHONNOUSERSITE": "1",  # packages of a user's home are not those of the lock
    "PYTHONSAFEPATH": "1",  # nor is a file in the study folder that has a package's name
}
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_DETERMINISTIC = ":4096:8"
# Left free, NCCL chooses all three by message size, topology and measured speed, and with them the order in which it
# adds the numbers of several GPUs. Source: NVIDIA, NCCL user guide, environment variables.
NCCL = {
    "NCCL_ALGO": "Ring",
    "NCCL_PROTO": "Simple",
    "NCCL_MIN_NCHANNELS": "4",
    "NCCL_MAX_NCHANNELS": "4",
}
SEED, ARM = "TWINRUN_SEED", "TWINRUN_ARM"  # set by `twinrun twins`, read by `twinrun.controlled`
JOBS = "TWINRUN_JOBS"  # set by a sweep, noted by its runs: how many share the machine, beside which autotuning is timed
# Variables that would override the numerics from outside. numerics.py decides about cuBLAS's workspaces.
REMOVED = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_CUDNN_V8_API_DISABLED",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUBLASLT_UNIFIED_WORKSPACE",
    "CUBLASLT_WORKSPACE_SIZE",
    CUBLAS,
    "PYTORCH_TUNABLEOP_ENABLED",  # matrix products by measured speed
    "PYTORCH_TUNABLEOP_TUNING",
    "PYTORCH_TUNABLEOP_FILENAME",
    "DISABLE_ADDMM_CUDA_LT",
    "TORCH_CUDNN_USE_HEURISTIC_MODE_B",
    "CUDNN_ERRATA_JSON_FILE",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATE_DOUBLE_PRECISION",
    "CUBLAS_EMULATION_STRATEGY",
    "DNNL_MAX_CPU_ISA",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_DYNAMIC",
    "OMP_DYNAMIC",
    "GLIBC_TUNABLES",  # chooses other variants of the C library's mathematics
)
# With these in their place, the libraries take the best instructions that the processor has; MKL still promises the
# same bits from run to run, wherever in memory its arrays lie.
_THIS_CPU: dict[str, str | None] = {"ATEN_CPU_CAPABILITY": None, "ONEDNN_MAX_CPU_ISA": None, "MKL_CBWR": "AUTO"}


def _wanted(cpu_bits: CpuBits) -> dict[str, str | None]:
    return {**dict.fromkeys(REMOVED), **PINNED, **(_THIS_CPU if cpu_bits == "this_cpu" else {})}


def leaks(environment: Mapping[str, str], cpu_bits: CpuBits = "anywhere") -> dict[str, str | None]:
    """The controlled variables that are not as they must be, with the value they have now (None: unset)."""
    return {name: environment.get(name) for name, value in _wanted(cpu_bits).items() if environment.get(name) != value}


def clean_environment(base: Mapping[str, str] | None = None, cpu_bits: CpuBits = "anywhere") -> dict[str, str]:
    """A copy of `base` (default: this process's environment) with every controlled variable as it must be."""
    wanted = _wanted(cpu_bits)
    kept = {name: value for name, value in (os.environ if base is None else base).items() if name not in wanted}
    return kept | {name: value for name, value in wanted.items() if value is not None}
