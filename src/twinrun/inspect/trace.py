"""Every operation of a training step as it happens: phase, name, module, and digests of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from twinrun.inspect.bits import bits_digest, rows_digest, tensors_in
from twinrun.inspect.repeat import SCRATCH

BATCH, AUGMENTATION, FORWARD, BACKWARD, OPTIMIZER = "batch", "augmentation", "forward", "backward", "optimizer"
STATE, DRAW, MODULE = "(state)", "(draw)", "(module)"  # in the place of an operation, where none is looked at
LOSS = "(loss)"  # stands for the module of what is computed outside of the model

# Their outputs are whatever the memory held before.
UNINITIALIZED = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided",
                 "aten::resize_", "aten::empty_permuted"}  # fmt: skip
# Arguments that are written although the schema does not say so.
_HIDDEN_WRITES = dict.fromkeys(
    ("aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::miopen_batch_norm"), ("running_mean", "running_var")
)
_RESERVED = "reserveSpace"  # the argument that such scratch memory comes back in
_SEEN_THROUGH = {"aten", "prims"}  # namespaces whose operations are PyTorch's own


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


class Tracer(TorchDispatchMode):
    """Reports an Event for each operation inside the block, after it has run and before the next begins.

    Hooks on modules, and the autograd graph's sequence numbers in the backward pass, say which module it belongs to.
    `stop` ends the reports; what follows then runs as if there were no tracer.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, batch_size: int, report: Callable[[Event], None]
    ) -> None:
        super().__init__()
        self.model, self.optimizer, self.batch_size, self.report = model, optimizer, batch_size, report
        self.paths = {id(module): path for path, module in reversed(list(model.named_modules()))}
        self.owners = {id(p): path.rpartition(".")[0] for path, p in model.named_parameters()}
        self.phase, self.active = AUGMENTATION, True
        self.stack: list[str] = []
        self.made: dict[int, str] = {}  # module by sequence number of the autograd node made in it
        self.sequence = 0
        self.behind = ""  # the module of the last autograd node

    def __enter__(self) -> Tracer:
        self.sequence = torch.autograd._get_sequence_nr()
        hooks = [
            self.optimizer.register_step_pre_hook(lambda *_: self._enter(OPTIMIZER)),
            self.optimizer.register_step_post_hook(lambda *_: self._enter(FORWARD)),
        ]
        for module in self.model.modules():
            hooks.append(module.register_forward_pre_hook(self._before))
            hooks.append(module.register_forward_hook(self._after, always_call=True))
        self.hooks = hooks
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self.hooks:
            hook.remove()

    def stop(self) -> None:
        """Report nothing more."""
        self.active = False

    def values(self, labelled: dict[str, Any]) -> list[Value]:
        """The tensors in `found` with their digests, labelled by their key.

        Left out are views that show their memory several times over, such as all crops of all images: what is taken
        from them is seen where it comes out.
        """
        with _disable_current_modes():  # computing a digest is no operation of the step
            return [
                Value(where, tensor, bits_digest(tensor), self._rows(tensor))
                for label, item in labelled.items()
                for where, tensor in tensors_in(item, label)
                if not _repeats(tensor)
            ]

    def _report(self, event: Event) -> None:
        with _disable_current_modes():
            self.report(event)

    def _rows(self, tensor: torch.Tensor) -> str | None:
        if self.batch_size < 2 or self.batch_size not in tensor.shape or tensor.layout != torch.strided:
            return None
        return rows_digest(tensor, tuple(tensor.shape).index(self.batch_size))

    def boundary(self, phase: str, operation: str, module: str, labelled: dict[str, torch.Tensor]) -> None:
        """Report tensors that no operation made: the state before the step, or what was drawn for it."""
        if self.active and (outputs := self.values(labelled)):
            self._report(Event(phase, operation, module, [], outputs))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if not self.active or name.startswith("profiler::"):
            return func(*args, **kwargs)
        module, node = self._place()
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        # SGD's first step is given buffers for the momentum that hold nothing yet.
        unset = {_RESERVED} | ({"momentum_buffer_list"} if given.get("is_first_step") else set())
        meant = {label: item for label, item in given.items() if label not in unset}
        inputs = [] if name in UNINITIALIZED else self.values(meant)
        result = func(*args, **kwargs)
        written = {a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write}
        written |= set(_HIDDEN_WRITES.get(name, ()))
        made = _labelled(result)
        made.pop(f"output {SCRATCH.get(name)}", None)
        outputs = [] if name in UNINITIALIZED else self.values(made)
        returned = {id(value.tensor) for value in outputs}
        changed = self.values({key: given[key] for key in sorted(written & set(given))})
        outputs += [value for value in changed if id(value.tensor) not in returned]
        if inputs or outputs:
            self._report(
                Event(
                    self.phase,
                    str(func),
                    module,
                    inputs,
                    outputs,
                    opaque=name.split("::")[0] not in _SEEN_THROUGH,
                    node=node,
                )
            )
        return result

    def _place(self) -> tuple[str, str | None]:
        """Module path and autograd node of the operation that runs now."""
        node = torch._C._current_autograd_node()
        if node is None or self.phase == OPTIMIZER:
            sequence = torch.autograd._get_sequence_nr()
            module = self.stack[-1] if self.stack else self._outside()
            for number in range(self.sequence, sequence):
                self.made[number] = module
            self.sequence = max(self.sequence, sequence)
            return module, None
        self.phase = BACKWARD
        if self.stack:  # a forward pass that is computed again, as checkpointing does
            return self.stack[-1], node.name()
        variable = getattr(node, "variable", None)
        self.behind = self.owners.get(id(variable), "") if variable is not None else self.made.get(
            node._sequence_nr(), LOSS
        )  # fmt: skip
        return self.behind, node.name().rpartition("::")[2]

    def _outside(self) -> str:
        return {FORWARD: LOSS, BACKWARD: self.behind}.get(self.phase, "")

    def _enter(self, phase: str) -> None:
        self.phase = phase

    def _before(self, module: nn.Module, inputs: Any) -> None:
        if self.phase in (BATCH, AUGMENTATION):
            self.phase = FORWARD
        self.stack.append(self.paths[id(module)])

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        path = self.stack.pop() if self.stack else self.paths[id(module)]
        if self.active and self.phase == FORWARD:
            # What no operation shows, such as a kernel called past PyTorch, shows here.
            self._report(Event(self.phase, MODULE, path, [], self.values(_labelled(output))))


def _repeats(tensor: torch.Tensor) -> bool:
    if tensor.layout != torch.strided:
        return False
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def _labelled(result: Any) -> dict[str, Any]:
    items = result if isinstance(result, (list, tuple)) else [result]
    return {f"output {index}": item for index, item in enumerate(items)}
