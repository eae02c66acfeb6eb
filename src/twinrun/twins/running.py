"""Run a command several times, each in a fresh process and folder, and note what became of each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from twinrun.study.errors import InputError
from twinrun.twins import folders

LAST_LINES = 8
GRACE_SECONDS = 5.0  # from the polite to the hard end


@dataclass(frozen=True)
class Twin:
    """One run of the command; `problem` says why it does not count, or is empty."""

    number: int
    seed: int
    folder: Path  # what it wrote
    code: int | None  # exit code; None: it was stopped
    seconds: float
    problem: str
    written_outside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"twin {self.number}"


@dataclass(frozen=True)
class Plan:
    """What every twin runs, and where."""

    command: Sequence[str]
    root: Path  # the user's folder
    out: Path  # results; twins run in out/running, so that all of them see the same path
    outputs: Sequence[str]
    linked: Sequence[str] = ()
    limit_seconds: float | None = None


def run_twins(
    plan: Plan, environments: Sequence[Mapping[str, str]], seeds: Sequence[int], done: Callable[[Twin], None]
) -> list[Twin]:
    """Run one twin for each environment, one after the other; a failing one does not stop the others.

    Raises InputError when the results' folder exists, the command cannot be started or too much would be copied.
    """
    if plan.out.exists():
        raise InputError(f"{plan.out} is there already", "remove it, or give another folder with --out")
    stale = folders.old_outputs(plan.root, plan.outputs, plan.command)
    names = folders.plan_copy(plan.root, plan.linked, stale, plan.out)
    plan.out.mkdir(parents=True)
    twins = []
    for number, (environment, seed) in enumerate(zip(environments, seeds, strict=True), 1):
        twins.append(_run(plan, names, environment, number, seed))
        done(twins[-1])
    return twins


def _run(plan: Plan, names: Sequence[Path], environment: Mapping[str, str], number: int, seed: int) -> Twin:
    running, folder, log = plan.out / "running", plan.out / f"twin_{number}", plan.out / f"twin_{number}.log"
    folders.fill(running, plan.root, names, plan.linked)
    inside, outside = folders.stamps(running), folders.stamps(plan.root, [plan.out])
    begin = time.monotonic()
    with log.open("wb") as stream:
        try:
            process = subprocess.Popen(
                plan.command,
                cwd=running,
                env=dict(environment) | {"PWD": str(running.resolve())},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, so that its children end with it
            )
        except OSError as error:
            shutil.rmtree(plan.out)  # nothing has run
            raise InputError(f"{plan.command[0]}: cannot be started ({error.strerror})", "check the command") from error
        try:
            code: int | None = process.wait(plan.limit_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Also after a good end: what is left of the group would write into a folder that is being compared.
            _end_group(process)
    seconds = time.monotonic() - begin
    written = tuple(folders.changed(outside, folders.stamps(plan.root, [plan.out])))
    folders.keep_what_changed(running, inside)
    running.rename(folder)
    return Twin(number, seed, folder, code, seconds, _problem(code, plan, log, written), written)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return str(number)


def _problem(code: int | None, plan: Plan, log: Path, written: Sequence[str]) -> str:
    if code is None:
        why = f"stopped after the limit of {plan.limit_seconds:g} seconds, with all of its processes"
    elif code:
        why = f"ended by signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"
    elif written:
        shown = ", ".join(written[:5]) + (f" and {len(written) - 5} more" if len(written) > 5 else "")
        return f"wrote outside of its folder, into {plan.root.resolve()}: {shown}"
    else:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
    return "\n    ".join([f"{why}; it said last:" if lines else f"{why}; it said nothing", *lines])
