"""Run a command several times, each in a fresh process and folder, and note what became of each."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from twinrun.study.errors import BusyError, InputError, TwinrunError
from twinrun.study.files import read_json
from twinrun.study.folders import foreign_content
from twinrun.study.lock import LOOK_SECONDS, hold
from twinrun.twins import folders, interrupts, processes
from twinrun.twins.interrupting import RANDOM, Interrupt, processor_seconds, run_interrupted, run_watched

LAST_LINES = 8
UNINTERRUPTED = 2  # with --interrupt: the reference, and its control
ATTEMPTS = 3  # to reach a random moment before the program ends
_FORMER, _PART = ".former", ".former.part"  # what a call replaces, until it has run something; as it is put aside
_OURS = (folders.LOCK, _FORMER, _PART, "twins.json", "index.html", "running", "caches", "left", "twin_*")


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
    interrupted: str = ""  # how it was stopped and what it went on from; empty: it was not
    traceback: str = ""  # the last line of a traceback that it printed, although it ended with exit code 0
    working_seconds: float = 0.0  # with --interrupt: from the first that it wrote to its end
    processor_seconds: float = 0.0  # of its processes, both starts included
    listed_otherwise: tuple[str, ...] = ()  # folders that the file system listed in another order than for twin 1

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
    interrupt: Interrupt | None = None  # twins after the second are stopped and started again


def run_twins(
    plan: Plan,
    environments: Sequence[Mapping[str, str]],
    seeds: Sequence[int],
    done: Callable[[Twin], None],
    alike: Callable[[Sequence[Twin]], bool],
) -> list[Twin]:
    """Run one twin for each environment, one after the other; a failing one does not stop the others.

    Some are interrupted only when the uninterrupted ones before them have ended well and are `alike`. `plan.out` is
    the caller's `own_folder`. Raises InputError when the command cannot be started or too much would be copied.
    """
    stale = folders.old_outputs(plan.root, plan.outputs, plan.command)
    names = folders.plan_copy(plan.root, plan.linked, stale, plan.out)
    twins: list[Twin] = []
    listings: dict[str, list[str]] = {}  # of the first twin
    for number, (environment, seed) in enumerate(zip(environments, seeds, strict=True), 1):
        loaded = plan.load and number % 2 == 0
        with processes.busy_cores() if loaded else nullcontext():
            twins.append(_run(plan, names, environment, number, seed, loaded, twins, listings))
        done(twins[-1])
        failed = plan.interrupt and number <= UNINTERRUPTED and twins[-1].problem
        if failed or (plan.interrupt and number == UNINTERRUPTED and not alike(twins)):
            break
    return twins


@contextmanager
def own_folder(root: Path, out: Path | None, command: Sequence[str]) -> Iterator[Path]:
    """The results' folder, empty and held against other calls; it goes again when nothing could be run in it.

    `out`, or without it the first of twins, twins_2 and so on below `root` that holds nothing worth keeping and that
    nobody else holds. Raises InputError when `out` holds results, BusyError when another call writes into it.
    """
    with ExitStack() as stack, interrupts.taken():
        if out:
            if not _take(stack, out, command, LOOK_SECONDS):
                raise InputError(f"{out} is there already", "remove it, or give another folder with --out")
        else:
            for number in itertools.count(1):
                out = root / ("twins" if number == 1 else f"twins_{number}")
                with suppress(BusyError):  # another call was faster
                    if _take(stack, out, command, 0.0):
                        break
        assert out
        _put_back(out)  # of a call that was killed
        former = bool(_entries(out))
        ran = False
        try:
            if former:
                _put_aside(out)
            yield out
            ran = True
        except BaseException as error:
            ran = any(path.is_dir() for path in out.glob("twin_*"))
            if not ran and former:
                _put_back(out)
            elif not ran and isinstance(error, InputError):
                shutil.rmtree(out)
            raise
        finally:
            if ran:
                shutil.rmtree(out / _FORMER, ignore_errors=True)
            (out / folders.LOCK).unlink(missing_ok=True)


def _entries(out: Path) -> list[Path]:
    return [path for path in out.iterdir() if path.name not in (folders.LOCK, _FORMER, _PART)]


def _put_aside(out: Path) -> None:
    (out / _PART).mkdir()
    for path in _entries(out):
        path.rename(out / _PART / path.name)
    (out / _PART).rename(out / _FORMER)  # the call may begin


def _put_back(out: Path) -> None:
    """What was put aside stands where it stood, and what a call that had begun made in its place goes."""
    begun = (out / _FORMER).is_dir()
    aside = out / (_FORMER if begun else _PART)
    if not aside.is_dir():
        return
    for path in _entries(out) if begun else ():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in aside.iterdir():
        path.rename(out / path.name)
    aside.rmdir()


def _take(stack: ExitStack, out: Path, command: Sequence[str], patience: float) -> bool:
    """Hold `out` for as long as `stack`; False where it holds what is worth keeping, and is left as it is."""
    if out.exists() and not _replaceable(out, command):
        return False
    with ExitStack() as held:
        held.enter_context(hold(out / folders.LOCK, f"{out} is being written by another call", patience=patience))
        if not _replaceable(out, command):  # another call has just ended there
            (out / folders.LOCK).unlink()
            return False
        stack.push(held.pop_all())
    return True


def _replaceable(out: Path, command: Sequence[str]) -> bool:
    """Whether nothing in the results' folder is worth keeping, as after a misspelt call."""
    if not out.is_dir() or foreign_content(out, _OURS):
        return False
    if (out / _PART).is_dir():  # a call was killed that was to replace it
        return True
    if not (out / "twins.json").exists():
        return not any(path.is_dir() for path in out.glob("twin_*"))
    try:
        former = read_json(out / "twins.json")
        useless = all(twin["problem"] for twin in former["twins"])
        return useless or (former["verdict"] == "bad input" and former["command"] == list(command))
    except (TwinrunError, KeyError, TypeError):
        return False


def _run(
    plan: Plan,
    names: Sequence[Path],
    environment: Mapping[str, str],
    number: int,
    seed: int,
    loaded: bool,
    former: Sequence[Twin],
    listings: dict[str, list[str]],
) -> Twin:
    # All twins see the same path, for programs write their own path into what they leave.
    running, folder, log = plan.out / "running", plan.out / f"twin_{number}", plan.out / f"twin_{number}.log"
    mark, caches = processes.new_mark(number), plan.out.resolve() / "caches"
    environment = {**processes.with_ports(environment), processes.MARK: mark, "PWD": str(running.resolve())}
    if not plan.share_caches:
        environment |= {name: str(caches / name.lower()) for name in processes.CACHES}
    # Many file systems list files as they were created: every second twin's are created the other way round.
    names = names if number % 2 else names[::-1]
    folders.fill(running, plan.root, names, plan.linked)
    listed = folders.listings(running)
    if number == 1:
        listings.update(listed)
    otherwise = tuple(sorted(name for name, order in listed.items() if order != listings.get(name)))
    inside, outside = folders.stamps(running), folders.stamps(plan.root, [plan.out])
    start = partial(processes.started, folder=running, environment=environment, log=log)
    words = why = ""
    working = 0.0
    begin, used = time.monotonic(), processor_seconds()
    try:
        if plan.interrupt and number <= UNINTERRUPTED:
            code, working = run_watched(start, plan.command, running, plan.limit_seconds)
        elif plan.interrupt:
            share = random.Random(f"{seed} {number}").random() * min(twin.working_seconds for twin in former[:2])
            whole = min(twin.processor_seconds for twin in former[:2])
            for _ in range(ATTEMPTS):
                course = run_interrupted(
                    plan.interrupt,
                    start,
                    plan.command,
                    running,
                    log,
                    former[0].folder,
                    whole,
                    share,
                    plan.limit_seconds,
                )
                if plan.interrupt.when != RANDOM or not course.missed:
                    break
                # A faster start than the others: once more, and earlier.
                share /= 2
                shutil.rmtree(running)
                log.unlink()
                folders.fill(running, plan.root, names, plan.linked)
                inside = folders.stamps(running)
            code, why, words = course.code, course.problem, course.words
        else:
            with start(plan.command) as process:
                code = processes.wait(process, plan.limit_seconds)
    finally:
        left = processes.end_marked(mark)
        shutil.rmtree(caches, ignore_errors=True)
    seconds, used = time.monotonic() - begin, processor_seconds() - used
    written = tuple(folders.changed(outside, folders.stamps(plan.root, [plan.out])))
    gone = not running.is_dir()
    running.mkdir(exist_ok=True)
    folders.keep_what_changed(running, inside)
    running.rename(folder)
    problem = "it removed the folder that it ran in" if gone else why or _problem(code, plan, log, written, words)
    return Twin(
        number,
        seed,
        folder,
        code,
        seconds,
        problem,
        written,
        loaded,
        left,
        words,
        traceback_in(log) if code == 0 else "",
        working,
        used,
        otherwise,
    )


def _problem(code: int | None, plan: Plan, log: Path, written: Sequence[str], words: str) -> str:
    if code is None:
        why = f"stopped after the limit of {plan.limit_seconds:g} seconds, with all of its processes"
    elif code:
        why = processes.how_it_ended(code)
    elif written:
        shown = ", ".join(written[:5]) + (f" and {len(written) - 5} more" if len(written) > 5 else "")
        return f"wrote outside of its folder, into {plan.root.resolve()}: {shown}"
    else:
        return ""
    return with_last_words(f"{words}: {why}" if words else why, log)


def with_last_words(why: str, log: Path) -> str:
    """Why a program failed, what it said last, and what follows from that."""
    lines = _lines(log)[-LAST_LINES:]
    above = ["it looked for a file above its folder, which is a copy of yours elsewhere: give absolute paths"]
    hint = above if any("../" in line and "No such file" in line for line in lines) else []
    return "\n    ".join([f"{why}; it said last:" if lines else f"{why}; it said nothing", *lines, *hint])


def hidden_failure(name: str, traceback: str, *, ended: bool = True) -> str:
    """That a program printed a traceback, and ended well or went on all the same."""
    how = "ended with exit code 0, but printed a traceback" if ended else "printed a traceback and went on"
    return f"{name} {how} ({traceback}): did a rank or worker fail?"


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


def traceback_in(log: Path) -> str:
    """The error that a traceback in the log ends in; empty where there is none."""
    with suppress(OSError):
        begun = False
        for line in _lines(log):
            if "Traceback (most recent call last)" in line:
                begun = True
            elif begun and re.match(r"(?:\[?rank\s?\d+\]?:?\s*)?[A-Za-z_][\w.]*(Error|Exception|Interrupt)\b", line):
                return line[:200]
    return ""
