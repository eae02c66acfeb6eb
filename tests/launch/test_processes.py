"""How many processes there are by default, and on which GPUs: nvidia-smi is played by a real process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture

from twinrun.launch import sweep, verify
from twinrun.launch.processes import listed, places, usable_cores, visible_gpus

TWO = "GPU 0: NVIDIA H100 (UUID: GPU-a)\nGPU 1: NVIDIA H100 (UUID: GPU-b)\n"
SLICED = "GPU 0: A100 (UUID: GPU-a)\n  MIG 3g.20gb Device 0: (UUID: MIG-1)\n  MIG 3g.20gb Device 1: (UUID: MIG-2)\n"


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two cards."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && printf '%s' '{TWO}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


@pytest.mark.usefixtures("smi")
def test_each_gpu_gets_one_process() -> None:
    assert places("cuda", None) == (2, ["GPU-a", "GPU-b"])
    assert places("auto", None) == (2, ["GPU-a", "GPU-b"])
    assert places("auto", 6) == (6, ["GPU-a", "GPU-b"])
    assert places("cuda", None, ["1"]) == (1, ["1"])
    assert places("cpu", None) == (usable_cores(), [])


def test_without_a_gpu_each_core_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert places("auto", None) == (usable_cores(), [])
    assert places("cuda", None) == (1, [])


def test_a_driver_that_fails_has_no_gpus(smi: Path) -> None:
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert visible_gpus() == []


@pytest.mark.usefixtures("smi")
@pytest.mark.parametrize(
    ("variable", "names"), [("1", ["1"]), ("GPU-b, 0", ["GPU-b", "0"]), ("1,-1,0", ["1"]), ("", []), ("-1", [])]
)
def test_the_users_choice_of_gpus_holds(variable: str, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == names


def test_a_card_that_is_cut_counts_by_its_slices() -> None:
    assert listed(SLICED) == ["MIG-1", "MIG-2"]
    assert listed(SLICED + TWO.replace("GPU-a", "GPU-c")) == ["MIG-1", "MIG-2", "GPU-c", "GPU-b"]
    assert listed("No devices found.\n") == []


@pytest.mark.usefixtures("smi", "study")
@pytest.mark.parametrize(("command", "module"), [("sweep", sweep), ("verify", verify)])
def test_a_study_on_cuda_has_one_process_on_each_gpu(
    command: str,
    module: Any,
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,  # noqa: F811
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(module, "train_processes", lambda runs, **options: asked.update(options) or [])
    cli(command, "--device", "cuda", *(["--no-record"] if command == "sweep" else []))
    assert (asked["jobs"], asked["gpus"]) == (2, ["GPU-a", "GPU-b"])
