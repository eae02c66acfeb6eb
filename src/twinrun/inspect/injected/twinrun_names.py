"""What modules, parameters and optimizers are called in a program that nobody has described."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn


class Names:
    """The names, found out as modules are called and optimizers make their steps."""

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
        known: dict[str, torch.Tensor] = {}
        parameters: dict[int, str] = {}
        for root in map(_alive, self.roots):
            state = self.state(root)
            for (kind, _, tensor), label in zip(_tensors(root), state, strict=True):
                known[label] = tensor
                if kind == "parameter":
                    parameters.setdefault(id(tensor), label.partition(" ")[2])
        for number, optimizer in enumerate(map(_alive, self.optimizers), 1):
            for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
                name = parameters.get(id(parameter), f"parameter {index} of optimizer {number}")
                known.setdefault(f"parameter {name}" if id(parameter) in parameters else name, parameter)
                if parameter.grad is not None:
                    known[f"gradient of {name}"] = parameter.grad
                state_of = optimizer.state.get(parameter, {})
                for key, value in state_of.items():
                    if isinstance(value, torch.Tensor):
                        known[f"{key} of {name}"] = value
        return known


def _tensors(module: nn.Module) -> list[tuple[str, str, torch.Tensor]]:
    parameters = [("parameter", name, tensor) for name, tensor in module.named_parameters()]
    return parameters + [("buffer", name, tensor) for name, tensor in module.named_buffers()]


def _alive(reference: Any) -> Any:
    # What has been freed stands as something that has nothing; an empty or compiled module has no truth of its own.
    kept = reference()
    return nn.Identity() if kept is None else kept
