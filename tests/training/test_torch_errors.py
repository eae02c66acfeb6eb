"""What PyTorch could not do ends in a named error: real refusals of its allocator and of its deterministic mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from twinrun.study.errors import DeviceError, InputError, OutOfMemoryError
from twinrun.training.own_models import blame
from twinrun.training.torch_errors import named_torch_errors, refuse_hidden_shortage


class Scatter(nn.Module):
    """Its forward pass has no deterministic kernel; with `late`, its backward pass."""

    def __init__(self, *, late: bool) -> None:
        super().__init__()
        self.late = late

    def forward(self, x: Tensor) -> Tensor:
        return Late.apply(x) if self.late else refused(x)  # type: ignore[no-any-return,no-untyped-call]


class Late(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return refused(gradient)


def refused(x: Tensor) -> Tensor:
    return x.clone().put_(torch.tensor([0]), torch.ones(1))


@pytest.fixture
def strict() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "fail",
    [
        lambda: torch.empty(10**14),
        lambda: bytearray(1 << 60),
        lambda: throw(torch.OutOfMemoryError("CUDA out")),
        lambda: throw(torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ...")),
        lambda: throw(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
        lambda: throw(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")),
        lambda: throw(RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED")),
    ],
    ids=["cpu", "python", "cuda", "context", "cublas", "cudnn", "cudnn 9"],
)
def test_memory(fail: Callable[[], object]) -> None:
    with (
        pytest.raises(OutOfMemoryError, match="t/sgd/0/nd_1: out of memory") as caught,
        named_torch_errors("t/sgd/0/nd_1", 96),
    ):
        fail()
    assert "lower batch_size (96)" in caught.value.hint
    assert "\n" not in caught.value.message
    with pytest.raises(OutOfMemoryError) as caught, named_torch_errors("audit of own.py:make"):
        fail()
    assert "lower batch_size, image_size" in caught.value.hint


NO_ENGINE = RuntimeError("GET was unable to find an engine to execute this computation")


def test_cudnn_without_an_algorithm_in_free_mode_has_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever run this process had before.
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)
    with pytest.raises(OutOfMemoryError, match="a: out of memory: GET was"), named_torch_errors("a", 1):
        raise NO_ENGINE


@pytest.mark.usefixtures("strict")
def test_cudnn_without_an_algorithm_in_deterministic_mode() -> None:
    words = "a: cuDNN found no algorithm that deterministic mode allows: GET was .*\n.*channels_last: false"
    with pytest.raises(InputError, match=words), named_torch_errors("a", 1):
        raise NO_ENGINE


def test_the_machines_faults_are_not_blamed_on_the_users_code() -> None:
    for error in (torch.AcceleratorError("CUDA error: unspecified launch failure"), MemoryError()):
        with pytest.raises(type(error)), blame("own.py:make", Path()):
            raise error
    with pytest.raises(InputError, match="RuntimeError: a mistake"), blame("own.py:make", Path()):
        raise RuntimeError("a mistake")


def test_a_gpu_that_failed() -> None:
    error = torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might be ...")
    with (
        pytest.raises(DeviceError, match="the GPU failed: CUDA error: unspecified launch failure\n  look at"),
        named_torch_errors("a", 1),
    ):
        raise error


@pytest.mark.usefixtures("strict")
def test_an_operation_without_a_deterministic_kernel_is_named_with_its_module() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Sequential(Scatter(late=False)), nn.Linear(3, 2))
    with (
        pytest.raises(InputError, match="a: the operation put_ in Scatter does not have") as caught,
        named_torch_errors("a", 1),
    ):
        network(torch.ones(1, 2))
    assert "twinrun audit" in caught.value.hint
    network = nn.Sequential(nn.Linear(2, 3), Scatter(late=True))
    with pytest.raises(InputError, match="a: the operation put_ does not have"), named_torch_errors("a", 1):
        network(torch.ones(1, 2)).sum().backward()


def test_all_else_passes() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), named_torch_errors("a", 1):
        nn.Linear(2, 3)(torch.ones(1, 4))


def throw(error: Exception) -> None:
    raise error


def test_an_allocation_that_failed_unheard_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With played statistics: ATen's convolution catches it and takes another engine."""
    stats = {"num_ooms": 0}
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: stats)
    refuse_hidden_shortage("t/sgd/0/det_1", torch.device("cuda"), 96)
    stats["num_ooms"] = 2
    refuse_hidden_shortage("t/sgd/0/det_1", torch.device("cpu"), 96)  # another process's card is not asked
    with pytest.raises(OutOfMemoryError, match="t/sgd/0/det_1: out of memory: 2 allocations failed") as caught:
        refuse_hidden_shortage("t/sgd/0/det_1", torch.device("cuda"), 96)
    assert caught.value.exit_code == 6
    assert "lower batch_size (96)" in caught.value.hint
