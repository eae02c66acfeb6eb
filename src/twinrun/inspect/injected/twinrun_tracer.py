"""Follows the training of a program from inside its process: digests at every optimizer step, operations where asked.

The plan comes in the variable TWINRUN_TRACE, as JSON: the socket to talk to, which twin this is, the mode (`steps`,
`operations` from the step `from` on, `audit` of the first `steps`, or `times`). What happens in the program is seen by
torch's global hooks and a dispatch mode; nothing that it computes, draws or stores is changed.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import torch
import twinrun_digests
import twinrun_loaders
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import _disable_current_modes
from twinrun_imports import after_import
from twinrun_looking import Listing, Lockstep, Tracing, bytes_of, look_at_compiled
from twinrun_names import Names
from twinrun_operations import tensors_in


def attach(plan: dict[str, Any]) -> None:
    """Put the hooks in."""
    if plan["mode"] == "times":
        from twinrun_times import Timed  # it builds on this module

        program: Program = Timed(plan)  # no more than it needs: every hook takes time
    else:
        program = Program(plan)
        twinrun_loaders.attach(plan)
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
    # Whatever a half-initialized or foreign process group raises, the program must go on; its variable says the same.
    with suppress(Exception):
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank()
    text = os.environ.get("RANK", "")
    return int(text) if text.isdigit() and _ranks() > 1 else None  # one alone is left over from elsewhere


def _ranks() -> int:
    with suppress(Exception):
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_world_size()
    text = os.environ.get("WORLD_SIZE", "")
    return int(text) if text.isdigit() else 1


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

    def report(self, message: dict[str, Any]) -> None:
        """Tell what one process was asked for: of several ranks the first speaks for all."""
        if _rank() in (None, 0):
            self.send({**message, "ranks": _ranks()})

    def end(self) -> None:
        """At the end of the process; an audit of a program that made fewer steps is told of those."""
        if isinstance(self.tracer, Listing) and self.step > 1:
            self.tracer.tell_all(self.step - 1)
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
            with _disable_current_modes():
                for label, tensor in given.items():
                    if not tensor.requires_grad:
                        mixed = twinrun_digests.if_it_has_bytes(partial(twinrun_digests.mix, [tensor]))
                        self.inputs += [] if mixed is None else [(label, mixed)]

    def _wanted(self) -> bool:
        return self.plan["mode"] == "audit" or (self.plan["mode"] == "operations" and self.step >= self.plan["from"])

    def _look(self) -> None:
        """Begin to look at every operation; from then on until the end, each step asks whether to go on."""
        if self.tracer is None:
            self.tracer = Listing(self) if self.plan["mode"] == "audit" else Lockstep(self)
            self.tracer.__enter__()
            after_import("torch._inductor.output_code", partial(look_at_compiled, self.tracer))
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
            "generators": {name: twinrun_loaders.short(state) for name, state in _generators()},
        }


def _inputs(args: Any) -> list[tuple[str, torch.Tensor]]:
    """The tensors that a module is called with; hooks are not given those by keyword, which lie in the caller."""
    frame: Any = sys._getframe(3)  # of torch's nn.Module, which runs the hooks
    kwargs = frame.f_locals.get("kwargs") or {}
    named = {**{str(index): item for index, item in enumerate(args)}, **kwargs}
    return [pair for label, item in named.items() for pair in tensors_in(item, label)]


def _generators() -> Iterator[tuple[str, bytes]]:
    """The states of the global generators."""
    yield from twinrun_loaders.global_generators()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            yield f"torch's (cuda:{index})", bytes_of(torch.cuda.get_rng_state(index))
