"""Every operation of a training step of a model and an optimizer that are at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from twinrun.inspect.bits import bits_digest, rows_digest
from twinrun.inspect.injected.twinrun_operations import (
    AUGMENTATION,
    BATCH,
    FORWARD,
    OPTIMIZER,
    Event,
    Operations,
)


class Tracer(Operations):
    """Reports an Event for each operation inside the block, after it has run and before the next begins.

    Hooks on modules say which module it belongs to.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, batch_size: int, report: Callable[[Event], None]
    ) -> None:
        super().__init__(report)
        self.model, self.optimizer, self.batch_size = model, optimizer, batch_size
        self.paths = {id(module): path for path, module in reversed(list(model.named_modules()))}
        self.owners = {id(p): path.rpartition(".")[0] for path, p in model.named_parameters()}

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

    def digest(self, tensor: torch.Tensor) -> str:
        """SHA-256 of type, shape and bytes."""
        return bits_digest(tensor)

    def rows(self, tensor: torch.Tensor) -> str | None:
        """As `digest`, but equal when the examples are the same in another order."""
        if self.batch_size < 2 or self.batch_size not in tensor.shape or tensor.layout != torch.strided:
            return None
        return rows_digest(tensor, tuple(tensor.shape).index(self.batch_size))

    def owner(self, variable: Any) -> str:
        """The path of the module that has this parameter."""
        return self.owners.get(id(variable), "")

    def _enter(self, phase: str) -> None:
        self.phase = phase

    def _before(self, module: nn.Module, inputs: Any) -> None:
        if self.phase in (BATCH, AUGMENTATION):
            self.phase = FORWARD
        self.stack.append(self.paths[id(module)])

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.leave(self.stack.pop() if self.stack else self.paths[id(module)], output)
