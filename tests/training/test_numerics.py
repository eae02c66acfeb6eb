"""Deterministic and free mode: set, read back, and contradictions refused."""

from __future__ import annotations

import pytest
import torch

from twinrun.study.errors import MismatchError
from twinrun.study.flags import flags_for
from twinrun.training import numerics
from twinrun.training.numerics import apply_flags, flags_kept, instruction_set, read_flags, set_flags


def test_deterministic_mode() -> None:
    flags = apply_flags(flags_for(deterministic=True, tf32=False, fill_uninitialized_memory=False))
    assert flags == {
        "deterministic_algorithms": True, "cudnn_deterministic": True, "cudnn_benchmark": False,
        "fill_uninitialized_memory": False, "cuda_matmul_tf32": False, "cudnn_tf32": False, "cpu_threads": 1,
        "cpu_capability": "AVX2", "cublas_workspace_config": ":4096:8",
    }  # fmt: skip
    assert torch.are_deterministic_algorithms_enabled()


def test_free_mode() -> None:
    flags = apply_flags(flags_for(deterministic=False, tf32=True, fill_uninitialized_memory=True))
    assert not flags["deterministic_algorithms"]
    assert flags["cudnn_benchmark"]
    assert flags["cuda_matmul_tf32"]
    assert flags["cublas_workspace_config"] is None
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_environment_that_leaks_in_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(MismatchError, match="NVIDIA_TF32_OVERRIDE, OMP_NUM_THREADS"):
        apply_flags(flags_for(deterministic=True, tf32=False, fill_uninitialized_memory=False))


def test_a_flag_that_does_not_hold_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = numerics.read_flags
    monkeypatch.setattr(numerics, "read_flags", lambda: honest() | {"cudnn_deterministic": False})
    with pytest.raises(MismatchError, match="cudnn_deterministic is False and should be True"):
        apply_flags(flags_for(deterministic=True, tf32=False, fill_uninitialized_memory=False))


@pytest.mark.parametrize("second", [True, False])
def test_a_second_mode_after_cuda_has_started_is_refused(second: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {
        fixed: flags_for(deterministic=fixed, tf32=False, fill_uninitialized_memory=False) for fixed in (True, False)
    }
    monkeypatch.setattr(numerics, "_workspace_in_force", [])
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    first = apply_flags(modes[not second])  # the first mode of a process is chosen by itself, the same one again, too
    assert apply_flags(modes[not second]) == first
    with pytest.raises(MismatchError, match="this process has started CUDA with CUBLAS_WORKSPACE_CONFIG=") as caught:
        apply_flags(modes[second])
    assert "process of its own" in caught.value.hint
    assert read_flags() == first  # nothing was changed
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert apply_flags(modes[second])["deterministic_algorithms"] is second


def test_flags_are_put_back_whatever_the_block_did() -> None:
    apply_flags(flags_for(deterministic=True, tf32=False, fill_uninitialized_memory=True))
    before = read_flags()
    changed = {"deterministic_algorithms": False, "cudnn_deterministic": False, "cudnn_benchmark": True,
               "fill_uninitialized_memory": False, "cpu_threads": 2, "cublas_workspace_config": None}  # fmt: skip

    def work() -> None:
        with flags_kept():
            set_flags(changed)
            assert changed.items() <= read_flags().items()
            raise ZeroDivisionError

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with pytest.raises(ZeroDivisionError):
            work()
        assert read_flags() == before
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_instruction_set_says_what_libraries_choose_by(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"avx2": True, "avx512_f": False, "fma3": True, "sse2": True, "cpu_name": "AMD EPYC 7763",
             "l1d_cache_size": 32768, "l2_cache_size": 524288}  # fmt: skip
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: facts)
    assert instruction_set() == "AVX2 AMD avx2 fma3 32/512 KiB"
    facts |= {"avx512_f": True, "l2_cache_size": 1048576, "cpu_name": "Intel Xeon"}
    assert instruction_set() == "AVX2 Intel avx2 avx512_f fma3 32/1024 KiB"
