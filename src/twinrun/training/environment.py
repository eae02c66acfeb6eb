"""What a run notes about the machine and the software that it ran on."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch

from twinrun.study.pins import CUBLAS, JOBS, PINNED
from twinrun.training.gpu import Gpu

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pydicom", "safetensors", "timm")


def host_facts(device: torch.device) -> dict[str, str | int | float | None]:
    """Processor, memory, operating system, and the GPU with its driver where one is used."""
    facts: dict[str, str | int | float | None] = {
        "hostname": platform.node(),
        "system": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "gpu": None,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "gpu_uuid": str(properties.uuid),
            "gpu_memory_bytes": properties.total_memory,
            "gpu_capability": f"{properties.major}.{properties.minor}",
        }
    return facts


def gpu_name(device: torch.device) -> str | None:
    """The model of the GPU in use."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions(device: torch.device) -> dict[str, str]:
    """Versions of what can change the bits or the speed on that device; a package that is not installed is left out."""
    installed = {}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    installed |= {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    if torch.backends.cudnn.is_available():
        installed["cudnn"] = str(torch.backends.cudnn.version())
    if device.type == "cuda":
        driver = Gpu(str(torch.cuda.get_device_properties(device).uuid)).driver_version()
        installed |= {"driver": str(driver), "cublas": str(cublas_version())}
    return installed


def cublas_version() -> str | None:
    """The version of the cuBLAS that torch has loaded, such as 13.1.0; None where there is none."""
    try:
        library = ctypes.CDLL(f"libcublas.so.{str(torch.version.cuda).partition('.')[0]}")
    except OSError:
        return None
    parts = [ctypes.c_int() for _ in range(3)]  # major, minor, patch
    for kind, part in enumerate(parts):
        library.cublasGetProperty(kind, ctypes.byref(part))
    return ".".join(str(part.value) for part in parts)


def environment_variables() -> dict[str, str]:
    """The controlled variables, those that choose devices, and how many runs a sweep has at a time, as they are."""
    names = (*PINNED, CUBLAS, JOBS, "CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID")
    return {name: os.environ[name] for name in names if name in os.environ}
