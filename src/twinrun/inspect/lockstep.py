"""Two runs in lockstep: the same request to both, and their traced operations compared one by one as they happen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from twinrun.collect.first_difference import DifferingOperation
from twinrun.inspect.answering import Answering
from twinrun.study import errors
from twinrun.study.errors import IncompleteError, InputError
from twinrun.study.files import has_room
from twinrun.study.pins import CpuBits, clean_environment

Message = dict[str, Any]


class Side(Protocol):
    """One run that can be driven."""

    def send(self, message: Message) -> None:
        """Ask."""

    def receive(self) -> Message:
        """The next answer."""


class ProcessSide(Answering):
    """A run in a fresh process."""

    def send(self, message: Message) -> None:
        """Ask; a process that has ended is noticed when its answer is read."""
        self.ask(json.dumps(message))

    def receive(self) -> Message:
        """Its answer; IncompleteError when the process has ended, its own TwinrunError when it sends one."""
        message = self.answer()
        if message is None:
            code, said = self.end()
            raise IncompleteError(f"a run that was traced ended early (exit {code}): {said[-1500:]}")
        if "error" in message:
            raise getattr(errors, message["kind"])(message["error"], message["hint"])
        return message

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        super().close()


@dataclass
class Traced:
    """What the comparison of a traced step found."""

    first: DifferingOperation | None
    arithmetic: DifferingOperation | None
    operations: int


class Pair:
    """Two sides and a folder for the one tensor, or the weights, that are handed from the first to the second."""

    def __init__(self, first: Side, second: Side, folder: Path) -> None:
        self.sides, self.folder = (first, second), folder
        self.hello = self.receive()

    def receive(self) -> list[Message]:
        """The next answer of each."""
        return [side.receive() for side in self.sides]

    def ask(self, do: str, *own: Message) -> list[Message]:
        """The answers of both to one request, with something of its `own` for each; they work at the same time."""
        for side, rest in zip(self.sides, own or ({}, {}), strict=True):
            side.send({"do": do, **rest})
        return self.receive()

    def only(self, which: int, do: str, **rest: Any) -> Message:
        """The answer of one of them."""
        self.sides[which].send({"do": do, **rest})
        return self.sides[which].receive()

    def trace(self) -> Traced:
        """Do the step that both were put back to once more, operation by operation; nothing is kept but the digests.

        The search goes on beyond a mere other order of the examples, for the first operation that rounds otherwise.
        """
        differences: list[DifferingOperation] = []
        count, stopped, mere_order = 0, False, False
        for side in self.sides:
            side.send({"do": "trace"})
        while True:
            pair = self.receive()
            if any("end" in event for event in pair):
                break
            count += 1
            parting, only_order = self._compare(*pair, order_seen=bool(differences))
            if parting:
                differences.append(parting)
                mere_order = only_order and len(differences) == 1
                stopped = not mere_order
            for side in self.sides:
                side.send({"do": "stop" if stopped else "go"})
        for index, side in enumerate(self.sides):
            while "end" not in pair[index]:  # one of them did more than the other
                side.send({"do": "stop"})
                pair[index] = side.receive()
        names = pair[1]["names"]
        differences = [
            difference.model_copy(update={"tensor": name}) if name else difference
            for difference, name in zip(differences, [*names, None, None], strict=False)
        ]
        first = differences[0] if differences else None
        return Traced(first, None if mere_order else differences[-1] if differences else None, count)

    def _compare(self, event: Message, other: Message, *, order_seen: bool) -> tuple[DifferingOperation | None, bool]:
        """Where this operation differs, and whether only in the order of the batch's examples."""
        place = {key: event[key] for key in ("phase", "operation", "module", "module_type", "opaque")}
        shapes = [[len(message[side]) for side in ("inputs", "outputs")] for message in (event, other)]
        if any(event[key] != other[key] for key in ("operation", "module")) or shapes[0] != shapes[1]:
            another = {"other_operation": other["operation"], "kind": "other operation"}
            return DifferingOperation(**place, **another, side="output", tensor=""), False
        sides: tuple[Literal["input", "output"], ...] = ("input", "output")
        for side in sides:
            for index, (a, b) in enumerate(zip(event[side + "s"], other[side + "s"], strict=True)):
                only_order = a[2] is not None and a[2] == b[2]
                if a[1] == b[1] or (order_seen and only_order):
                    continue
                parting = self._fetch(place, side, index)
                # What differs at an input, and at no output before it, came in past the dispatcher.
                unseen = side == "input" or event["operation"] == "(module)"
                return (parting.model_copy(update={"opaque": True}) if unseen else parting), only_order
        return None, False

    def _fetch(self, place: Message, side: Literal["input", "output"], index: int) -> DifferingOperation:
        """Hand that one tensor from the first run to the second, while both stand at the operation that made it."""
        path = self.folder / "tensor.safetensors"
        size = self.only(0, "name", side=side, index=index)["bytes"]
        ensure_space(self.folder, size, "the tensor that differs")
        self.only(0, "save", side=side, index=index, path=str(path))
        answer = self.only(1, "compare", side=side, index=index, path=str(path))
        path.unlink()
        facts = answer["difference"] or {"kind": "values"}
        return DifferingOperation(
            **place, side=side, tensor=answer["name"], shape=answer["shape"], dtype=answer["dtype"], **facts
        )


def ensure_space(folder: Path, size: int, what: str) -> None:
    """InputError when `size` bytes do not fit on the disk of `folder` with some left."""
    if not has_room(folder, size):
        free = shutil.disk_usage(folder).free
        raise InputError(
            f"{folder}: {what} takes {size / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free",
            "free some space, or set TMPDIR to a folder on another disk",
        )


class Processes:
    """Both runs as fresh processes, ended with the block."""

    def __init__(self, command: Callable[[int], Sequence[str]], root: Path, cpu_bits: CpuBits = "anywhere") -> None:
        self.command, self.root, self.cpu_bits = command, root, cpu_bits
        self.sides: list[ProcessSide] = []
        self._stopped = False

    def __enter__(self) -> list[ProcessSide]:
        for index in (0, 1):
            environment = clean_environment(cpu_bits=self.cpu_bits)
            self.sides.append(ProcessSide(self.command(index), self.root, environment))
        if self._stopped:
            self.stop()
        return self.sides

    def stop(self) -> None:
        """End both from another thread: the one that waits for their answers hears that they have ended."""
        self._stopped = True
        for side in self.sides:
            side.process.terminate()

    def __exit__(self, *_: object) -> None:
        for side in self.sides:
            side.close()
