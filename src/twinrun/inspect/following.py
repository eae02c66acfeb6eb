"""Two twins of a foreign program, followed from outside: what their tracers tell is compared as they train."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from twinrun.collect.first_difference import DifferingOperation, described
from twinrun.inspect.bits import Bits, difference
from twinrun.inspect.lockstep import Message, Pair, ensure_space
from twinrun.inspect.same_draws import SameDraws, same_draws
from twinrun.study.errors import plural

Key = tuple[int, int]  # rank (-1: none), and which of this rank's processes that train, counted from 0
INJECTED = Path(__file__).parent / "injected"
_OVER: Message = {"bye": None}


@dataclass(frozen=True)
class Parting:
    """Where two twins part: the optimizer step, what differed at its end, and the operation where it was looked for."""

    process: str  # such as `rank 1`; empty where there is one
    step: int  # over all optimizers of the process, from 1
    optimizer: str
    what: str  # of the step's digests, in words; empty where the operation was found before its end
    operation: DifferingOperation | None
    generators: Mapping[str, int]  # the first step at whose end a global generator was in another state
    operations: int = 0  # looked at in the step

    def sentences(self) -> list[str]:
        """The answer in words."""
        who = f"{self.process}: " if self.process else ""
        by = f" ({self.optimizer})" if self.optimizer else ""
        equal = f"after {plural(self.step - 1, 'equal step')}" if self.step > 1 else "the first"
        lines = [f"{who}the twins part in optimizer step {self.step}{by}, {equal}."]
        if self.operation is None:
            lines.append(f"At its end differ: {self.what}.")
        else:
            lines.append(f"First difference: {described(self.operation)}.")
        phase = self.operation.phase if self.operation else ""
        if self.generators:
            states = ", ".join(f"{name} since step {step}" for name, step in self.generators.items())
            # A number that a program drew outside of torch, and calculates with, is seen here alone.
            used = ", used or not" if phase in ("forward", "backward", "optimizer") else ""
            lines.append(f"Generators in another state{used}: {states}.")
        return lines


@dataclass
class Heard:
    """What came from the processes of both twins."""

    partings: list[Parting] = field(default_factory=list)  # the first comes first
    failures: list[str] = field(default_factory=list)  # why a tracer could not be put in
    steps: dict[Key, list[int | None]] = field(default_factory=dict)  # by twin; None: the process did not say goodbye
    reports: list[Message] = field(default_factory=list)  # by process: its operations, or how long its steps took
    faults: list[Exception] = field(default_factory=list)  # of the following itself, such as a full disk
    torch: str = ""  # its version
    same_draws: tuple[SameDraws, ...] = ()  # of the first twin
    remarks: list[str] = field(default_factory=list)  # what is odd although no program failed


class TracedProcess:
    """One process of a twin that trains: a side of the lockstep."""

    def __init__(self, connection: socket.socket, hello: Message) -> None:
        self.connection, self.hello = connection, hello
        self.lines = connection.makefile("r", encoding="utf-8")
        self.waiting: Message | None = hello
        self.over = False
        self.step = 0  # the last that ended
        self.other: Path | None = None  # holds the first twin's tensor, to be compared

    def send(self, message: Message) -> None:
        """Ask; a comparison is done here, for the program's process has nothing but torch."""
        self.other = None
        if message["do"] == "compare":
            self.other = Path(message["path"])
            message = {**message, "do": "save", "path": f"{message['path']}.second"}
        with suppress(OSError):
            self.connection.sendall((json.dumps(message) + "\n").encode())

    def receive(self) -> Message:
        """The next answer; when the process has ended, that it is over, and that a traced step has ended."""
        if self.waiting is not None:
            message, self.waiting = self.waiting, None
            return message
        try:
            line = "" if self.over else self.lines.readline()
        except (OSError, ValueError):
            line = ""
        answer: Message = json.loads(line) if line.endswith("\n") else dict(_OVER)
        if "bye" in answer:
            self.over = True
            answer |= {"end": True, "names": []}
        self.step = answer.get("step") or answer.get("bye") or self.step
        if self.other is not None and "shape" in answer:
            answer["difference"] = _difference(answer, self.other, Path(f"{self.other}.second"))
        return answer

    def close(self) -> None:
        """Let go of it: a process that waits for an answer goes on."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _difference(facts: Message, first: Path, second: Path) -> dict[str, Any] | None:
    left, right = (np.frombuffer(path.read_bytes(), np.uint8) for path in (first, second))
    second.unlink()
    dtype, shape = facts["dtype"], tuple(facts["shape"])
    if len(left) != len(right):
        return {"kind": "shape"}
    apart = difference(Bits(dtype, shape, left), Bits(dtype, shape, right))
    return asdict(apart) if apart else None


class ProgramPair(Pair):
    """Two processes of one rank in lockstep, each in its twin; `notice` is called at once when they part."""

    def __init__(self, first: TracedProcess, second: TracedProcess, folder: Path, notice: Callable[[], None]) -> None:
        super().__init__(first, second, folder)
        self.notice = notice

    def _fetch(self, place: Message, side: Literal["input", "output"], index: int) -> DifferingOperation:
        path = self.folder / "tensor"
        ensure_space(self.folder, 2 * self.only(0, "name", side=side, index=index)["bytes"], "the tensor that differs")
        self.only(0, "save", side=side, index=index, path=str(path))
        answer = self.only(1, "compare", side=side, index=index, path=str(path))
        path.unlink()
        facts = {"tensor": answer["name"], "shape": answer["shape"], "dtype": answer["dtype"]}
        facts |= answer["difference"] or {"kind": "values"}
        if answer["name"].startswith("state of "):
            facts["phase"] = "draws"
        elif side == "input" and answer["fresh"] and place["phase"] == "forward":
            facts["phase"] = "data"  # no operation made it, and it is none of the model's: it came with the batch
        return DifferingOperation(**{**place, "side": side, **facts})

    def _compare(self, event: Message, other: Message, *, order_seen: bool) -> tuple[DifferingOperation | None, bool]:
        parting, only_order = self._unequal_number(event, other), False
        if parting is None:
            parting, only_order = super()._compare(event, other, order_seen=order_seen)
        if parting:
            self.notice()
        if parting and parting.phase == "draws":
            parting = parting.model_copy(update={"opaque": False})
        return parting, only_order

    @staticmethod
    def _unequal_number(event: Message, other: Message) -> DifferingOperation | None:
        """Where the same operation on the same tensors is given another number: one that the program drew, say."""
        numbers, others = event.get("numbers", {}), other.get("numbers", {})
        alike = all(event[key] == other[key] for key in ("operation", "module", "inputs"))
        for label, value in numbers.items():
            if alike and others.get(label, value) != value:
                place = {key: event[key] for key in ("phase", "operation", "module", "module_type")}
                tensor = f"number {label} ({value} against {others[label]})"
                return DifferingOperation(**place, side="input", tensor=tensor, kind="values")
        return None


class Follower:
    """Listens on a socket in `folder`, pairs the processes of both twins, and compares each pair in a thread.

    `done` is set at the first difference, or when the only one of the `twins` has told what it was asked for.
    """

    def __init__(self, folder: Path, twins: int = 2) -> None:
        self.twins = twins
        self.folder, self.heard, self.done = folder, Heard(), threading.Event()
        self.lock = threading.Lock()
        self.first: Key | None = None  # whose operations parted first
        self.processes: list[TracedProcess] = []
        self.waiting: dict[Key, dict[int, TracedProcess]] = {}
        self.threads: list[threading.Thread] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(self.path))
        self.listener.listen(64)
        self._start(self._accept)

    @property
    def path(self) -> Path:
        """The socket."""
        return self.folder / "socket"

    @property
    def attached(self) -> int:
        """How many processes have imported torch with the tracer in it."""
        return len(list(self.folder.glob("attached-*")))

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        for process in list(self.processes):
            process.close()

    def finish(self) -> Heard:
        """When the programs have ended: what was heard, to the last word."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        for waiting in self.waiting.values():
            for number, process in waiting.items():
                self._drain(process, number)
        for thread in self.threads:
            thread.join(5)
        for process in self.processes:
            process.close()
        for thread in self.threads:
            thread.join(5)
        self.heard.same_draws = same_draws(self.folder / "draws-0")
        self.heard.failures = sorted({path.read_text() for path in self.folder.glob("failed-*")})
        return self.heard

    def _start(self, work: Any, *args: Any) -> None:
        thread = threading.Thread(target=self._safely, args=(work, *args), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _safely(self, work: Any, *args: Any) -> None:
        try:
            work(*args)
        except Exception as fault:  # raised by whoever waits
            self.heard.faults.append(fault)
            self.done.set()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self._start(self._greet, connection)

    def _greet(self, connection: socket.socket) -> None:
        process = TracedProcess(connection, {})
        process.waiting = None
        hello = process.receive()
        if "twin" not in hello:
            return
        process.hello, process.waiting = hello, hello
        twin, rank = hello["twin"], -1 if hello["rank"] is None else hello["rank"]
        with self.lock:
            self.heard.torch = hello["torch"]
            count = sum(p.hello["twin"] == twin and p.hello["rank"] == hello["rank"] for p in self.processes)
            self.processes.append(process)
            key = (rank, count)
            pair = self.waiting.setdefault(key, {})
            pair[twin] = process
            self.heard.steps.setdefault(key, [None, None])
            if len(pair) < self.twins:
                return
            del self.waiting[key]
        if self.twins == 1:
            self._drain(process, 0)
            return
        self._follow(key, pair[0], pair[1])

    def _drain(self, process: TracedProcess, number: int) -> None:
        """Hear to its end a process that has no counterpart."""
        key = (-1 if process.hello["rank"] is None else process.hello["rank"], 0)
        while not process.over:
            self._side_facts(process.receive())
        self.heard.steps[key][number] = process.step

    def _side_facts(self, message: Message) -> None:
        if "operations" in message or "step_seconds" in message:
            self.heard.reports.append(message)
            self.done.set()

    def _follow(self, key: Key, first: TracedProcess, second: TracedProcess) -> None:
        pair = ProgramPair(first, second, self._own_folder(key), lambda: self._notice(key))
        generators: dict[str, int] = {}
        step = 0
        while not self.done.is_set():
            messages = pair.receive()
            for message in messages:
                self._side_facts(message)
            if any("bye" in message for message in messages):
                self._end(key, (first, second), messages)
                return
            if all("window" in message for message in messages):
                step = messages[0]["window"]
                traced = pair.trace()
                if traced.first:
                    by = messages[0].get("optimizer", "") or pair.receive()[0].get("optimizer", "")
                    self._part(key, Parting(_named(key), step, by, "", traced.first, generators, traced.operations))
            elif all("step" in message for message in messages):
                for name, state in messages[0]["generators"].items():
                    if messages[1]["generators"].get(name) != state:
                        generators.setdefault(name, messages[0]["step"])
                if what := _differing(*messages):
                    number, by = messages[0]["step"], messages[0]["optimizer"]
                    self._part(key, Parting(_named(key), number, by, what, None, generators))

    def _own_folder(self, key: Key) -> Path:
        folder = self.folder / f"pair{key[0]}.{key[1]}"
        folder.mkdir()
        return folder

    def _notice(self, key: Key) -> None:
        """The cause is where it is seen first: other ranks part in what they are sent."""
        with self.lock:
            self.first = key if self.first is None else self.first

    def _part(self, key: Key, parting: Parting) -> None:
        with self.lock:
            if self.first not in (None, key):
                return
            self.heard.partings.append(parting)
        self.done.set()

    def _end(self, key: Key, sides: tuple[TracedProcess, TracedProcess], messages: list[Message]) -> None:
        counts = self.heard.steps[key]
        for number, (side, message) in enumerate(zip(sides, messages, strict=True)):
            if "window" in message:
                side.send({"do": "quit"})
            while not side.over:
                if "window" in side.receive():
                    side.send({"do": "quit"})
            counts[number] = side.step


def _named(key: Key) -> str:
    rank, number = key
    words = [f"rank {rank}"] if rank >= 0 else []
    return ", ".join([*words, *([f"process {number + 1} that trains"] if number else [])])


def _differing(first: Message, second: Message) -> str:
    """What of a step's digests differs, in words; empty: nothing."""
    if first["optimizer"] != second["optimizer"]:
        return f"the optimizer ({first['optimizer']} in the first, {second['optimizer']} in the second)"
    labels = [[label for label, _ in message["inputs"]] for message in (first, second)]
    words = []
    if labels[0] != labels[1]:
        words.append("which inputs the models were called with")
    words += [
        label
        for (label, digest), (_, other) in zip(first["inputs"], second["inputs"], strict=False)
        if digest != other and labels[0] == labels[1]
    ]
    words += [name for name in ("gradients", "parameters") if first[name] != second[name]]
    return ", ".join(dict.fromkeys(words))
