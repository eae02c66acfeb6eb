"""A twin that is stopped on its way and started again: is its resume exact?"""

from __future__ import annotations

import filecmp
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from twinrun.study.errors import InputError
from twinrun.twins import folders
from twinrun.twins.processes import signal_group, signal_name, wait

RANDOM, PRINTED = "random", "log:"
STOP_SECONDS = 30.0  # that a program gets to save its state after the signal, as clusters do
_POLL_SECONDS = 0.02
NAMES_SHOWN = 3

Start = Callable[[Sequence[str]], AbstractContextManager[Popen[bytes]]]


@dataclass(frozen=True)
class Interrupt:
    """When twins are stopped (`random`, seconds, or `log:TEXT` that they print), how, and what goes on with them."""

    when: str
    number: int  # of the signal
    resume: Sequence[str]


@dataclass(frozen=True)
class Course:
    """How an interrupted twin went; `problem` says why it does not count, or is empty."""

    code: int | None
    problem: str
    words: str
    missed: bool = False  # its moment came too late


def interrupt(when: str, name: str, resume: Sequence[str]) -> Interrupt:
    """The checked wishes; InputError for a moment or a signal that is none."""
    seconds = _seconds(when)
    if not (when == RANDOM or (seconds is not None and seconds > 0) or (when.startswith(PRINTED) and when != PRINTED)):
        raise InputError(
            f"--interrupt {when!r} is no moment", "give random, seconds such as 20, or 'log:TEXT' that it prints"
        )
    number = getattr(signal, f"SIG{name.upper().removeprefix('SIG')}", None)
    if not isinstance(number, signal.Signals):
        raise InputError(f"--signal {name}: no signal of this system", "such as TERM, INT, USR1 or KILL")
    if not resume:
        raise InputError("--resume is empty", "give the command that goes on, or leave it out for the same one")
    return Interrupt(when, int(number), resume)


def processor_seconds() -> float:
    """Of all processes so far that this one has started and that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _seconds(when: str) -> float | None:
    return float(when) if re.fullmatch(r"\d+(\.\d+)?|\.\d+", when) else None


def run_watched(start: Start, command: Sequence[str], running: Path, limit: float | None) -> tuple[int | None, float]:
    """Run the command undisturbed; its exit code, and the seconds from the first that it wrote to its end."""
    before = folders.stamps(running)
    begin = time.monotonic()
    with start(command) as process:
        _await(process, limit, lambda now: folders.stamps(running) != before)
        wrote = time.monotonic()
        code = wait(process, None if limit is None else max(limit - (wrote - begin), 0.0))
    return code, time.monotonic() - wrote


def run_interrupted(
    wishes: Interrupt,
    start: Start,
    command: Sequence[str],
    running: Path,
    log: Path,
    reference: Path,
    whole: float,
    share: float,
    limit: float | None,
) -> Course:
    """Start the command in `running`, stop it at its moment and have the other command go on.

    `reference` is what an uninterrupted twin wrote, in `whole` seconds of a processor. A random moment comes `share`
    seconds after the first that the command has written: before, it cannot have saved its state. `limit` holds for each
    start.
    """
    before = folders.stamps(running)
    begin = time.monotonic()
    with start(command) as process:
        reached = _await_moment(wishes.when, process, running, before, log, share, limit)
        seconds = time.monotonic() - begin
        if not reached:
            code = process.poll()
            missed = f"it ended after {seconds:.1f} s, before {_moment(wishes.when)}: nothing to resume"
            return Course(code, "" if code is None or code else missed, "", missed=code == 0)
        signal_group(process, wishes.number)
        ended = wait(process, STOP_SECONDS)
        words = f"stopped by {signal_name(wishes.number)} after {seconds:.1f} s"
        if ended is None:
            words += f", which it ignored for {STOP_SECONDS:g} s, so by SIGKILL"
            signal_group(process, signal.SIGKILL)
            process.wait()
    changed = [running / name for name in folders.changed(before, folders.stamps(running))]
    left = [path.relative_to(running) for path in changed if path.is_file() and not path.is_symlink()]
    if not left:
        problem = f"it had written nothing when it was {words}: a second start begins anew and proves nothing"
        return Course(ended, problem, words)
    if _all_written(reference, running):
        problem = f"{words}, it had already written all that an uninterrupted twin writes: nothing was left to resume"
        return Course(ended, problem, words, missed=True)
    with _Readers(running, left) as readers:
        begin = processor_seconds()
        try:
            with start(wishes.resume) as process:
                code = wait(process, limit)
        except InputError as error:
            return Course(ended, f"{words}; --resume {error}", words)
        seconds = processor_seconds() - begin
        read = readers.read()
    if code:
        return Course(code, "", f"{words}; its second start")
    if read is None:
        return Course(code, "", f"{words} and started again (this file system does not tell what it read)")
    if not read:
        problem = (
            f"{words}, its second start read nothing of what the first had left ({_some(left)}): it began anew, so "
            "this command does not resume it"
        )
        return Course(code, problem, words)
    # What becomes of the bytes that were read cannot be seen; a program that uses them has less left to do.
    words += f", went on from {_some(read)} for {seconds:.1f} s of processor time (a whole twin: {whole:.1f} s)"
    return Course(code, "", words)


def _moment(when: str) -> str:
    if when == RANDOM:
        return "its random moment"
    return f"it printed {when.removeprefix(PRINTED)!r}" if when.startswith(PRINTED) else f"the {float(when):g} s"


def _some(names: Sequence[Path]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(str(name) for name in names[:NAMES_SHOWN]) + more


def _await_moment(
    when: str,
    process: Popen[bytes],
    running: Path,
    before: dict[str, folders.Stamp],
    log: Path,
    share: float,
    limit: float | None,
) -> bool:
    """Wait for the moment; False when the process ended before, or ran into its limit."""
    begin = time.monotonic()
    at = _seconds(when)
    if at is not None:
        return _await(process, limit, lambda now: now >= at)
    if when.startswith(PRINTED):
        return _await(process, limit, lambda now: when.removeprefix(PRINTED) in log.read_text("utf-8", "replace"))
    if not _await(process, limit, lambda now: folders.stamps(running) != before):
        return False
    wrote = time.monotonic() - begin
    return _await(process, None if limit is None else limit - wrote, lambda now: now >= share)


def _await(process: Popen[bytes], limit: float | None, come: Callable[[float], bool]) -> bool:
    """Wait until `come` says so of the seconds since now; False when the process ended before, or at the limit."""
    begin = time.monotonic()
    while process.poll() is None:
        now = time.monotonic() - begin
        if come(now):
            return True
        if limit is not None and now >= limit:
            return False
        cost = time.monotonic() - begin - now
        time.sleep(max(_POLL_SECONDS, 4 * cost))  # looking must not slow down what is looked at
    return False


def _all_written(reference: Path, running: Path) -> bool:
    """Whether the folder holds every file of the reference, to the last byte."""
    names = list(folders.files_below(reference))
    with suppress(OSError):
        return bool(names) and all(filecmp.cmp(reference / name, running / name, shallow=False) for name in names)
    return False


class _Readers:
    """Tells which of some files were read in the block: by their access times, kept by links that no rename moves."""

    def __init__(self, running: Path, names: Sequence[Path]) -> None:
        self._names, self._links = names, running.with_name("left")
        self._running = running

    def __enter__(self) -> _Readers:
        self._links.mkdir()
        for number, name in enumerate(self._names):
            os.link(self._running / name, self._links / str(number))
            self._forget(self._links / str(number))
        self._probe = self._links / "probe"
        self._probe.write_text("x")
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._links, ignore_errors=True)

    def _forget(self, file: Path) -> None:
        os.utime(file, ns=(0, file.stat().st_mtime_ns))

    def read(self) -> list[Path] | None:
        """The files that were read; None where the file system does not note it."""
        self._forget(self._probe)
        self._probe.read_text()
        if not self._probe.stat().st_atime_ns:
            return None
        return list(self._read())

    def _read(self) -> Iterator[Path]:
        for number, name in enumerate(self._names):
            if (self._links / str(number)).stat().st_atime_ns:
                yield name
