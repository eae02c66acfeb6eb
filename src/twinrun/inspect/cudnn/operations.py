"""What a training step calls: its convolutions with their shapes, and operations documented as nondeterministic.

Forward and backward pass run on meta tensors, which have shapes and no values; where the user's code does not work on
those, on the CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from twinrun.inspect.cudnn.backend import FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT
from twinrun.inspect.injected.twinrun_operations import named_arguments
from twinrun.inspect.nondeterministic_ops import Hazard, documented
from twinrun.inspect.trace import Tracer
from twinrun.training.numerics import flags_kept, set_flags
from twinrun.training.own_models import blame

ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True)
class Convolution:
    """One call: `operation` is forward, input gradient or weight gradient; shapes as PyTorch has them."""

    operation: str
    module: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class OtherCall:
    """A call that PyTorch documents as nondeterministic on CUDA."""

    phase: str
    operation: str
    module: str
    hazard: Hazard


@dataclass(frozen=True)
class Step:
    """The calls of one forward and backward pass, in order; `device` is where they were seen: meta or cpu."""

    convolutions: list[Convolution]
    others: list[OtherCall]
    device: str


def step_of(model: nn.Module, loss: Callable[[Any, Any], torch.Tensor], batch: tuple[Any, Any]) -> Step:
    """Run `loss(model(inputs), targets)` forward and backward and list its calls; the model is left as it is.

    InputError when the step fails on the CPU, too.
    """
    try:
        return _run(model, loss, batch, "meta")
    except Exception:  # whatever a user's code does with values, such as .item()
        with blame("the training step fails", Path()):
            return _run(model, loss, batch, "cpu")


def _run(model: nn.Module, loss: Callable[[Any, Any], torch.Tensor], batch: tuple[Any, Any], device: str) -> Step:
    model, loss = copy.deepcopy((model, loss))
    model.to(device).train()
    if isinstance(loss, nn.Module):
        loss.to(device)
    inputs, targets = tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, batch)
    calls = _Calls(model)
    with flags_kept(), torch.device(device), _Attention(calls), calls:
        set_flags({"deterministic_algorithms": False})  # in that mode PyTorch takes other operations
        loss(model(inputs), targets).backward()
    return Step(calls.convolutions, calls.others, device)


class _Calls(Tracer):
    """Lists calls by what the dispatcher runs; the hooks of `Tracer` say in which module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.0), 0, lambda event: None)
        self.convolutions: list[Convolution] = []
        self.others: list[OtherCall] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, given = func._schema.name, named_arguments(func, args, kwargs)
        module, _ = self.place()
        result = func(*args, **kwargs)
        self.convolutions += convolutions_of(name, module, given, result)
        if hazard := documented(name, given):
            self.others.append(OtherCall(self.phase, name.removeprefix("aten::"), module, hazard))
        return result

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.stack:
            self.stack.pop()


def convolutions_of(name: str, module: str, given: dict[str, Any], result: Any) -> list[Convolution]:
    """What a call asks of a library of convolutions: nothing, a forward pass, or one or two gradients."""
    if name == "aten::convolution":
        operations, y = [FORWARD], result.shape
    elif name == "aten::convolution_backward":
        wanted = zip((INPUT_GRADIENT, WEIGHT_GRADIENT), given["output_mask"], strict=False)
        operations, y = [operation for operation, needed in wanted if needed], given["grad_output"].shape
    else:
        return []
    x = given["input"].shape
    numbers = {key: _each(given[key], len(x) - 2) for key in ("stride", "padding", "dilation", "output_padding")}
    return [
        Convolution(
            operation=operation, module=module, x=tuple(x), w=tuple(given["weight"].shape), y=tuple(y),
            transposed=given["transposed"], groups=given["groups"], **numbers,
        )
        for operation in operations
    ]  # fmt: skip


def _each(value: Any, axes: int) -> tuple[int, ...]:
    numbers = tuple(value)
    return numbers * axes if len(numbers) == 1 else numbers


class _Attention(TorchFunctionMode):
    """Notes fused attention, whose kernels are chosen on a CUDA device alone."""

    def __init__(self, calls: _Calls) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            hazard = documented("aten::_scaled_dot_product_flash_attention_backward", {})
            assert hazard is not None
            module = self.calls.stack[-1] if self.calls.stack else ""
            self.calls.others.append(OtherCall("backward", ATTENTION, module, hazard))
        return func(*args, **(kwargs or {}))
