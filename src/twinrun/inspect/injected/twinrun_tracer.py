"""Follows the training of a program from inside its process: digests at every optimizer step, operations where asked.

The plan comes in the variable TWINRUN_TRACE, as JSON: the socket to talk to, which twin this is, the mode (`steps`,
`operations` from the step `from` on, or `audit` of the first `steps`). What happens in the program is seen by torch's
global hooks and a dispatch mode; nothing that it computes, draws or stores is changed.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import json
import os
import random
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import twinrun_digests
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import _disable_current_modes
from twinrun_imports import after_import
from twinrun_operations import (
    BACKWARD,
    DRAW,
    FORWARD,
    OPTIMIZER,
    SEEN_THROUGH,
    STATE,
    UNINITIALIZED,
    Event,
    Operations,
    Value,
    named_arguments,
    tensors_in,
)

DATA, AFTER, INITIALIZATION, BETWEEN = "data", "after the backward pass", "initialization", "between steps"
OUTSIDE = "(outside of modules)"
REGION = "(torch.compile region)"


def attach(plan: dict[str, Any]) -> None:
    """Put the hooks in."""
    program = Program(plan)
    modules = torch.nn.modules.module
    modules.register_module_forward_pre_hook(program.before)
    modules.register_module_forward_hook(program.after, always_call=True)
    register_optimizer_step_pre_hook(program.stepping)
    register_optimizer_step_post_hook(program.stepped)
    os.register_at_fork(after_in_child=program.forget)
    atexit.register(program.end)


class Channel:
    """A line of JSON a message, to and from whoever started the program."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(plan["socket"])
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.send({"twin": plan["twin"], "rank": _rank(), "torch": torch.__version__, "process": os.getpid()})

    def send(self, message: dict[str, Any]) -> None:
        """Whoever started the program may have gone: the program goes on."""
        with suppress(OSError):
            self.socket.sendall((json.dumps(message) + "\n").encode())

    def receive(self) -> dict[str, Any]:
        """The next request; `quit` when nobody asks any more."""
        try:
            line = self.lines.readline()
        except OSError:
            line = ""
        request: dict[str, Any] = json.loads(line) if line else {"do": "quit"}
        return request


def _rank() -> int | None:
    with suppress(Exception):
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank()
    text = os.environ.get("RANK", "")
    return int(text) if text.isdigit() else None


class Program:
    """What the tracer knows of the program; steps are counted over all optimizers of this process."""

    tracer: Tracing | None

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.tracer = None
        self.forget()

    def forget(self) -> None:
        """In a forked child: nothing has happened yet, and nobody is told of what the parent does."""
        if self.tracer:
            self.tracer.stop()
        self.tracer = None
        self.channel: Channel | None = None
        self.thread = threading.get_ident()
        self.step, self.depth, self.in_step = 1, 0, False
        self.names = Names()
        self.inputs: list[tuple[str, twinrun_digests.Mixed]] = []

    def send(self, message: dict[str, Any]) -> None:
        """Tell, over a channel that is opened when there is something to tell."""
        if self.channel is None:
            self.channel = Channel(self.plan)
        self.channel.send(message)

    def end(self) -> None:
        """At the end of the process."""
        if self.channel:
            self.send({"bye": self.step - 1})

    def before(self, module: nn.Module, args: Any) -> None:
        """A module's forward pass begins."""
        # First of all: what torch.compile looks into must see nothing here.
        if torch.compiler.is_compiling() or not self._ours():
            return
        if not self.depth:
            self._outermost(module, args)
        self.depth += 1
        if self.tracer:
            self.tracer.enter(module)

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        """It has ended."""
        if torch.compiler.is_compiling() or not self._ours():
            return
        self.depth = max(self.depth - 1, 0)
        if self.tracer and self.tracer.stack:
            self.tracer.leave(self.tracer.stack.pop(), output)

    def _ours(self) -> bool:
        # Other threads are none of the training, but those in which autograd computes.
        return threading.get_ident() == self.thread or torch._C._current_autograd_node() is not None

    def _outermost(self, module: nn.Module, args: Any) -> None:
        if not torch.is_grad_enabled():
            return
        self.names.add_root(module)
        if self.tracer is None and self._wanted() and any(p.requires_grad for p in module.parameters()):
            self._look()
        given = {f"input {label} of {type(module).__name__}": tensor for label, tensor in _inputs(args)}
        if self.tracer:
            self.tracer.start(module, given)
        elif self.plan["mode"] == "steps":
            with _disable_current_modes(), suppress(NotImplementedError, RuntimeError):
                self.inputs += [(label, twinrun_digests.mix([t])) for label, t in given.items() if not t.requires_grad]

    def _wanted(self) -> bool:
        return self.plan["mode"] == "audit" or (self.plan["mode"] == "operations" and self.step >= self.plan["from"])

    def _look(self) -> None:
        """Begin to look at every operation; from then on until the end, each step asks whether to go on."""
        if self.tracer is None:
            self.tracer = Listing(self) if self.plan["mode"] == "audit" else Lockstep(self)
            self.tracer.__enter__()
            after_import("torch._inductor.output_code", partial(_look_at_compiled, self.tracer))
        self.tracer.begin()

    def stepping(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """An optimizer's step begins; with a closure, forward and backward pass are in it."""
        if torch.compiler.is_compiling() or not self._ours():
            return
        self.names.add_optimizer(optimizer)
        self.in_step = True

    def stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """An optimizer's step has ended."""
        if torch.compiler.is_compiling() or not self._ours():
            return
        self.in_step = False
        if self.tracer:
            self.tracer.finish()
        if self.plan["mode"] != "audit":
            with _disable_current_modes():
                self.send(self._record(optimizer))
        self.step += 1
        self.inputs = []
        if self._wanted():
            self._look()

    def _record(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        mixed = [*(word for _, word in self.inputs), twinrun_digests.mix(gradients), twinrun_digests.mix(parameters)]
        *inputs, of_gradients, of_parameters = twinrun_digests.digests(mixed)
        return {
            "step": self.step,
            "optimizer": self.names.optimizer(optimizer),
            "inputs": list(zip((label for label, _ in self.inputs), inputs, strict=True)),
            "gradients": of_gradients,
            "parameters": of_parameters,
            "generators": {name: _short(state) for name, state in _generators()},
        }


def _inputs(args: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors that a module is called with; hooks are not given those by keyword, which lie in the caller."""
    frame: Any = sys._getframe(3)  # of torch's nn.Module, which runs the hooks
    kwargs = frame.f_locals.get("kwargs") or {}
    named = {**{str(index): item for index, item in enumerate(args)}, **kwargs}
    return [pair for label, item in named.items() for pair in tensors_in(item, label)]


def _generators() -> Iterator[tuple[str, bytes]]:
    """The states of the global generators."""
    yield "Python's", repr(random.getstate()).encode()
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "random"):
        state = numpy.random.get_state()
        yield "numpy's", state[1].tobytes() + repr(state[2:]).encode()
    yield "torch's (cpu)", _bytes(torch.get_rng_state())
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            yield f"torch's (cuda:{index})", _bytes(torch.cuda.get_rng_state(index))


def _short(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _bytes(tensor: torch.Tensor) -> bytes:
    """The bytes in C order; without numpy, which need not be there."""
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    dense = dense.int_repr() if dense.is_quantized else dense
    flat = dense.resolve_conj().resolve_neg().cpu().contiguous()
    return ctypes.string_at(flat.data_ptr(), flat.numel() * flat.element_size()) if flat.numel() else b""


class Names:
    """What modules, parameters and optimizers are called in a program that nobody has described."""

    def __init__(self) -> None:
        self.roots: list[weakref.ref[nn.Module]] = []  # outermost modules, in the order of their first call
        self.optimizers: list[weakref.ref[torch.optim.Optimizer]] = []
        self.paths: dict[int, tuple[weakref.ref[nn.Module], str]] = {}
        self.owners: dict[int, str] = {}  # path of the module, by parameter

    def add_root(self, module: nn.Module) -> None:
        """A module that was called by none, unless it is part of a known one."""
        if self.path(module) is not None:
            return
        inside = {id(part) for part in module.modules()}
        known = [root for root in self.roots if (kept := root()) is not None and id(kept) not in inside]
        self.roots = [*known, weakref.ref(module)]
        self.paths, self.owners = {}, {}
        named = [root for root in map(_alive, self.roots) if any(True for _ in root.parameters())]
        for root in map(_alive, self.roots):
            prefix = "" if named == [root] else self._distinct(root)
            for path, part in root.named_modules():
                whole = ".".join(filter(None, (prefix, path)))
                self.paths.setdefault(id(part), (weakref.ref(part), whole))
                for parameter in part.parameters(recurse=False):
                    self.owners.setdefault(id(parameter), whole)

    def path(self, module: nn.Module) -> str | None:
        """Where a module is in the outermost one; None for an unknown one."""
        kept, path = self.paths.get(id(module), (None, None))
        return path if kept and kept() is module else None  # another may have the number of one that is gone

    def _distinct(self, root: nn.Module) -> str:
        alike = [other for other in map(_alive, self.roots) if type(other) is type(root)]
        name = type(root).__name__ + (f"#{alike.index(root) + 1}" if len(alike) > 1 else "")
        return name if any(True for _ in root.parameters()) else f"({name})"

    def add_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """One that makes a step."""
        if all(known() is not optimizer for known in self.optimizers):
            self.optimizers.append(weakref.ref(optimizer))

    def optimizer(self, optimizer: torch.optim.Optimizer) -> str:
        """Its class, and its number where there are several."""
        number = next((i for i, known in enumerate(self.optimizers, 1) if known() is optimizer), 0)
        return f"{type(optimizer).__name__}, optimizer {number}" if number > 1 else type(optimizer).__name__

    def state(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """Parameters and buffers of one outermost module."""
        prefix = self.path(module) or ""
        names = ((kind, ".".join(filter(None, (prefix, name))), tensor) for kind, name, tensor in _tensors(module))
        return {f"{kind} {name}": tensor.detach() for kind, name, tensor in names}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every parameter, buffer, gradient and state of an optimizer, by its name."""
        found: dict[str, torch.Tensor] = {}
        parameters: dict[int, str] = {}
        for root in map(_alive, self.roots):
            state = self.state(root)
            for (kind, _, tensor), label in zip(_tensors(root), state, strict=True):
                found[label] = tensor
                if kind == "parameter":
                    parameters.setdefault(id(tensor), label.partition(" ")[2])
        for number, optimizer in enumerate(map(_alive, self.optimizers), 1):
            for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
                name = parameters.get(id(parameter), f"parameter {index} of optimizer {number}")
                found.setdefault(f"parameter {name}" if id(parameter) in parameters else name, parameter)
                if parameter.grad is not None:
                    found[f"gradient of {name}"] = parameter.grad
                state_of = optimizer.state.get(parameter, {})
                for key, value in state_of.items():
                    if isinstance(value, torch.Tensor):
                        found[f"{key} of {name}"] = value
        return found


def _tensors(module: nn.Module) -> list[tuple[str, str, torch.Tensor]]:
    parameters = [("parameter", name, tensor) for name, tensor in module.named_parameters()]
    return parameters + [("buffer", name, tensor) for name, tensor in module.named_buffers()]


def _alive(reference: Any) -> Any:
    # What has been freed stands as something that has nothing.
    return reference() or nn.Identity()


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

    def region(self, call: Callable[[], Any], inputs: Any, what: str) -> Any:
        """Run what torch.compile has made."""
        raise NotImplementedError

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
        self.kept: list[torch.Tensor] = []
        self.ends: dict[int, str] = {}
        self.hooks: list[Any] = []
        self.program.send({"window": self.program.step})
        assert self.program.channel
        self.active = self.program.channel.receive()["do"] == "trace"

    def finish(self) -> None:
        """The step has ended: say what the tensors that differed have become, such as a parameter's gradient."""
        for hook in self.hooks:
            hook.remove()
        self.program.send({"end": True, "names": [self.ends.get(index) for index in range(len(self.kept))]})

    def start(self, module: nn.Module, inputs: dict[str, torch.Tensor]) -> None:
        """What the step begins with: parameters and buffers, then the batch."""
        if id(module) not in self.seen:
            self.seen.add(id(module))
            phase = INITIALIZATION if self.program.step == 1 else BETWEEN
            for name, tensor in self.names.state(module).items():
                self.boundary(phase, STATE, "", {name: tensor})
            named = ((self.names.owners.get(id(p), ""), n, p) for n, p in module.named_parameters())
            for path, name, parameter in named:
                if parameter.requires_grad:
                    whole = ".".join(filter(None, (path, name.rpartition(".")[2])))
                    self.hooks.append(parameter.register_hook(partial(self._arrived, f"gradient of {whole}")))
        for name, tensor in inputs.items():
            self.boundary(DATA, DRAW, "", {name: tensor} if tensor.grad_fn is None else {})

    def _arrived(self, name: str, gradient: torch.Tensor) -> None:
        # A gradient is named when it arrives: the operation that makes it does not know whose it will be.
        self.ends.update((i, name) for i, kept in enumerate(self.kept) if kept.data_ptr() == gradient.data_ptr())

    def digest(self, tensor: torch.Tensor) -> str:
        """Computed where the tensor is; of what has no bytes to look at, nothing."""
        try:
            return twinrun_digests.digest(tensor)
        except (NotImplementedError, RuntimeError):
            return ""

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
        self.program.send(
            {
                "phase": event.phase,
                "operation": event.operation,
                "module": event.module,
                "module_type": self.types.get(event.module),
                "opaque": event.opaque,
                "inputs": [[value.label, value.digest, None] for value in event.inputs],
                "outputs": [[value.label, value.digest, None] for value in event.outputs],
            }
        )
        assert self.program.channel
        while (request := self.program.channel.receive())["do"] not in ("go", "stop", "quit"):
            value = (event.inputs if request["side"] == "input" else event.outputs)[request["index"]]
            tensor = value.tensor.detach()
            name, data = self._name(value), _bytes(tensor)
            if request["do"] == "save":
                Path(request["path"]).write_bytes(data)
                self.kept.append(value.tensor)
            dtype = str(tensor.dtype).removeprefix("torch.")
            fresh = value.tensor.is_leaf and not value.tensor.requires_grad
            answer = {"name": name, "shape": list(tensor.shape), "dtype": dtype, "bytes": len(data)}
            self.program.send(answer | {"fresh": fresh and name == value.label})
        if request["do"] != "go":
            self.stop()

    def _name(self, value: Value) -> str:
        """Whose tensor it is: a parameter, buffer, gradient or optimizer state by name, else its label."""
        size, pointer = value.tensor.numel(), value.tensor.data_ptr()
        for name, tensor in self.names.tensors().items():
            if size and tensor.data_ptr() == pointer and tensor.numel() == size:
                return name
        return value.label

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
            self.program.send({"operations": list(self.calls.values())})

    def leave(self, path: str, output: Any) -> None:
        """Nothing is compared."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if self.active and not name.startswith("profiler::") and name not in UNINITIALIZED and not func.is_view:
            given = named_arguments(func, args, kwargs)
            self._note(str(func), name, name.split("::")[0] not in SEEN_THROUGH, given)
        return func(*args, **kwargs)

    def region(self, call: Callable[[], Any], inputs: Any, what: str) -> Any:
        """One opaque operation."""
        self._note(what, what, True, {f"input {index}": item for index, item in enumerate(inputs)})
        with _disable_current_modes():
            return call()

    def _note(self, operation: str, name: str, opaque: bool, given: dict[str, Any]) -> None:
        module, _ = self.place()
        arguments = {key: _described(value) for key, value in given.items()}
        call = {"phase": self.phase, "operation": operation, "name": name, "module": module, "opaque": opaque,
                "arguments": arguments}  # fmt: skip
        known = self.calls.setdefault(json.dumps(call, sort_keys=True), call | {"count": 0})
        known["count"] += 1


def _described(value: Any) -> Any:
    """An argument for JSON: a tensor as type, shape and device."""
    if isinstance(value, torch.Tensor):
        return {"dtype": str(value.dtype), "shape": list(value.shape), "device": str(value.device)}
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def _look_at_compiled(tracer: Tracing) -> None:
    """What Inductor has compiled is called here: kernels in it are not seen, so the whole is one operation."""
    graphs = sys.modules["torch._inductor.output_code"].CompiledFxGraph
    plain = graphs.__call__

    def call(self: Any, inputs: Any) -> Any:
        given = list(inputs)  # the list itself may be emptied by the call
        return tracer.region(lambda: plain(self, inputs), given, REGION)

    graphs.__call__ = call
