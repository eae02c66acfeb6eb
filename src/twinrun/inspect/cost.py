"""`twinrun cost`: step times of every rung in palindromic blocks of fresh processes, kept as they come."""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from twinrun.inspect.answering import Answering
from twinrun.inspect.ladder import Ladder, Rung
from twinrun.study.documents import checked
from twinrun.study.errors import IncompleteError, InputError, MismatchError, OutOfMemoryError
from twinrun.study.files import digest, read_json, write_json

SCHEMA = 3
Measure = Callable[[str], dict[str, Any]]  # rung -> what `twinrun probe` prints
Block = AbstractContextManager[Measure]


class _Measurement(BaseModel):
    rung: str
    step_seconds: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    clock: str
    fingerprint: str
    data: str
    host: dict[str, str | int | float | None]
    versions: dict[str, str]


class _CostFile(BaseModel):
    """What is kept of the blocks that were measured."""

    identity: str
    blocks: list[Annotated[list[_Measurement], Field(min_length=1)]]


def palindrome(rungs: Sequence[str], block: int) -> list[str]:
    """The order of one block: the rungs in an order drawn for that block, then the same backwards."""
    order = list(rungs)
    random.Random(block).shuffle(order)  # other neighbours in every block
    return order + order[::-1]


def measure_blocks(
    path: Path,
    settings: dict[str, Any],
    ladder: Ladder[Any],
    blocks: int,
    start: Callable[[], Block],
    say: Callable[[str], None] = lambda message: None,
) -> list[Any]:
    """Measure until `path` holds so many blocks, and return them: lists of what was measured, in their order.

    `start` makes what measures one block. A block is written when it is whole; what is there already is kept. Raises
    InputError when it is of other settings, MismatchError when it is of another device, other data or other versions:
    their times have no common ratio.
    """
    names = list(ladder.rungs)
    roles = {"base": ladder.base, "control": ladder.control, "deterministic": ladder.lean}
    identity = digest([SCHEMA, settings, names])
    content: dict[str, Any] = {"schema": SCHEMA, "settings": settings, "ladder": roles, "identity": identity,
                               "blocks": []}  # fmt: skip
    if path.is_file():
        content = read_json(path)
        checked(content, path, _CostFile, "measurements of `twinrun cost`", "move it away to measure anew")
        if content["identity"] != identity:
            raise InputError(f"{path}: measured with other settings or by other code", "move it away to measure anew")
    done: list[Any] = content["blocks"]
    while len(done) < blocks:
        block = []
        with start() as measure:
            for rung in palindrome(names, len(done)):
                block.append(measure(rung))
                check_same_machine(path, (done or [block])[0][0], block[-1])
                say(f"block {len(done) + 1} {rung}")
        done.append(block)
        write_json(path, content)
    return done[:blocks]


def check_same_machine(path: Path, first: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to put `now` into one file with `first`: MismatchError says in what they differ."""
    was, here = (
        {
            "clock": item["clock"],
            "GPU" if item["host"]["gpu"] else "processor": item["host"]["gpu"] or item["host"]["cpu"],
            "data": item["data"][:12],
            **item["versions"],
        }
        for item in (first, now)
    )
    differs = [
        f"{name} ({was.get(name, 'none')}, now {here.get(name, 'none')})"
        for name in was | here
        if was.get(name) != here.get(name)
    ]
    if differs:
        raise MismatchError(
            f"{path}: its blocks were measured with other {', '.join(differs)}",
            "go on where it was begun, or move it away to measure anew here",
        )


def times(blocks: Sequence[Sequence[dict[str, Any]]]) -> list[list[tuple[str, float]]]:
    """(rung, median seconds of a step) of every measurement of every block, in the order measured."""
    return [[(item["rung"], statistics.median(item["step_seconds"])) for item in block] for block in blocks]


def bits(blocks: Sequence[Sequence[dict[str, Any]]]) -> Mapping[str, list[str]]:
    """The fingerprint after the same steps of every process of each rung: one for each block."""
    prints: dict[str, list[str]] = {}
    for block in blocks:
        for rung, fingerprint in {item["rung"]: item["fingerprint"] for item in block}.items():
            prints.setdefault(rung, []).append(fingerprint)
    return prints


def say_bits(prints: Sequence[str]) -> str:
    """Whether the processes of a rung have the same bits.

    >>> say_bits(["0123456789", "0123456789"]), say_bits(["a", "b", "a"]), say_bits(["0123456789"])
    ('equal 01234567', '2 different of 3', '01234567')
    """
    different = len(set(prints))
    if different > 1:
        return f"{different} different of {len(prints)}"
    return f"{'equal ' if len(prints) > 1 else ''}{prints[0][:8]}"


def probe_command(run_id: str, rung: str | None, options: Sequence[str]) -> list[str]:
    """What starts `twinrun probe` for a rung; None: with the run's own flags."""
    return [sys.executable, "-m", "twinrun", "probe", run_id, *(["--rung", rung] if rung else []), *options]


def probed(run_id: str, code: int, output: str, errors: str) -> dict[str, Any]:
    """What `twinrun probe` said of a run with its own flags; IncompleteError when it failed."""
    if code:
        raise _failed(run_id, code, errors)
    result: dict[str, Any] = json.loads(output)
    return result


@contextmanager
def served(
    root: Path, run_id: str, ladder: Ladder[Rung], options: Sequence[str], ready: Callable[[], None] = lambda: None
) -> Iterator[Measure]:
    """A block's measure: a process for each rung, all started at once, idle until they are measured one at a time.

    From nothing, never from a worker server: processes that share their loaded libraries would not be independent
    measurements. `ready` is called when all wait.
    """
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                Served(name, probe_command(run_id, name, [*options, "--serve"]), root, rung.environment())
            )
            for name, rung in ladder.rungs.items()
        }
        for process in processes.values():
            process.measured()
        ready()

        def measure(rung: str) -> dict[str, Any]:
            processes[rung].ask("measure")
            return processes[rung].measured()

        yield measure


class Served(Answering):
    """A process that measures each time it is asked; it ends with the block, or when this process is gone."""

    def __init__(self, name: str, command: Sequence[str], root: Path, environment: Mapping[str, str]) -> None:
        super().__init__(command, root, environment)
        self.name = name

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self.process.kill()
        self.close()

    def measured(self) -> dict[str, Any]:
        """Its next answer; IncompleteError when it has ended, or OutOfMemoryError."""
        answer = self.answer()
        if answer is None:
            raise _failed(self.name, *self.end())
        return answer


def _failed(name: str, code: int, errors: str) -> IncompleteError | OutOfMemoryError:
    said = errors.strip()[-2000:].removeprefix("twinrun: ")
    message = f"the measurement of {name} ended with exit {code}: {said}"
    if code == OutOfMemoryError.exit_code:
        return OutOfMemoryError(message, "all processes of a block share the memory: --batch-size makes them smaller")
    return IncompleteError(message, "whole blocks are kept: mend the cause, and the same command goes on")
