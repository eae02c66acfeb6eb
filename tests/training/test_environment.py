"""What a run notes of its software: nothing that must be there, and on a GPU what lies below PyTorch."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from twinrun.training import environment
from twinrun.training.environment import cpu_name, cublas_version, gpu_name, host_facts, versions

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_package_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    there = versions(CPU)
    assert there["torch"] == torch.__version__.partition("+")[0]
    assert {"torchvision", "numpy", "pillow", "pydicom", "safetensors", "python", "cuda"} <= set(there)
    real = metadata.version

    def version(name: str) -> str:
        if name == "pydicom":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert versions(CPU) == {name: value for name, value in there.items() if name != "pydicom"}


def test_on_a_gpu_driver_and_cublas_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so are part of what a checkpoint must agree in; on a CPU they have no part in the bits."""
    properties = SimpleNamespace(uuid="7")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(environment, "Gpu", lambda uuid: SimpleNamespace(driver_version=lambda: f"580.{uuid}"))
    monkeypatch.setattr(environment, "cublas_version", lambda: "13.1.0")
    assert versions(CUDA) == versions(CPU) | {"driver": "580.7", "cublas": "13.1.0"}


def test_cublas_says_its_version() -> None:
    assert re.fullmatch(r"13\.[0-9]+\.[0-9]+", str(cublas_version()))


def test_a_gpu_is_described_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = host_facts(CPU)
    assert plain.keys() == {"hostname", "system", "cpu", "cpu_count", "gpu"}
    assert (plain["gpu"], gpu_name(CPU)) == (None, None)
    properties = SimpleNamespace(name="H100", uuid="7", total_memory=85, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H100")
    gpu = {"gpu": "H100", "gpu_uuid": "7", "gpu_memory_bytes": 85, "gpu_capability": "9.0"}
    assert host_facts(CUDA) == plain | gpu
    assert gpu_name(CUDA) == "H100"


def test_a_processor_without_a_name_is_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(path: Path) -> str:
        raise OSError

    monkeypatch.setattr(Path, "read_text", nothing)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for said, name in (("", "x86_64"), ("Xeon", "Xeon")):
        monkeypatch.setattr(platform, "processor", lambda said=said: said)
        assert cpu_name() == name
    lines = "processor : 0\nmodel name\t: A: 3 GHz\n"
    monkeypatch.setattr(Path, "read_text", lambda path: lines)
    assert cpu_name() == "A: 3 GHz"
