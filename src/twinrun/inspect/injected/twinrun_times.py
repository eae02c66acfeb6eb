"""Times the steps of a program, under the switches that the plan names."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch
import twinrun_digests
from torch.utils._python_dispatch import _disable_current_modes
from twinrun_switches import switch, switches
from twinrun_tracer import Program

BITS_AFTER = 3  # steps: processes are compared by the weights after them
LEAST_STEPS = 3  # of which a median is taken, however slow they are


class Timed(Program):
    """Marks the ends of the first optimizer's steps: in between lies all that a step takes, the data included.

    The plan: `flags` to be in force, `warmup` seconds from the first step on, then `seconds` that are measured. Of a
    program that ends before, the second half of its steps is.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__(plan)
        switch(plan["flags"])

    def forget(self) -> None:
        """In a forked child nothing has been timed yet."""
        super().forget()
        self.timed: torch.optim.Optimizer | None = None
        self.marks: list[Any] = []
        self.warm: int | None = None  # the mark at which the warm-up was over
        self.bits = ""
        self.begin = 0.0
        self.told = self.ended = False

    def stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """An optimizer's step has ended."""
        if torch.compiler.is_compiling() or not self._ours() or self.told:
            return
        if self.timed is None:
            self.timed, self.begin = optimizer, time.perf_counter()
            switch(self.plan["flags"])  # once more, after what the program itself has set
            self.send({"step": 1})  # or a process that ends without goodbye would not be known to have trained
        if optimizer is not self.timed:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.device = parameters[0].device
        if self.step == BITS_AFTER:
            with _disable_current_modes():
                self.bits = twinrun_digests.digests([twinrun_digests.mix(parameters)])[0]
        self.step += 1
        if self.step <= BITS_AFTER + 1:
            return
        now = time.perf_counter()
        self.marks.append(self._mark())
        if self.warm is None:
            if now - self.begin < self.plan["warmup"]:
                return
            self.warm, self.started = len(self.marks) - 1, now
        if len(self.marks) - self.warm > LEAST_STEPS and now - self.started >= self.plan["seconds"]:
            self._tell(self.marks[self.warm :])

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _tell(self, marks: list[Any]) -> None:
        """Say how long each step between the marks took; whoever started the program ends it then."""
        self.told = True
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(self.device)
        self.report(
            {
                "step_seconds": [a.elapsed_time(b) / 1000 if cuda else b - a for a, b in pairwise(marks)],
                "clock": "CUDA events" if cuda else "wall time",
                "fingerprint": self.bits,
                "ended_after": self.step - 1 if self.ended else None,
                "flags": switches(),
                "gpu": torch.cuda.get_device_name(self.device) if cuda else None,
            }
        )

    def end(self) -> None:
        """At the end of the process: what there is of a program that ended before the time was over."""
        marks = self.marks[self.warm :] if self.warm is not None else []
        if len(marks) <= LEAST_STEPS:
            marks, self.ended = self.marks[len(self.marks) // 2 :], True  # in its warm-up
        if len(marks) > LEAST_STEPS and not self.told:
            self._tell(marks)
        if self.step > 1:
            self.send({"bye": self.step - 1})
