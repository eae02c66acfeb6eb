"""Operations of a program about which nothing is known but what its hooks show: in lockstep, or as a list."""

from __future__ import annotations

import ctypes
import json
import sys
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import twinrun_digests
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes
from twinrun_operations import (
    BACKWARD,
    DRAW,
    FORWARD,
    OPTIMIZER,
    SEEN_THROUGH,
    STATE,
    UNINITIALIZED,
    Event,
    Kept,
    Operations,
    Value,
    name_of,
    named_arguments,
    tensors_in,
)
from twinrun_switches import switches

if TYPE_CHECKING:
    from twinrun_tracer import Program

DATA, AFTER, INITIALIZATION, BETWEEN = "data", "after the backward pass", "initialization", "between steps"
OUTSIDE = "(outside of modules)"
REGION = "(torch.compile region)"


def bytes_of(tensor: torch.Tensor) -> bytes:
    """The bytes in C order; without numpy, which need not be there."""
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    dense = dense.int_repr() if dense.is_quantized else dense
    flat = dense.resolve_conj().resolve_neg().cpu().contiguous()
    return ctypes.string_at(flat.data_ptr(), flat.numel() * flat.element_size()) if flat.numel() else b""


class Tracing(Operations):
    """Operations of a program about which nothing is known but what its hooks show."""

    views = False  # a view of memory that nobody has set yet would differ

    def __init__(self, program: Program) -> None:
        super().__init__(self.look)
        self.program, self.names = program, program.names
        self.seen: set[int] = set()  # the outermost modules of this step
        self.types: dict[str, str] = {}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """So that torch.compile compiles as ever (torch 2.8 and later)."""
        return True

    @classmethod
    def is_infra_mode(cls) -> bool:
        """The same, in torch before that."""
        return True

    def begin(self) -> None:
        """A step begins."""
        self.phase, self.seen = DATA, set()
        self.stack.clear()

    def finish(self) -> None:
        """It has ended."""

    def look(self, event: Event) -> None:
        """At what has happened."""

    @abstractmethod
    def region(self, call: Callable[[], Any], inputs: Any, what: str) -> Any:
        """Run what torch.compile has made."""

    def start(self, module: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
        """An outermost module is called."""

    def enter(self, module: nn.Module) -> None:
        """A module is called."""
        path = self.names.path(module)
        path = type(module).__name__ if path is None else path
        self.types.setdefault(path, type(module).__name__)
        if torch._C._current_autograd_node() is None:
            self.phase = FORWARD
        self.stack.append(path)

    def owner(self, variable: Any) -> str:
        """The path of the module that has this parameter."""
        return self.names.owners.get(id(variable), "")

    def outside(self) -> str:
        """What stands for no module."""
        return OUTSIDE

    def settle(self, node: Any) -> None:
        """Autograd says what is backward; an optimizer computes without gradients, its closure with them."""
        if node is not None:
            self.phase = BACKWARD
        elif self.stack:
            self.phase = FORWARD
        elif self.program.in_step and not torch.is_grad_enabled():
            self.phase = OPTIMIZER
        elif self.phase == BACKWARD:
            self.phase = AFTER


class Lockstep(Tracing):
    """Tells of each operation and waits until the other twin has done it, too."""

    def begin(self) -> None:
        """A step begins: the other twin must be there."""
        super().begin()
        self.kept = Kept()
        self.program.send({"window": self.program.step})
        assert self.program.channel
        self.active = self.program.channel.receive()["do"] == "trace"

    def finish(self) -> None:
        """The step has ended: say what the tensors that differed have become, such as a parameter's gradient."""
        self.program.send({"end": True, "names": self.kept.names()})

    def start(self, module: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
        """What the step begins with: parameters and buffers, then the batch."""
        if id(module) not in self.seen:
            self.seen.add(id(module))
            phase = INITIALIZATION if self.program.step == 1 else BETWEEN
            for name, tensor in self.names.state(module).items():
                self.boundary(phase, STATE, {name: tensor})
            named = ((self.names.owners.get(id(p), ""), n, p) for n, p in module.named_parameters())
            for path, name, parameter in named:
                self.kept.watch(parameter, ".".join(filter(None, (path, name.rpartition(".")[2]))))
        for name, tensor in inputs.items():
            self.boundary(DATA, DRAW, {name: tensor} if tensor.grad_fn is None else {})

    def digest(self, tensor: torch.Tensor) -> str:
        """Computed where the tensor is; of what has no bytes to look at, nothing."""
        return twinrun_digests.if_it_has_bytes(lambda: twinrun_digests.digest(tensor)) or ""

    def watch(self, func: Any, given: dict[str, Any]) -> Callable[[], list[Value]]:
        """The generator that an operation draws from, if it does."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return list
        generator = given.get("generator") or _default_generator(given)
        before = generator.get_state().clone()

        def used() -> list[Value]:
            with _disable_current_modes():
                moved = not torch.equal(before, generator.get_state())
                own = f"generator of the program ({generator.device})" if given.get("generator") else ""
                label = own or f"torch's generator ({generator.device})"
                return [Value(f"state of {label}", before, self.digest(before), None)] if moved else []

        return used

    def look(self, event: Event) -> None:
        """Send the event, then obey until `go` or `stop`."""
        self.program.send(event.message(self.types))
        assert self.program.channel
        while (request := self.program.channel.receive())["do"] not in ("go", "stop", "quit"):
            value = event.value(request)
            tensor = value.tensor.detach()
            name, data = name_of(value, self.names.tensors()), bytes_of(tensor)
            if request["do"] == "save":
                Path(request["path"]).write_bytes(data)
                self.kept.tensors.append(value.tensor)
            dtype = str(tensor.dtype).removeprefix("torch.")
            fresh = value.tensor.is_leaf and not value.tensor.requires_grad
            answer = {"name": name, "shape": list(tensor.shape), "dtype": dtype, "bytes": len(data)}
            self.program.send(answer | {"fresh": fresh and name == value.label})
        if request["do"] != "go":
            self.stop()

    def region(self, call: Callable[[], Any], inputs: Any, what: str) -> Any:
        """One opaque operation."""
        if not self.active:
            return call()
        module, node = self.place()
        given = self.values({f"input {index}": item for index, item in enumerate(inputs)})
        with _disable_current_modes():
            result = call()
        made = self.values({f"output {index}": item for index, item in enumerate(result)})
        self.tell(Event(self.phase, what, module, given, made, opaque=True, node=node))
        return result


def _default_generator(given: dict[str, Any]) -> torch.Generator:
    tensors = [tensor for _, tensor in tensors_in(given)]
    devices = [given["device"]] if given.get("device") else [tensor.device for tensor in tensors]
    device = torch.device(devices[0]) if devices else torch.device("cpu")
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        return torch.cuda.default_generators[index]
    return torch.default_generator


class Listing(Tracing):
    """Writes down which operations are called with what, each kind of call once; no digests."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.calls: dict[str, dict[str, Any]] = {}

    def finish(self) -> None:
        """At the end of the last step that is asked for, tell."""
        if self.program.step == self.program.plan["steps"]:
            self.tell_all(self.program.step)
        elif self.active:
            self.program.send({"step": self.program.step})  # or an end without goodbye would look like no training

    def tell_all(self, steps: int) -> None:
        """What was called in so many steps; no more is listed."""
        if self.active:
            self.stop()
            optimizers = [known for reference in self.names.optimizers if (known := reference()) is not None]
            devices = {p.device.type for known in optimizers for group in known.param_groups for p in group["params"]}
            message = {"operations": list(self.calls.values()), "steps": steps}
            self.program.report(message | {"devices": sorted(devices), "switches": switches()})

    def leave(self, path: str, output: Any) -> None:
        """Nothing is compared."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if not self.active or name.startswith("profiler::") or name in UNINITIALIZED or func.is_view:
            return func(*args, **kwargs)
        module, _ = self.place()
        result = func(*args, **kwargs)
        given = named_arguments(func, args, kwargs)
        self._note(str(func), name, module, name.split("::")[0] not in SEEN_THROUGH, given, result)
        return result

    def region(self, call: Callable[[], Any], inputs: Any, what: str) -> Any:
        """One opaque operation."""
        module, _ = self.place()
        with _disable_current_modes():
            result = call()
        self._note(what, what, module, True, {f"input {index}": item for index, item in enumerate(inputs)}, result)
        return result

    def _note(self, operation: str, name: str, module: str, opaque: bool, given: dict[str, Any], result: Any) -> None:
        call = {"phase": self.phase, "operation": operation, "name": name, "module": module, "opaque": opaque}
        call |= {"arguments": {key: _described(value) for key, value in given.items()}, "result": _described(result)}
        known = self.calls.setdefault(json.dumps(call, sort_keys=True), call | {"count": 0})
        known["count"] += 1


def _described(value: Any) -> Any:
    """An argument for JSON: a tensor as type, shape and device."""
    if isinstance(value, torch.Tensor):
        return {"dtype": str(value.dtype), "shape": list(value.shape), "device": str(value.device)}
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def look_at_compiled(tracer: Tracing) -> None:
    """What Inductor has compiled is called here: kernels in it are not seen, so the whole is one operation."""
    graphs = sys.modules["torch._inductor.output_code"].CompiledFxGraph
    plain = graphs.__call__

    def call(self: Any, inputs: Any) -> Any:
        given = list(inputs)  # the list itself may be emptied by the call
        return tracer.region(lambda: plain(self, inputs), given, REGION)

    graphs.__call__ = call
