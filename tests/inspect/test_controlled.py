"""`twinrun.controlled`: seeds, modes, and everything as it was afterwards."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

import twinrun
from twinrun.study.errors import InputError
from twinrun.training.numerics import read_flags


def draw() -> list[Any]:
    return [random.random(), np.random.rand(2).tolist(), torch.rand(2).tolist()]  # noqa: NPY002


def test_equal_seeds_draw_the_same() -> None:
    with twinrun.controlled(seed=3):
        first = draw()
    with twinrun.controlled(seed=3):
        assert draw() == first
    with twinrun.controlled(seed=4):
        assert all(one != other for one, other in zip(first, draw(), strict=True))


@pytest.mark.parametrize("deterministic", [True, False])
def test_everything_is_put_back(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(2)
    try:
        torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
        expected, flags = draw(), read_flags()
        torch.manual_seed(1), random.seed(1), np.random.seed(1)  # noqa: NPY002
        with suppress(ZeroDivisionError), twinrun.controlled(5, deterministic=deterministic) as held:
            draw()
            assert held.flags["deterministic_algorithms"] is deterministic
            assert held.flags["cpu_threads"] == (1 if deterministic else 2)
            assert os.environ.get("NCCL_ALGO") == ("Ring" if deterministic else None)
            raise ZeroDivisionError("a mistake of the user's own")
        assert draw() == expected
        assert read_flags() == flags
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert not {"CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO", "NCCL_PROTO"} & set(os.environ)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(1)


def test_an_operation_without_a_deterministic_implementation_raises() -> None:
    with twinrun.controlled(0):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    with twinrun.controlled(0, deterministic=False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_seed_and_arm_come_from_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINRUN_SEED", "17")
    monkeypatch.setenv("TWINRUN_ARM", "nd")
    with twinrun.controlled() as held:
        assert (held.seed, held.deterministic) == (17, False)
    monkeypatch.setenv("TWINRUN_SEED", "often")
    with pytest.raises(InputError, match="TWINRUN_SEED='often'"), twinrun.controlled():
        pass
    with pytest.raises(InputError, match="seed -1"), twinrun.controlled(-1):
        pass
    wrong: Any
    for wrong in ("3", 1.5):
        with pytest.raises(InputError, match=f"seed {wrong!r} is not a whole number"), twinrun.controlled(wrong):
            pass
    with twinrun.controlled(np.int64(3)) as control:  # type: ignore[arg-type]
        assert control.seed == 3


def test_variables_that_come_too_late_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with twinrun.controlled(0) as held:  # the tests run with the pinned environment
            assert held.not_guaranteed == ()
    monkeypatch.delenv("MKL_CBWR")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    words = "without MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=1"
    with pytest.warns(UserWarning, match=words) as caught, twinrun.controlled(0) as held:
        assert held.not_guaranteed == ("MKL_CBWR=COMPATIBLE", "OMP_NUM_THREADS=1")
    assert caught[0].filename == __file__


def test_a_user_of_the_newer_precision_settings_is_served() -> None:
    script = (
        "import torch; import twinrun\n"
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'\n"
        "torch.backends.cudnn.conv.fp32_precision = 'ieee'\n"
        "with twinrun.controlled(0) as held:\n"
        "    print(held.flags['cuda_matmul_tf32'], held.flags['cudnn_tf32'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "True False\n", done.stderr


def test_cuda_that_was_started_without_its_workspace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with pytest.raises(InputError, match="CUDA was started without CUBLAS_WORKSPACE_CONFIG"), twinrun.controlled(0):
        pass


def test_cuda_that_was_started_in_a_block_keeps_its_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    started = [False]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started[0])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "x")  # so that what the blocks leave is removed again
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    for seed in range(3):
        with twinrun.controlled(seed):
            started[0] = True
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_fingerprints_of_a_module_and_its_state_agree() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    assert twinrun.fingerprint(model) == twinrun.fingerprint(model.state_dict())
    before = twinrun.fingerprint(model)
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nextafter(model[0].weight[0, 0], torch.tensor(9.0))
    assert twinrun.fingerprint(model) != before
    with pytest.raises(InputError, match="'lr' is a float, no tensor"):
        twinrun.fingerprint({"lr": 0.1})  # type: ignore[dict-item]
