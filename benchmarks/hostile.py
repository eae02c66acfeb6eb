"""Hostile commands: does each end in time, in one sentence and by its exit code, with nothing lost or wrong in silence?

python -m benchmarks.hostile [--only WORD ...] [--first N] [--jobs 2] [--world FOLDER] [--list]

A small study of the sample data, tables, folders of twins and programs are made once. Each case is a command in a fresh
copy of one of them, with one thing wrong: a file of it (missing, cut, of another shape, a pipe, ...), the value of an
option, a name, a stream, memory, the disk, the rights, another process, the user's program. Cases are made of kinds
times commands; options are taken from the command line itself. What is held against each:

- It ends within its seconds, without a traceback and not by a signal.
- Its exit code is one of those that fit. Exit 0 is right where the case says so, or where the command says and makes,
  byte by byte, what it does without the fault: then it was none.
- When it fails, stderr ends in one sentence with what to do, or in the usage of an option.
- A failing command leaves every file that was there as it was, a good one every file that is not its own to write, and
  nothing temporary is left behind.

Prints each case that deviates with its output, and counts by kind; exit 1 where there are any, or where the campaign
itself failed (`campaign`). Run it as root, for the cases of another user and of a full disk. Most commands are forks of
the warm interpreter of the tests; those whose memory, streams or user matter start from nothing.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import gzip
import importlib
import multiprocessing
import os
import pkgutil
import random
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from benchmarks.hostile_around import FULL, GOOD, programs, surroundings
from benchmarks.hostile_cases import COMMANDS, FOLDERS, Case, files, mixed, names, options
from benchmarks.kills import ROOT, STUDY, environment, make_study
from tests.warm.server import SLOW, execute

import twinrun
from twinrun.study.files import read_json, sha256_file, write_json
from twinrun.study.pins import clean_environment

PROBLEMS = ("traceback", "hang", "silently wrong", "lost", "wrong code", "no sentence", "left behind", "campaign")
SCRATCH = ("work/", "logs/", ".dvc/", ".git/")  # of ours, however a command ends
TEMPORARY = re.compile(r"(^|/)(\..*\.(tmp|old)|[^/]*\.part)(/|$)")
MEASURED = re.compile(r"measured\.json|\.tfevents\.|/\.gitignore|\.log$|^slurm/")  # never the same twice
USAGE = re.compile(r"Usage: .*\n(Try .*\n)?\n?Error: .+\n$", re.DOTALL)
SENTENCE = re.compile(r"(?:^|\n)twinrun: (?!interrupted)\S[^\n]*(\n[^\n]+){0,30}\n$")
RAW = re.compile(
    r"Traceback \(most|^\w+(Error|Exception): |Fatal Python error|Warning: |Exception ignored", re.MULTILINE
)
OURS = re.compile(r'File "[^"]*/twinrun/cli/')
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
State = dict[str, str]
Entry = tuple[tuple[int, int, int], str]


def values(entries: Mapping[str, Entry]) -> State:
    return {path: value for path, (_, value) in entries.items()}


class World:
    """What the cases are copies of, and what each command says and makes where nothing is wrong."""

    def __init__(self, base: Path, warm: Path) -> None:
        self.base, self.warm = base, warm
        self.known: dict[str, dict[str, Entry]] = {}

    def make(self) -> None:
        """A study that is trained, collected and reported, in DVC and without; tables, twins, a program."""
        pipeline, study, tables, program = (self.base / name for name in ("pipeline", "study", "tables", "program"))
        make_study(pipeline)
        (pipeline / "params.yaml").write_text(STUDY.replace("init_1", "nd_1, nd_2").replace("epochs: 4,", "epochs: 2,"))
        for words in ("prepare", "sweep --jobs 2", "finish", "verify --write-expected"):
            self.give(pipeline, words)
        study.mkdir()
        for name in ("params.yaml", "models", "data", "prepared", "runs", "expected", *FOLDERS):
            if (pipeline / name).is_dir():
                shutil.copytree(pipeline / name, study / name)
            elif (pipeline / name).exists():
                shutil.copy(pipeline / name, study / name)
        program.mkdir()
        (program / "bad.py").write_text(GOOD)
        (program / "mine.txt").write_text("mine")
        tables.mkdir()
        for name in ("first", "second"):
            words = f"twins -n 4 --arm all --metric m.json:accuracy --out ../tables/{name} -- python bad.py"
            self.give(program, words, code=4)
        self.give(program, "audit --json ../tables/audit.json -- python bad.py")
        rng = np.random.default_rng(0)
        values = [
            f"{model},{seed},{value:.4f}" for model in "ab" for seed, value in enumerate(rng.normal(0.8, 0.01, 8))
        ]
        (tables / "runs.csv").write_text("\n".join(["model,seed,accuracy", *values, ""]))
        for model in "ab":
            rows = [row[2:] for row in values if row[0] == model]
            (tables / f"{model}.csv").write_text("\n".join(["seed,accuracy", *rows, ""]))
        rows = [f"{m},{s},e{e},{e % 2},{int(rng.random() < 0.7)}" for m in "ab" for s in range(3) for e in range(20)]
        (tables / "predictions.csv").write_text("\n".join(["model,seed,example,label,prediction", *rows, ""]))
        (tables / "predictions.csv.gz").write_bytes(gzip.compress((tables / "predictions.csv").read_bytes(), mtime=0))
        np.savez(tables / "predictions.npz", predictions=rng.integers(0, 2, (4, 20)), labels=np.arange(20) % 2,
                 model=np.array(["a", "a", "b", "b"]), seed=np.arange(4))  # fmt: skip
        shutil.make_archive(str(tables / "archive"), "zip", study / "prepared")

    def give(self, folder: Path, words: str, code: int = 0) -> None:
        command, environment = [self.warm / "twinrun", *words.split()], self.environment(folder)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != code:
            sys.exit(f"{words}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

    def environment(self, folder: Path) -> dict[str, str]:
        source = folder if (folder / "src").is_dir() else ROOT
        return environment(folder) | {"PYTHONPATH": str(source / "src"), "HOME": str(self.base)}

    def good(self, name: str) -> tuple[int, str, State]:
        """The exit code of a command where nothing is wrong, what it says and what it makes."""
        kept, folder = self.base / f"good {name}.json", self.base / f"good {name} {os.getpid()}"
        if not kept.exists():
            shutil.copytree(self.base / COMMANDS[name].world, folder, symlinks=True)
            printed = folder.with_suffix(".out")
            with printed.open("wb") as out, Path(os.devnull).open("wb") as err:
                child = fork(
                    COMMANDS[name].words, folder, self.environment(folder), out.fileno(), err.fileno(), self.warm
                )
            code = wait(child, 600)
            write_json(kept, [code, printed.read_text(), made(values(state(folder)), name)])
            printed.unlink()
            shutil.rmtree(folder)
        code, said, files = read_json(kept)
        return code, said, files


def state(folder: Path, known: Mapping[str, Entry] = MappingProxyType({})) -> dict[str, Entry]:
    """What every path below a folder is: its size and time, and a digest of its bytes or its kind.

    What has the size and time that it has in `known` is not read again.
    """
    entries = {}
    for top, folders, inside in os.walk(folder):
        for name in (*folders, *inside):
            path = Path(top, name)
            with suppress(OSError):  # a path may be too long
                facts, key = path.lstat(), str(path.relative_to(folder))
                mark = (facts.st_size, facts.st_mtime_ns, facts.st_mode)
                if stat.S_ISLNK(facts.st_mode):
                    value = str(path.readlink())
                elif not stat.S_ISREG(facts.st_mode) or facts.st_size >= 1 << 30:
                    value = f"{stat.filemode(facts.st_mode)[0]}{facts.st_size if stat.S_ISREG(facts.st_mode) else 0}"
                elif key in known and known[key][0] == mark:
                    value = known[key][1]
                else:
                    value = sha256_file(path)
                entries[key] = mark, value
    return entries


def made(after: State, name: str) -> State:
    """What a command may write, of a state: without what is measured."""
    makes = COMMANDS[name].makes
    kept = {path: value for path, value in after.items() if makes and f"{path}/".startswith(makes)}
    return {path: value for path, value in kept.items() if not MEASURED.search(path)}


def fork(words: Sequence[str], folder: Path, environment: dict[str, str], out: int, err: int, warm: Path) -> int:
    """Start `twinrun WORDS` as a fork of this process, which has imported all of it."""
    if child := os.fork():
        return child
    atexit._clear()  # what the campaign itself has to do
    os.setsid()
    for number, target in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
        os.dup2(target, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = f"{warm}/python"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os._exit(execute("-m", "twinrun", *words) & 255)


def wait(child: int, seconds: float) -> int | None:
    """The exit code of a child; None where it had to be killed."""
    handle = os.pidfd_open(child)
    in_time = bool(select.select([handle], [], [], seconds)[0])
    os.close(handle)
    if not in_time:
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if in_time else None


def run(case: Case, number: int, world: World) -> tuple[list[str], str]:
    """The problems of a case, and the command with what it printed."""
    folder, logs = world.base / f"case_{number}", world.base / f"logs_{number}"
    logs.mkdir()
    folder.mkdir()
    full = case.shell == FULL
    if full:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    try:
        shutil.copytree(world.base / COMMANDS[case.command].world, folder, symlinks=True, dirs_exist_ok=True)
        case.fault(folder)
        if full:
            with suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(1 << 12))
        before = state(folder, world.known[COMMANDS[case.command].world])
        words, begin = case.words or COMMANDS[case.command].words, time.monotonic()
        with (logs / "out").open("wb") as out, (logs / "err").open("wb") as err:
            if case.cold or case.shell != Case.shell:
                start = Path(sys.executable).parent / "twinrun" if case.cold else world.warm / "twinrun"
                pid = subprocess.Popen(
                    ["bash", "-c", case.shell, "bash", str(start), *map(os.fsencode, words)], cwd=folder,
                    stdin=subprocess.DEVNULL, env=world.environment(folder), stdout=out, stderr=err,
                    start_new_session=True,
                ).pid  # fmt: skip
            else:
                pid = fork(words, folder, world.environment(folder), out.fileno(), err.fileno(), world.warm)
            code = wait(pid, case.seconds)
        seconds = time.monotonic() - begin
        printed, said = ((logs / name).read_bytes()[-200_000:].decode("utf-8", "replace") for name in ("out", "err"))
        ending = Ending(code or 0, code is not None, printed, said, values(before), values(state(folder, before)))
        problems = judge(case, ending, lambda: world.good(case.command))
    finally:
        if full:
            subprocess.run(["umount", "--lazy", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(logs)
    shown = " ".join(word if len(word) < 60 else f"{word[:20]}..." for word in words)
    return problems, f"exit {code}, {seconds:.1f} s: twinrun {shown!a}\n{printed[-700:]!a}\n{said[-1500:]}"


@dataclass(frozen=True)
class Ending:
    """How a command ended, what it printed, and its folder before and after."""

    code: int
    in_time: bool
    printed: str
    said: str
    before: State
    after: State


def judge(case: Case, ending: Ending, good: Callable[[], tuple[int, str, State]]) -> list[str]:
    """What is not as it should be."""
    if not ending.in_time:
        return ["hang: it did not end"]
    problems, command = [], COMMANDS[case.command]
    code, after = ending.code, made(ending.after, case.command)
    raw = (OURS if case.kind == "program" else RAW).search(ending.said)  # a program's own words are shown
    if raw or code < 0 or 128 < code != 141:  # the latter is how bash says that a signal ended it
        problems.append(f"traceback: {raw[0] if raw else 'a signal'}")
    elif code not in case.codes:
        expected, words, files = good() if case.harmless else (0, "", {"": ""})
        other = sorted(path for path in files.keys() | after.keys() if files.get(path) != after.get(path))
        if code != expected:
            problems.append(f"silently wrong: exit 0 for {expected}" if not code else "wrong code")
        elif other or (words != ending.printed and not command.varies):
            problems.append(f"silently wrong: other {other[:3] or 'words'}")
    if code not in (0, 141) and not raw and "2>" not in case.shell:
        answered = case.command == "twins" and ending.printed  # its answer says which twin failed, and why
        sentence = USAGE.search(ending.said) or SENTENCE.search(ending.said) or answered
        if not sentence or CONTROL.search(ending.said):
            problems.append("no sentence")
    own = (*SCRATCH, *(command.makes if not code or command.goes_on else ()))
    lost = [path for path, value in ending.before.items() if ending.after.get(path) != value]
    if lost := [path for path in lost if not f"{path}/".startswith(own)]:
        problems.append(f"lost: {lost[:3]}")
    left = {path for path in ending.after.keys() - ending.before.keys() if TEMPORARY.search(path)}
    if case.command == "prepare" and case.kind == "disk":
        left = {path for path in left if ".part" not in path}  # the finished images, to go on from
    if left:
        problems.append(f"left behind: {sorted(left)[:3]}")
    return problems


CAMPAIGN: list[Any] = []  # the cases and their world, for the processes that are forked


def run_number(number: int) -> tuple[list[str], str]:
    """`run` of a case by its number."""
    return run(CAMPAIGN[0][number], number, CAMPAIGN[1])


def import_all() -> None:
    """Import what commands import, once."""
    ours = [module.name for module in pkgutil.walk_packages(twinrun.__path__, "twinrun.")]
    for name in (*SLOW, *ours):
        if "injected" not in name and not name.endswith("__main__"):
            with suppress(ImportError):
                importlib.import_module(name)
    gc.freeze()


def main() -> None:
    """Run them and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="WORD", help="cases whose title has all of these words"
    )
    parser.add_argument("--first", type=int, help="so many of them, in an order that mixes the kinds")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--world", type=Path, help="keep what the cases are copies of there, or take it from there")
    parser.add_argument("--list", action="store_true", help="their titles alone")
    arguments = parser.parse_args()
    every = (files(), mixed(), options(), names(), surroundings(), programs())
    chosen = [case for case in chain(*every) if all(word in str(case) for word in arguments.only)]
    if arguments.list:
        print("\n".join(ascii(str(case))[1:-1] for case in chosen))
        return
    clean = clean_environment()
    os.environ.clear()
    os.environ.update(clean)
    from tests.warm.start import Warm

    random.Random(0).shuffle(chosen)
    chosen = chosen[: arguments.first]
    warm, begin = Warm(), time.monotonic()
    base = arguments.world.resolve() if arguments.world else Path(tempfile.mkdtemp(prefix="twinrun-hostile-"))
    base.mkdir(exist_ok=True)
    base.chmod(0o755)
    counts: Counter[tuple[str, str]] = Counter()
    try:
        world = World(base, warm.binaries)
        if not (base / "tables" / "archive.zip").exists():
            world.make()
        print(f"{len(chosen)} cases; their world took {time.monotonic() - begin:.0f} s", flush=True)
        for name in ("study", "pipeline", "tables", "program"):
            world.known[name] = state(base / name)
        import_all()
        CAMPAIGN.extend([chosen, world])
        with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("fork")) as pool:
            waiting = {pool.submit(run_number, number): case for number, case in enumerate(chosen)}
            for future in as_completed(waiting):
                case = waiting[future]
                try:
                    problems, text = future.result()
                except Exception as error:
                    problems, text = ["campaign"], repr(error)
                counts[case.kind, "tried"] += 1
                for problem in problems:
                    counts[case.kind, problem.partition(":")[0]] += 1
                counts[case.kind, "as it should"] += not problems
                if problems:
                    print(ascii(f"== {case}: {'; '.join(problems)}")[1:-1], text, sep="\n", flush=True)
    finally:
        warm.stop()
        if not arguments.world:
            shutil.rmtree(base, ignore_errors=True)
    print(table(counts))
    print(f"{time.monotonic() - begin:.0f} s")
    sys.exit(any(counts[kind, "tried"] != counts[kind, "as it should"] for kind, _ in list(counts)))


def table(counts: Mapping[tuple[str, str], int]) -> str:
    """The cases of each kind, and of all, by how they ended."""
    columns = ("tried", "as it should", *PROBLEMS)
    lines = [f"| kind | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for kind in (*dict.fromkeys(kind for kind, _ in counts), "all"):
        row = [sum(n for (k, c), n in counts.items() if c == column and kind in (k, "all")) for column in columns]
        lines.append(f"| {kind} | {' | '.join(map(str, row))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
