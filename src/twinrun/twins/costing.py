"""What determinism costs a foreign program: its step times on every rung, each time in a fresh process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twinrun.inspect.cost import Block, Measure, measure_blocks
from twinrun.inspect.ladder import Ladder, ProgramRung, program_ladder
from twinrun.study.errors import IncompleteError, InputError
from twinrun.study.files import sha256_file
from twinrun.twins import folders
from twinrun.twins.golden import processor
from twinrun.twins.tracing import Program, alone

LOOKED_AT = 2  # optimizer steps whose operations decide which rungs there are
REGION = "(torch.compile region)"
FUSED = ("flash", "efficient", "cudnn", "fused")  # in the names of the kernels of attention that are not plain
# A rung may be slower than the first look by so many times, and by so much.
SLOWER, PATIENCE_SECONDS = 20.0, 60.0
FIRST_STEPS_SECONDS = 600.0  # a program that needs longer to get there, dozens of times over, cannot be measured

Run = Callable[[Program, dict[str, Any]], Any]


@dataclass(frozen=True)
class Seen:
    """A program as it is: where it trains, what is in force, and what of it there are rungs for."""

    device: str  # cpu, cuda
    torch: str
    switches: dict[str, bool | int]
    attention: bool  # a fused kernel of scaled_dot_product_attention is called
    compiled: bool
    ranks: int  # processes of torch.distributed, of which the first is timed
    remarks: list[str]  # what is odd although it did not fail
    seconds: float  # until it had made its first steps


@dataclass(frozen=True)
class Costs:
    """What was measured, and on which ladder."""

    seen: Seen
    ladder: Ladder[ProgramRung]
    left_out: dict[str, str]  # rungs, and why
    blocks: list[Any]  # as `measure_blocks` gives them


def program_costs(
    program: Program,
    path: Path,
    blocks: int,
    seconds: float,
    warmup: float,
    *,
    ready: Callable[[Costs], Callable[[str], None]] = lambda costs: lambda message: None,
) -> Costs:
    """Look at the program once, then measure its ladder.

    `ready` is called in between, without blocks, and gives what is told of each measurement.
    What is measured is kept in `path`, as `measure_blocks` says. Raises IncompleteError, which names the rung, when the
    program fails or makes too few steps, and InputError when there is nothing that the ladder would add.
    """
    with alone(program) as run:
        seen = look(run, program)
        ladder, left_out = program_ladder(
            seen.device, seen.switches, os.environ, attention=seen.attention, compiled=seen.compiled
        )
        if len(ladder.rungs) == 2:
            raise InputError(
                "nothing to compare: the program already runs under all of it",
                "have it run as it would without determinism",
            )
        costs = Costs(seen, ladder, left_out, [])
        say = ready(costs)
        limit = PATIENCE_SECONDS + SLOWER * (seen.seconds + warmup + seconds)
        limited = replace(program, limit_seconds=limit)
        plan = {"mode": "times", "warmup": warmup, "seconds": seconds}
        settings = {"command": list(program.command), "code": _code(program), "seconds": seconds, "warmup": warmup,
                    "device": seen.device}  # fmt: skip

        def start() -> Block:
            return measuring(run, limited, ladder, plan)

        return replace(costs, blocks=measure_blocks(path, settings, ladder, blocks, start, say))


def look(run: Run, program: Program) -> Seen:
    """Run the program as it is, for its first steps."""
    begin = time.monotonic()
    limited = replace(program, limit_seconds=program.limit_seconds or FIRST_STEPS_SECONDS)
    heard = run(limited, {"mode": "audit", "steps": LOOKED_AT})
    seconds = time.monotonic() - begin
    report = heard.reports[0]
    names = {call["name"] for call in report["operations"]}
    attention = {name for name in names if "scaled_dot_product" in name and any(kind in name for kind in FUSED)}
    device = "cuda" if "cuda" in report["devices"] else "cpu"
    compiled = REGION in names
    ranks, remarks = report["ranks"], heard.remarks
    return Seen(device, heard.torch, report["switches"], bool(attention), compiled, ranks, remarks, seconds)


@contextmanager
def measuring(run: Run, program: Program, ladder: Ladder[ProgramRung], plan: dict[str, Any]) -> Iterator[Measure]:
    """Measures rungs, each time in a process of its own; IncompleteError, which names the rung, where one fails."""

    def measure(name: str) -> dict[str, Any]:
        rung = ladder.rungs[name]
        try:
            heard = run(replace(program, variables=rung.variables), {**plan, "flags": dict(rung.switches)})
        except IncompleteError as error:
            raise IncompleteError(f"rung {name}: {error.message}", error.hint) from error
        report = heard.reports[0]
        unlike = [f"{key} is {report['flags'][key]}" for key, value in rung.switches.items()
                  if report["flags"][key] != value]  # fmt: skip
        if unlike:
            raise IncompleteError(
                f"rung {name}: after its steps {', '.join(unlike)}: the program sets that itself as it trains",
                "have it set such switches once, before its first step",
            )
        host = {"gpu": report["gpu"], "cpu": processor()}
        return {**report, "rung": name, "host": host, "data": "", "versions": {"torch": heard.torch}}

    yield measure


def _code(program: Program) -> dict[str, str]:
    """The digest of each Python file that the program gets a copy of."""
    skipped = [program.root / name for name in program.linked]
    names = [name for name in folders.files_below(program.root, skipped) if name.suffix == ".py"]
    return {str(name): sha256_file(program.root / name) for name in names if (program.root / name).is_file()}
