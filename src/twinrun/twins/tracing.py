"""Foreign programs run with a tracer in them: where two twins of one part, and which operations one calls."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from twinrun.inspect.following import INJECTED, Follower, Heard, Parting
from twinrun.study.errors import IncompleteError, InputError, plural
from twinrun.twins import arms, folders, processes
from twinrun.twins.running import hidden_failure, traceback_in, with_last_words

TRIES = 5  # noise that comes from outside need not show where operations are looked at
LONGEST_PATH = 100  # of a socket; the system allows 107 bytes
POLL_SECONDS = 0.05
SAID = (
    "Injected by PYTHONPATH: a tracer on torch's global hooks, in every process that imports torch (its "
    "sitecustomize.py runs the program's own, too); no file of the program is changed."
)


@dataclass(frozen=True)
class Program:
    """What is run, and in what."""

    command: tuple[str, ...]
    root: Path  # the user's folder: each process runs in a copy of it
    linked: tuple[str, ...] = ()
    limit_seconds: float | None = None
    seed: int = 0
    variables: Mapping[str, str] = field(default_factory=dict)  # of the environment, beside the user's own


@dataclass(frozen=True)
class Located:
    """Where two twins part; `parting` is None where nothing differs."""

    command: tuple[str, ...]
    parting: Parting | None
    steps: int  # of the longest process
    how: tuple[str, ...]  # what was done, for people

    def sentences(self) -> list[str]:
        """The answer in words."""
        if self.parting:
            return [*self.parting.sentences(), *self.how]
        steps = f"all {self.steps} optimizer steps" if self.steps > 1 else "the one optimizer step"
        return [f"No difference: parameters, gradients and inputs are equal in {steps}.", *self.how]


@dataclass
class Attempt:
    """What came of running the program's twins once."""

    heard: Heard
    attached: int
    problems: list[str]  # of the twins, in words; those that were ended on purpose have none
    in_time: bool
    left: tuple[str, ...]  # processes that outlived the command itself, and were ended


def locate_program(program: Program, say: Callable[[str], None] = lambda text: None) -> Located:
    """Run two twins and find the first operation in which they part.

    Their steps are compared while they run, and both are ended at the first difference; then once more, both in
    lockstep through every operation from that step on. Noise that shows elsewhere is followed from the first step on.
    Raises IncompleteError when nothing could be traced, a twin fails before they part, or the time is over.
    """
    with _in_copies(program) as (names, folder):
        say("first try: digests of every step")
        first = _run(program, names, folder, 0, {"mode": "steps"})
        _require_traced(program, first)
        parted = _parting(first)
        said = (*(draws.sentence() for draws in first.heard.same_draws), SAID)
        if parted is None:
            _require_ended(first)
            return Located(program.command, *_unparted(first), (*first.heard.remarks, *said))
        start, seen = parted.step, [parted.step]
        for number in range(1, TRIES):
            say(f"the twins part in step {seen[-1]}; next try: every operation from step {start} on")
            attempt = _run(program, names, folder, number, {"mode": "operations", "from": start})
            parting = _parting(attempt)
            if parting is None:
                _require_ended(attempt)
                start = 1
                continue
            if parting.step == parted.step:  # of its end was heard in the first try alone
                parting = replace(parting, generators={**parted.generators, **parting.generators})
            parted = parting
            seen.append(parting.step)
            if parting.operation or parting.step >= start:
                break
            start = 1
    return Located(program.command, parted, parted.step, (_tries(seen, parted), *said))


@contextmanager
def alone(program: Program) -> Iterator[Callable[[Program, dict[str, Any]], Heard]]:
    """Gives a function that runs the program once by a tracer's plan, until it has told what the plan asks for.

    Called with `program` or that with another environment or limit. It raises IncompleteError when the program ended,
    or had to be ended, before.
    """
    numbers = itertools.count()
    with _in_copies(program) as (names, folder):

        def run(variant: Program, plan: dict[str, Any]) -> Heard:
            number = next(numbers)
            attempt = _run(variant, names, folder, number, plan, twins=1)
            shutil.rmtree(folder / str(number))
            if not attempt.heard.reports:
                _raise_untold(variant, attempt, timed=plan["mode"] == "times")
            return attempt.heard

        yield run


def operations_of(program: Program, steps: int) -> Heard:
    """Run the program once for so many optimizer steps, and list which operations it calls with what."""
    with alone(program) as run:
        return run(program, {"mode": "audit", "steps": steps})


@contextmanager
def _in_copies(program: Program) -> Iterator[tuple[list[Path], Path]]:
    """The files that each process gets a copy of, and an empty folder."""
    with tempfile.TemporaryDirectory(prefix="twinrun-") as name:
        folder = Path(name)
        if len(name) > LONGEST_PATH:
            raise InputError(f"{name}: too long a path for a socket", "set TMPDIR to a folder with a shorter one")
        yield folders.plan_copy(program.root, program.linked, [], folder), folder


def _run(
    program: Program, names: list[Path], folder: Path, number: int, plan: dict[str, Any], twins: int = 2
) -> Attempt:
    folder = folder / str(number)
    folder.mkdir()
    marks = [processes.new_mark(twin) for twin in range(twins)]
    logs = [folder / f"twin_{twin + 1}.log" for twin in range(twins)]
    deadline = time.monotonic() + (program.limit_seconds or float("inf"))
    with Follower(folder, twins) as follower:
        try:
            with ExitStack() as stack:
                running = []
                for twin, (mark, log) in enumerate(zip(marks, logs, strict=True)):
                    place = folder / f"twin_{twin + 1}"
                    folders.fill(place, program.root, names, program.linked)
                    environment = _environment(program, place, mark)
                    environment["TWINRUN_TRACE"] = json.dumps({**plan, "socket": str(follower.path), "twin": twin})
                    started = processes.started(program.command, place, environment, log)
                    running.append(stack.enter_context(started))
                while not follower.done.wait(POLL_SECONDS):
                    if time.monotonic() > deadline or all(process.poll() is not None for process in running):
                        break
                in_time = time.monotonic() <= deadline
                codes = [process.poll() for process in running]
                tracebacks = [traceback_in(log) for log in logs]  # before those that go on are ended, and say so
        finally:
            left = [processes.end_marked(mark) for mark in marks]
        heard = follower.finish()
        named = [f"twin {twin + 1}" for twin in range(twins)] if twins > 1 else ["the program"]
        problems = [with_last_words(f"{who}: {processes.how_it_ended(code)}", log)
                    for who, code, log in zip(named, codes, logs, strict=True) if code]  # fmt: skip
        if heard.faults and not problems:
            raise heard.faults[0]
        outlived = [name for code, names in zip(codes, left, strict=True) if code is not None for name in names]
        remarks = [f"left running when the command ended, and ended then: {', '.join(outlived)}"] if outlived else []
        for name, code, words in zip(named, codes, tracebacks, strict=True):
            if words and not code:
                remarks.append(hidden_failure(name, words, ended=code == 0))
        heard.remarks = remarks
        return Attempt(heard, follower.attached, problems, in_time, tuple(outlived))


def _environment(program: Program, place: Path, mark: str) -> dict[str, str]:
    environment = processes.with_ports(arms.environment("nd", program.seed, os.environ)) | dict(program.variables)
    environment |= {name: str(place.with_name(f"{place.name}_{name.lower()}")) for name in processes.CACHES}
    path = [str(INJECTED), *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {processes.MARK: mark, "PWD": str(place), "PYTHONPATH": os.pathsep.join(path)}


def _parting(attempt: Attempt) -> Parting | None:
    return attempt.heard.partings[0] if attempt.heard.partings else None


def _require_traced(program: Program, attempt: Attempt) -> None:
    """IncompleteError, with the reason, unless a tracer saw an optimizer's step."""
    heard, command = attempt.heard, shlex.join(program.command)
    if heard.failures:
        raise IncompleteError(f"{command}: not traced: {'; '.join(heard.failures)}", "use a newer PyTorch there")
    if heard.reports or heard.partings or any(any(counts) for counts in heard.steps.values()):
        return
    _require_ended(attempt)
    if attempt.left:
        why = f"the command ended and left running, now ended: {', '.join(attempt.left)}"
        hint = "have it wait for what it starts: no daemon, no `&` without `wait`"
    elif not attempt.attached:
        why = "no process of it imported torch with the tracer in it"
        hint = (
            "if it has no PyTorch, `twinrun twins` compares what it writes; else PYTHONPATH must reach it: python "
            "without -I, -E and -S, and no launcher that clears the environment"
        )
    else:
        why, hint = "it imported torch, and no torch.optim optimizer made a step", "is it a training script?"
    raise IncompleteError(f"{command}: nothing was traced: {why}", hint)


def _require_ended(attempt: Attempt) -> None:
    """IncompleteError when a twin failed, or had to be stopped."""
    if attempt.problems:
        raise IncompleteError("\n  ".join(attempt.problems), "no difference was seen before; mend it and run again")
    if not attempt.in_time:
        counts = [count for counts in attempt.heard.steps.values() for count in counts if count]
        raise IncompleteError(
            "stopped after the time limit: no difference in "
            + (f"the first {plural(min(counts), 'optimizer step')}" if counts else "anything, for no step was made"),
            "give more time with --seconds, or train for fewer steps",
        )


def _raise_untold(program: Program, attempt: Attempt, *, timed: bool) -> NoReturn:
    """Why a program that ran alone has not told what it was asked for: IncompleteError."""
    heard = attempt.heard
    if attempt.problems and not heard.failures:
        raise IncompleteError(attempt.problems[0])
    if not attempt.in_time:
        raise IncompleteError(
            f"{shlex.join(program.command)}: stopped after {program.limit_seconds:g} s, with all of its processes",
            "it had not made the steps that were asked for: does it hang, or wait for another process?",
        )
    _require_traced(program, attempt)
    made = max(count or 0 for counts in heard.steps.values() for count in counts)
    told = f"after {plural(made, 'optimizer step')}, too few" if made > 1 else "too soon"
    raise IncompleteError(
        f"{shlex.join(program.command)}: ended {told} to be {'measured' if timed else 'listed'}",
        f"have it train for longer, or give less to --{'warmup' if timed else 'steps'}",
    )


def _unparted(attempt: Attempt) -> tuple[Parting | None, int]:
    """Twins whose common steps are equal: they may still differ in the number of steps, or of processes that train."""
    steps = attempt.heard.steps
    longest = max((count or 0 for counts in steps.values() for count in counts), default=0)
    for (rank, _), counts in sorted(steps.items()):
        if counts[0] != counts[1]:
            made = [f"{count or 0}" for count in counts]
            what = f"the number of steps: {made[0]} in the first twin, {made[1]} in the second"
            step = min(count or 0 for count in counts) + 1
            return Parting(f"rank {rank}" if rank >= 0 else "", step, "", what, None, {}), longest
    return None, longest


def _tries(seen: list[int], parted: Parting) -> str:
    if len(set(seen)) == 1 and parted.operation:
        return "Run twice: for the step, then for the operation in it; both times the twins parted in that step."
    if parted.operation:
        steps = ", ".join(map(str, seen))
        return f"Noise that moves: the twins parted in steps {steps}; the last try looked at every operation."
    return f"No operation that was looked at differed in {TRIES} tries: rare noise, or a kernel past PyTorch."
