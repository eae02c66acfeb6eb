"""Two runs of the tiny study in lockstep within this process, the second with a disturbance put in by the test."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from twinrun.collect.first_difference import FirstDifference
from twinrun.inspect.first_difference import Recorded, Search
from twinrun.inspect.lockstep import Pair
from twinrun.inspect.replay import Replay
from twinrun.inspect.worker import serve
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.records import Noise, Record
from twinrun.training.batches import Draw

Disturb = Callable[[Replay], None]
NATIVE = Noise(kind="native", entropy=None)  # a record's fingerprints are not held against the disturbed run's


class ThreadSide:
    """A run in a thread of this process."""

    def __init__(self, replay: Replay) -> None:
        self.requests: queue.Queue[Any] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()
        self.thread = threading.Thread(target=self.run, args=(replay,), daemon=True)
        self.thread.start()

    def run(self, replay: Replay) -> None:
        try:
            serve(replay, self.requests.get, self.answers.put)
        except BaseException as error:
            self.answers.put(error)

    def send(self, message: dict[str, Any]) -> None:
        self.requests.put(message)

    def receive(self) -> dict[str, Any]:
        answer = self.answers.get(timeout=120)
        if isinstance(answer, BaseException):
            raise answer
        return answer


@dataclass
class Harness:
    """What `drive` needs of a study."""

    params: Params
    study: Layout
    folder: Path


def record_of(params: Params, run_id: str, replay: Replay) -> Record:
    run = params.find(run_id)
    return Record(
        run=run.id, task=run.task, optimizer=run.optimizer, seed=run.seed, arm=run.arm, replicate=run.replicate,
        status="complete", params_digest="a" * 64, code_digest="b" * 64, data_digest="c" * 64, device="cpu",
        noise=NATIVE, flags={}, parameter_count=1, initial_fingerprint=replay.setup.initial,
        fingerprints=["d" * 64] * 9, metrics=None, note=None, files={},
    )  # fmt: skip


def drive(
    harness: Harness, disturb: Disturb, *, cell: str = "shapes/sgd/0", labels: tuple[str, str] = ("det_1", "det_2"),
    noises: tuple[Noise, Noise] = (NATIVE, NATIVE), follow: int = 0, epoch: int = 1, record: Record | None = None,
) -> FirstDifference:  # fmt: skip
    """Locate between two runs of `cell`, the second of them disturbed; `record` is held against both, if given."""
    sides, recorded = [], []
    for index, label in enumerate(labels):
        run = harness.params.find(f"{cell}/{label}")
        replay = Replay(harness.params, run, harness.study, noises[index], "cpu")
        if index:
            disturb(replay)
        sides.append(ThreadSide(replay))
        recorded.append(Recorded(run, record or record_of(harness.params, run.id, replay), harness.folder))
    try:
        pair = Pair(*sides, harness.folder)
        return Search(*recorded, pair, epoch, follow, lambda text: None).run()
    finally:
        for side in sides:
            side.send({"do": "quit"})


class Change(TorchDispatchMode):
    """Changes one output of the `occurrence`-th call of an operation."""

    def __init__(self, operation: str, occurrence: int, output: int, change: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self.operation, self.occurrence, self.output, self.change, self.count = operation, occurrence, output, change, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if str(func) == self.operation:
            if self.count == self.occurrence:
                # A fused optimizer returns nothing: its parameters are its first argument.
                made = result if isinstance(result, (list, tuple)) else [result] if result is not None else args[0]
                self.change(made[self.output].detach().view(-1))
            self.count += 1
        return result


def at(epoch: int, step: int, operation: str, occurrence: int, output: int, change: Any) -> Disturb:
    """Disturb that operation of that step, each time it is done."""

    def disturb(replay: Replay) -> None:
        quiet = replay.around
        replay.around = lambda e, s: (
            Change(operation, occurrence, output, change) if (e, s) == (epoch, step) else quiet(e, s)
        )

    return disturb


def redraw(epoch: int, step: int, row: int, change: Callable[[torch.Tensor], None]) -> Disturb:
    """Change a row of what was drawn for that step: 0 the examples, 1 to 4 the augmentation."""

    def disturb(replay: Replay) -> None:
        def changed(draw: Draw, e: int, s: int) -> Draw:
            if (e, s) != (epoch, step):
                return draw
            table = draw.table.clone()
            change(table[row])
            return replace(draw, table=table)

        replay.redraw = changed

    return disturb


def before(epoch: int, step: int, work: Callable[[Replay], None]) -> Disturb:
    """Do `work` before that step, each time it is done."""

    def disturb(replay: Replay) -> None:
        @contextmanager
        def around(e: int, s: int) -> Iterator[None]:
            if (e, s) == (epoch, step):
                work(replay)
            yield

        replay.around = around

    return disturb


def one_ulp(values: torch.Tensor) -> None:
    """The first element that is not 0 becomes its neighbour, away from 0."""
    place = int(values.nonzero()[0])
    values[place] = torch.nextafter(values[place], values[place] * 2)


def flip_sign(values: torch.Tensor) -> None:
    place = int(values.nonzero()[0])
    values[place] = -values[place]


def swap(values: torch.Tensor) -> None:
    """The first element changes places with the first that is not equal to it."""
    other = int((values != values[0]).nonzero()[0])
    values[0], values[other] = values[other].clone(), values[0].clone()
