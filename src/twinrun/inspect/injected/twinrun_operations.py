"""Every operation that PyTorch's dispatcher runs, as it happens: phase, name, module, digests of inputs and outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

BATCH, AUGMENTATION, FORWARD, BACKWARD, OPTIMIZER = "batch", "augmentation", "forward", "backward", "optimizer"
STATE, DRAW, MODULE = "(state)", "(draw)", "(module)"  # in the place of an operation, where none is looked at
LOSS = "(loss)"  # stands for the module of what is computed outside of the model

# Their outputs are whatever the memory held before.
UNINITIALIZED = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided",
                 "aten::resize_", "aten::empty_permuted", "aten::set_"}  # fmt: skip
# Returned memory that only the backward pass of the same call reads; it may hold anything.
SCRATCH = {"aten::cudnn_batch_norm": 3}
# Arguments that are written although the schema does not say so.
_HIDDEN_WRITES = dict.fromkeys(
    ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::miopen_batch_norm"), ("running_mean", "running_var")
)
_RESERVED = "reserveSpace"  # the argument that such scratch memory comes back in
# What they write into is not read.
_OVERWRITING = {"aten::fill_", "aten::zero_", "aten::copy_", "aten::_foreach_zero_", "aten::_foreach_copy_"}
SEEN_THROUGH = {"aten", "prims"}  # namespaces whose operations are PyTorch's own


@dataclass(frozen=True)
class Value:
    """A tensor at an operation: `label` is the argument (`weight`, `grads[3]`) or `output 0`."""

    label: str
    tensor: torch.Tensor
    digest: str
    rows: str | None  # digest that forgets the order of the examples; None where no axis is as long as the batch


@dataclass(frozen=True)
class Event:
    """One operation, or one boundary that is looked at (`(state)`, `(draw)`, `(module)`)."""

    phase: str
    operation: str
    module: str
    inputs: list[Value]
    outputs: list[Value]
    opaque: bool = False  # an operation that is not PyTorch's own: what it does inside is not seen
    node: str | None = None  # the autograd node that runs it
    numbers: dict[str, str] = field(default_factory=dict)  # arguments that are none of torch's, by their label

    def message(self, types: Mapping[str, str]) -> dict[str, Any]:
        """For JSON, without the tensors; `types` are those of the modules, by their path."""
        inputs, outputs = (
            [[value.label, value.digest, value.rows] for value in side] for side in (self.inputs, self.outputs)
        )
        return {
            "phase": self.phase,
            "operation": self.operation,
            "module": self.module,
            "module_type": types.get(self.module),
            "opaque": self.opaque,
            "numbers": self.numbers,
            "inputs": inputs,
            "outputs": outputs,
        }

    def value(self, request: Mapping[str, Any]) -> Value:
        """The one that a request is about."""
        return (self.inputs if request["side"] == "input" else self.outputs)[request["index"]]


class Kept:
    """The tensors of a step that were asked for, and which of them have become a parameter's gradient."""

    def __init__(self) -> None:
        self.tensors: list[torch.Tensor] = []
        self.hooks: list[Any] = []
        self.ends: dict[int, str] = {}

    def watch(self, parameter: torch.Tensor, name: str) -> None:
        """A gradient is named when it arrives: the operation that makes it does not know whose it will be."""
        if parameter.requires_grad:
            self.hooks.append(parameter.register_hook(partial(self._arrived, f"gradient of {name}")))

    def _arrived(self, name: str, gradient: torch.Tensor) -> None:
        places = (i for i, kept in enumerate(self.tensors) if kept.data_ptr() == gradient.data_ptr())
        self.ends.update(dict.fromkeys(places, name))

    def names(self) -> list[str | None]:
        """At the end of the step: what the tensors have become, such as `gradient of fc.weight`."""
        for hook in self.hooks:
            hook.remove()
        return [self.ends.get(index) for index in range(len(self.tensors))]


def name_of(value: Value, known: Mapping[str, torch.Tensor]) -> str:
    """Whose tensor it is: the one of the `known` ones that has its memory, else its label."""
    size, pointer = value.tensor.numel(), value.tensor.data_ptr()
    for name, tensor in known.items():
        if size and tensor.data_ptr() == pointer and tensor.numel() == size:
            return name
    return value.label


class Operations(TorchDispatchMode, ABC):
    """Reports an Event for each operation, after it has run and before the next begins, while it is `active`.

    Whoever uses it says when a module is entered and left; the autograd graph's sequence numbers in the backward pass
    then say which module an operation belongs to. What follows after `stop` runs as if nobody looked.
    """

    views = True  # whether operations that only look at memory in another way are reported

    def __init__(self, report: Callable[[Event], None]) -> None:
        super().__init__()
        self.report = report
        self.phase, self.active = AUGMENTATION, True
        self.stack: list[str] = []
        self.made: dict[int, str] = {}  # module by sequence number of the autograd node made in it
        self.sequence = torch.autograd._get_sequence_nr()
        self.behind = ""  # the module of the last autograd node

    def digest(self, tensor: torch.Tensor) -> str:
        """Of type, shape and bytes."""
        raise NotImplementedError  # and not abstract: what only lists operations has no digests

    def rows(self, tensor: torch.Tensor) -> str | None:
        """A digest that forgets the order of the examples, where that is known."""
        return None

    @abstractmethod
    def owner(self, variable: Any) -> str:
        """The path of the module that has this parameter; empty when none has."""

    def outside(self) -> str:
        """What stands for the module of an operation that is run in none."""
        return {FORWARD: LOSS, BACKWARD: self.behind}.get(self.phase, "")

    def settle(self, node: Any) -> None:
        """Find out the phase of the operation that runs now, in `node` of the autograd graph or in none."""
        if node is not None and self.phase != OPTIMIZER:
            self.phase = BACKWARD

    def watch(self, func: Any, given: dict[str, Any]) -> Callable[[], list[Value]]:
        """What an operation uses besides its arguments, to be asked for when it has run."""
        return list

    def stop(self) -> None:
        """Report nothing more."""
        self.active = False

    def values(self, labelled: dict[str, Any]) -> list[Value]:
        """The tensors in `labelled` with their digests, labelled by their key.

        Left out are views that show their memory several times over, such as all crops of all images: what is taken
        from them is seen where it comes out.
        """
        with _disable_current_modes():  # computing a digest is no operation of the step
            return [
                Value(where, tensor, self.digest(tensor), self.rows(tensor))
                for label, item in labelled.items()
                for where, tensor in tensors_in(item, label)
                if not _repeats(tensor)
            ]

    def tell(self, event: Event) -> None:
        """Report this event, whatever happens in the report."""
        with _disable_current_modes():
            self.report(event)

    def boundary(self, phase: str, operation: str, labelled: dict[str, Any]) -> None:
        """Report tensors that no operation made: the state before the step, or what was drawn for it."""
        if self.active and (outputs := self.values(labelled)):
            self.tell(Event(phase, operation, "", [], outputs))

    def leave(self, path: str, output: Any) -> None:
        """A module's forward pass has ended: what no operation shows, such as a kernel called past PyTorch, shows."""
        if self.active and self.phase == FORWARD:
            self.tell(Event(self.phase, MODULE, path, [], self.values(_labelled(output))))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if not self.active or name.startswith("profiler::") or (func.is_view and not self.views):
            return func(*args, **kwargs)
        module, node = self.place()
        given = named_arguments(func, args, kwargs)
        # SGD's first step is given buffers for the momentum that hold nothing yet.
        unset = {_RESERVED} | ({"momentum_buffer_list"} if given.get("is_first_step") else set())
        unset |= overwritten(func)
        meant = {label: item for label, item in given.items() if label not in unset}
        inputs = [] if name in UNINITIALIZED else self.values(meant)
        used = self.watch(func, given)
        result = func(*args, **kwargs)
        inputs += used()
        written = {a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write}
        written |= set(_HIDDEN_WRITES.get(name, ()))
        made = _labelled(result)
        made.pop(f"output {SCRATCH.get(name)}", None)
        if name in UNINITIALIZED:
            made, written = {}, set()
        outputs = self.values(made)
        returned = {id(value.tensor) for value in outputs}
        changed = self.values({key: given[key] for key in sorted(written & set(given))})
        outputs += [value for value in changed if id(value.tensor) not in returned]
        if inputs or outputs:
            opaque = name.split("::")[0] not in SEEN_THROUGH
            numbers = {label: repr(item) for label, item in given.items() if _is_number(item)}
            self.tell(Event(self.phase, str(func), module, inputs, outputs, opaque, node, numbers))
        return result

    def place(self) -> tuple[str, str | None]:
        """Module path and autograd node of the operation that runs now."""
        node = torch._C._current_autograd_node()
        self.settle(node)
        if node is None or self.phase == OPTIMIZER:
            sequence = torch.autograd._get_sequence_nr()
            module = self.stack[-1] if self.stack else self.outside()
            for number in range(self.sequence, sequence):
                self.made[number] = module
            self.sequence = max(self.sequence, sequence)
            return module, None
        if self.stack:  # a forward pass that is computed again, as checkpointing does
            return self.stack[-1], node.name()
        variable = getattr(node, "variable", None)
        self.behind = self.owner(variable) if variable is not None else self.made.get(node._sequence_nr(), LOSS)
        return self.behind, node.name().rpartition("::")[2]


def overwritten(func: Any) -> set[str]:
    """The arguments whose former contents an operation does not read: they may be memory that nobody has set."""
    names = {argument.name for argument in func._schema.arguments if argument.is_out}
    fills = func._schema.name in _OVERWRITING or torch.Tag.nondeterministic_seeded in func.tags
    return names | ({"self"} if fills and func._schema.name.endswith("_") else set())


def named_arguments(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by their names in the operation's schema."""
    return dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs


def tensors_in(value: Any, label: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in nested lists, tuples and dicts, with where it stands, such as `grads[3]`."""
    if isinstance(value, torch.Tensor):
        yield label, value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from tensors_in(item, f"{label}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors_in(item, f"{label}[{key!r}]")


def _is_number(item: Any) -> bool:
    return isinstance(item, int | float | complex) or (isinstance(item, list | tuple) and all(map(_is_number, item)))


def _repeats(tensor: torch.Tensor) -> bool:
    if tensor.layout != torch.strided:
        return False
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def _labelled(result: Any) -> dict[str, Any]:
    items = result if isinstance(result, (list, tuple)) else [result]
    return {f"output {index}": item for index, item in enumerate(items)}
