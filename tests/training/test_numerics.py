"""Deterministic and free mode: set, read back, and contradictions refused."""

from __future__ import annotations

import pytest
import torch

from twinrun.study.errors import MismatchError
from twinrun.training import numerics
from twinrun.training.numerics import set_numerics


def test_deterministic_mode() -> None:
    flags = set_numerics(deterministic=True, precision="fp32", fill_uninitialized_memory=False)
    assert flags == {
        "deterministic_algorithms": True, "cudnn_deterministic": True, "cudnn_benchmark": False,
        "fill_uninitialized_memory": False, "cuda_matmul_tf32": False, "cudnn_tf32": False, "cpu_threads": 1,
        "cpu_capability": "AVX2", "cublas_workspace_config": ":4096:8",
    }  # fmt: skip
    assert torch.are_deterministic_algorithms_enabled()


def test_free_mode() -> None:
    flags = set_numerics(deterministic=False, precision="tf32", fill_uninitialized_memory=True)
    assert not flags["deterministic_algorithms"]
    assert flags["cudnn_benchmark"]
    assert flags["cuda_matmul_tf32"]
    assert flags["cublas_workspace_config"] is None
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_environment_that_leaks_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(MismatchError, match="NVIDIA_TF32_OVERRIDE, OMP_NUM_THREADS"):
        set_numerics(deterministic=True, precision="fp32", fill_uninitialized_memory=False)


def test_a_flag_that_does_not_hold_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = numerics.read_flags
    monkeypatch.setattr(numerics, "read_flags", lambda: honest() | {"cudnn_deterministic": False})
    with pytest.raises(MismatchError, match="cudnn_deterministic is False and should be True"):
        set_numerics(deterministic=True, precision="fp32", fill_uninitialized_memory=False)
