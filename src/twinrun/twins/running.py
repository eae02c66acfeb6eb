"""Run a command several times, each in a fresh process and folder, and note what became of each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from twinrun.study.errors import InputError
from twinrun.twins import folders

LAST_LINES = 8
GRACE_SECONDS = 5.0  # from the polite to the hard end
MARK = "TWINRUN_TWIN"  # an environment variable that tells the processes of one twin
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")  # a twin that finds what another compiled is no fresh start


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
    loaded: bool = False  # whether other processes kept every core busy meanwhile
    left_running: tuple[str, ...] = ()  # processes that it left behind, which were ended

    @property
    def name(self) -> str:
        return f"twin {self.number}"

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder.with_name(f"{self.folder.name}.log")


@dataclass(frozen=True)
class Plan:
    """What every twin runs, and where."""

    command: Sequence[str]
    root: Path  # the user's folder
    out: Path  # results; twins run in out/running, so that all of them see the same path
    outputs: Sequence[str]
    linked: Sequence[str] = ()
    limit_seconds: float | None = None
    load: bool = False  # every second twin runs while other processes keep every core busy
    share_caches: bool = False  # of compilers: else each twin compiles for itself


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
        loaded = plan.load and number % 2 == 0
        with busy_cores() if loaded else nullcontext():
            twins.append(_run(plan, names, environment, number, seed, loaded))
        done(twins[-1])
    return twins


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core busy with a process of its own: what depends on the order of events then shows sooner."""
    command = [sys.executable, "-c", "while True: sum(range(100_000))"]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _run(
    plan: Plan, names: Sequence[Path], environment: Mapping[str, str], number: int, seed: int, loaded: bool
) -> Twin:
    # All twins see the same path, for programs write their own path into what they leave.
    running, folder, log = plan.out / "running", plan.out / f"twin_{number}", plan.out / f"twin_{number}.log"
    mark, caches = f"{os.getpid()}-{number}-{time.monotonic_ns()}", plan.out.resolve() / "caches"
    environment = {**environment, MARK: mark, "PWD": str(running.resolve())}
    if not plan.share_caches:
        environment |= {name: str(caches / name.lower()) for name in CACHES}
    folders.fill(running, plan.root, names, plan.linked)
    inside, outside = folders.stamps(running), folders.stamps(plan.root, [plan.out])
    begin = time.monotonic()
    with log.open("wb") as stream:
        try:
            process = subprocess.Popen(
                plan.command,
                cwd=running,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, so that its children end with it
            )
        except OSError as error:
            if number == 1:
                shutil.rmtree(plan.out)  # nothing has run
            raise InputError(f"{plan.command[0]}: cannot be started ({error.strerror})", "check the command") from error
        try:
            code: int | None = process.wait(plan.limit_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Also after a good end: what is left of the group would write into a folder that is being compared.
            _end_group(process)
            left = _end_marked(mark)
            shutil.rmtree(caches, ignore_errors=True)
    seconds = time.monotonic() - begin
    written = tuple(folders.changed(outside, folders.stamps(plan.root, [plan.out])))
    gone = not running.is_dir()
    running.mkdir(exist_ok=True)
    folders.keep_what_changed(running, inside)
    running.rename(folder)
    problem = "it removed the folder that it ran in" if gone else _problem(code, plan, log, written)
    return Twin(number, seed, folder, code, seconds, problem, written, loaded, left)


def _end_marked(mark: str) -> tuple[str, ...]:
    """End what a twin left running in sessions of its own, found by its environment: it would disturb the next twin."""
    left: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    names = []
    for process in left:
        with suppress(psutil.Error):
            names.append(f"{process.name()} (process {process.pid})")
            process.kill()
    psutil.wait_procs(left, GRACE_SECONDS)
    return tuple(names)


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
