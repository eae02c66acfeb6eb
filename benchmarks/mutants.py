"""Random mutants of the package, and which of them its tests kill.

python benchmarks/mutants.py stats training collect report --a-module 4 --count 340 --seed 14

A mutant is one operator exchanged, or one number or truth value changed. It dies in the tests that mirror its module
(`own`) or else in those of its package; a test that runs out of processor time kills, too. The tests are collected
once, in a copy of the tree; which of them reach which function is noted in a run without a mutant. Each mutant is a
fork of that process: its function gets other code, or, where the change is no part of a function or was reached on
import, all is imported anew. So a mutant costs what the tests that reach it cost, up to the first red one.

The file of results goes on from where it stands. Survivors are tried again when tests have changed: `--again`. One
that changes nothing a test could see is explained in the column `why`, by hand.
"""

from __future__ import annotations

import os
import sys

from twinrun.study.pins import clean_environment, leaks

if leaks(os.environ):
    os.execve(sys.executable, [sys.executable, *sys.argv], clean_environment())

import argparse
import ast
import contextlib
import csv
import ctypes
import gc
import hashlib
import json
import platform
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
# Each operator with what takes its place; a constant becomes its neighbour.
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
SOURCES = "src/twinrun/"
ALIVE = ("survived", "no test")
KEY = ("module", "function", "place", "before", "after")  # place: line within the function, and column
COLUMNS = (*KEY, "fate", "by", "test", "seconds", "commit", "why")
NO_MUTANT = ("chromium", "pdflatex")  # programs that read none of our code


def sites(tree: ast.AST) -> Iterator[tuple[ast.AST, str, Any]]:
    """Every place that can be mutated: node, attribute and new value; annotations and decorators are none."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        declared = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for part in (*declared, *getattr(node, "decorator_list", ())):
            skipped |= {id(inner) for inner in ast.walk(part)} if part else set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        for name in ("op", "ops"):
            operator = getattr(node, name, None)
            if isinstance(operator, list) and type(operator[0]) in SWAPS:
                yield node, name, [SWAPS[type(operator[0])](), *operator[1:]]
            elif type(operator) in SWAPS:
                yield node, name, SWAPS[type(operator)]()
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            yield node, "value", not node.value if isinstance(node.value, bool) else node.value + 1


class Mutant:
    """One change of one module: its place is a number, in the order of `sites`."""

    def __init__(self, module: Path, place: int) -> None:
        self.module, self.path = module, ROOT / module
        self.source = self.path.read_text()
        self.tree = ast.parse(self.source)
        node, name, value = list(sites(self.tree))[place]
        self.outer, first = self._outermost(node)
        self.place = f"{node.lineno - first}:{node.col_offset}"  # type: ignore[attr-defined]
        shown = next(p for p in ast.walk(self.tree) if node in ast.iter_child_nodes(p)) if name == "value" else node
        shown = shown if isinstance(shown, ast.expr | ast.keyword) else node
        self.before = ast.unparse(shown)
        setattr(node, name, value)
        self.after = ast.unparse(shown)

    def _outermost(self, node: ast.AST) -> tuple[str, int]:
        """Name and line of the outermost function whose body holds the node: what a fork can exchange."""
        pending: list[tuple[ast.AST, str]] = [(self.tree, "")]
        while pending:
            parent, prefix = pending.pop()
            for child in ast.iter_child_nodes(parent):
                if isinstance(child, ast.FunctionDef):
                    if any(inner is node for statement in child.body for inner in ast.walk(statement)):
                        return prefix + child.name, child.lineno
                elif isinstance(child, ast.ClassDef):
                    pending.append((child, f"{prefix}{child.name}."))
        return "", 0

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What it is, wherever its function stands in the module: the first columns of its row."""
        return str(self.module), self.outer, self.place, self.before, self.after

    def patch(self, folder: Path) -> bool:
        """Give the loaded functions the mutant's code; False where none of them is the mutated one."""
        path = str(folder / self.module)
        old = compile(self.source, path, "exec", dont_inherit=True)
        new = dict(zip(codes(old), codes(compile(self.tree, path, "exec", dont_inherit=True)), strict=True))
        patched = False
        for function in gc.get_objects():
            if isinstance(function, FunctionType) and function.__code__.co_filename == path:
                code = function.__code__
                if code in new:
                    function.__code__ = new[code]
                    patched |= self.outer == code.co_qualname
        return patched


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and all within, in their order."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def find_again(row: dict[str, str]) -> Mutant | None:
    """The mutant of a row in the code as it is now."""
    path = Path(row["module"])
    count = len(list(sites(ast.parse((ROOT / path).read_text())))) if (ROOT / path).is_file() else 0
    mutants = (Mutant(path, place) for place in range(count))
    return next((mutant for mutant in mutants if mutant.key == tuple(row[name] for name in KEY)), None)


def draw(packages: list[str], a_module: int, count: int, seed: int) -> list[Mutant]:
    """The mutants of this seed."""
    chance = random.Random(f"{seed} {packages}")
    places: list[tuple[Path, int]] = []
    for package in packages:
        for module in sorted((ROOT / "src/twinrun" / package).rglob("*.py")):
            there = len(list(sites(ast.parse(module.read_text()))))
            places += [(module.relative_to(ROOT), n) for n in chance.sample(range(there), min(a_module, there))]
    chosen = sorted(chance.sample(places, min(count, len(places))))
    # One of each module, then a second: a campaign that is broken off has looked everywhere.
    modules = [module for module, _ in chosen]
    turn = {place: number - modules.index(place[0]) for number, place in enumerate(chosen)}
    return [Mutant(*place) for place in sorted(chosen, key=lambda place: turn[place])]


Reach = dict[str, dict[str, Any]]


class Tests:
    """The plugin that stays in the loop of collected tests, and forks for each mutant."""

    def __init__(self, folder: Path, campaign: Callable[[Tests], None] | None = None, timed: Reach | None = None):
        self.folder, self.campaign, self.timed = folder, campaign, timed or {}
        self.sources = f"{folder}/{SOURCES}"
        self.failed: str | None = None
        self.items: dict[str, pytest.Item] = {}
        self.context: set[Any] = set()
        self.on_import = self.context
        self.fixtures: dict[Any, set[Any]] = {}

    def note(self, frame: FrameType, event: str, argument: Any) -> None:
        """What a test reaches: our functions, and processes that may."""
        code = frame.f_code
        if code.co_filename.startswith(self.sources):
            self.context.add((code.co_filename[len(self.sources) - len(SOURCES) :], code.co_qualname))
        elif code.co_name == "spawnv_passfds" or (
            code.co_name == "_execute_child" and not any(name in str(frame.f_locals) for name in NO_MUTANT)
        ):
            self.context.add("process")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """What a shared fixture reaches is reached by each test that uses it."""
        before = self.context
        if fixturedef.scope != "function":
            self.context = self.fixtures.setdefault((fixturedef.argname, fixturedef.baseid), set())
        yield
        self.context = before

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A limit of processor time: a hang is dead."""
        if not self.timed:
            return
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        limit = int(used + 20 + 10 * self.timed.get(nodeid, {"seconds": 9.0})["seconds"])
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if self.campaign is None:
            return None
        sys.settrace(None)
        self.items = {item.nodeid: item for item in session.items}
        self.campaign(self)
        return True

    def run(self, items: Sequence[pytest.Item]) -> Iterator[pytest.Item]:
        """Run these one after the other."""
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            yield item

    def baseline(self, files: set[str]) -> Reach:
        """Each test of these files without a mutant: whether it passes, its seconds, and what it reaches."""
        reach: Reach = {}
        for item in self.run([item for nodeid, item in self.items.items() if nodeid.partition("::")[0] in files]):
            reach[item.nodeid] = {"passes": self.failed is None, "seconds": self.seconds, "reached": self.context}
            self.failed = None
        for nodeid in reach:
            shared = getattr(self.items[nodeid], "_fixtureinfo").name2fixturedefs  # noqa: B009 - a private name
            for name, fixtures in shared.items():
                reach[nodeid]["reached"] |= self.fixtures.get((name, fixtures[-1].baseid), set())
        return reach

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        if not self.timed:
            self.context = set()
            sys.settrace(self.note)
        begin = time.process_time()
        yield
        self.seconds = time.process_time() - begin
        sys.settrace(None)


def in_fork(act: Callable[[], Any], temporary: Path) -> tuple[Any, float]:
    """What `act` gives in a fork of this process (None: it was ended by a signal), and its processor seconds."""
    answer = temporary / "answer.json"
    answer.unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the campaign
            log = os.open(temporary / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            answer.write_text(json.dumps(act(), default=lambda values: sorted(values, key=str)))
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a test has left behind
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code > 0:
        sys.exit(f"mutants.py: the fork failed: {(temporary / 'log.txt').read_text()[-2000:]}")
    seconds = sum(after[:2]) - sum(before[:2])
    return json.loads(answer.read_text()) if code == 0 else None, seconds


def options(temporary: Path) -> list[str]:
    return [
        "-q",
        "-s",
        "-n",
        "0",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore",
        "--basetemp",
        str(temporary / "pytest"),
    ]


def mirrors(module: Path) -> tuple[str, str]:
    """Name of the file of tests that mirrors a module, and the folder of its package's."""
    inside = module.relative_to("src/twinrun")
    return f"/test_{inside.name}::", f"tests/{inside.parts[0]}/"


def chosen(mutant: Mutant, reach: Reach) -> list[str]:
    """The tests that may see it: first its module's own; those that start processes last."""
    own, package = mirrors(mutant.module)
    wanted = [str(mutant.module), mutant.outer] if mutant.outer else [str(mutant.module)]
    files: dict[str, float] = {}
    for nodeid, test in reach.items():
        file = nodeid.partition("::")[0]
        files[file] = files.get(file, 0) + test["seconds"]

    def order(nodeid: str) -> tuple[Any, ...]:
        file, test = nodeid.partition("::")[0], reach[nodeid]
        far = own not in nodeid, not nodeid.startswith(package)
        return *far, "process" in test["reached"], files[file], file, test["seconds"]

    def sees(test: dict[str, Any]) -> bool:
        return any(place == "process" or place[: len(wanted)] == wanted for place in test["reached"])

    return sorted((n for n, test in reach.items() if test["passes"] and (own in n or sees(test))), key=order)


def fate(mutant: Mutant, tests: Tests, temporary: Path) -> dict[str, Any]:
    """Try one mutant: a row of the results."""
    names = chosen(mutant, tests.timed)
    place = tests.folder / mutant.module
    exchangeable = mutant.outer and (str(mutant.module), mutant.outer) not in tests.on_import

    def act() -> str | None:
        if exchangeable and mutant.patch(tests.folder):
            for _ in tests.run([tests.items[name] for name in names]):
                if tests.failed:
                    break
            return tests.failed
        for name in [n for n in sys.modules if n.partition(".")[0] in ("twinrun", "tests", "tools")]:
            del sys.modules[name]
        fresh = Tests(tests.folder, timed=tests.timed)
        code = pytest.main([*options(temporary), "-x", *names], plugins=[fresh])
        return fresh.failed or ("the import" if code not in (0, 5) else None)

    place.write_text(ast.unparse(mutant.tree))
    stamp = time.time_ns() + random.randrange(10**12)  # so that no compiled file of another mutant is taken for it
    os.utime(place, ns=(stamp, stamp))
    failed, seconds = in_fork(act, temporary) if names else (None, 0.0)
    hung = names and not (temporary / "answer.json").exists()
    place.write_text(mutant.source)
    own = mirrors(mutant.module)[0]
    by = "" if not failed else "own" if own in failed or failed == "the import" else failed.split("/")[1]
    return {"fate": "hung" if hung else "killed" if failed else "survived" if names else "no test", "by": by,
            "test": failed or "", "seconds": round(seconds, 1)}  # fmt: skip


def copy_tree(folder: Path) -> None:
    """A copy of all that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="+", help="of src/twinrun")
    parser.add_argument("--a-module", type=int, default=2, help="at most so many mutants of one module")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="no new ones: survivors without an explanation once more")
    parser.add_argument("--tests", nargs="*", help="whose tests are tried; default: those of the packages")
    parser.add_argument("--out", type=Path, default=ROOT / "work" / "mutants.csv")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    rows: list[dict[str, Any]] = list(csv.DictReader(out.open(newline=""))) if out.is_file() else []
    commit = subprocess.check_output(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True).strip()
    survivors = [row for row in rows if row["fate"] in ALIVE and not row["why"]]
    mutants = [] if arguments.again else draw(arguments.packages, arguments.a_module, arguments.count, arguments.seed)
    pairs = [(mutant, row) for row in survivors for mutant in [find_again(row)] if mutant and arguments.again]
    known = {tuple(row[name] for name in KEY) for row in rows}
    pairs += [(mutant, dict(zip(KEY, mutant.key, strict=True))) for mutant in mutants if mutant.key not in known]
    reach_file = out.with_suffix(".reach.json")

    def write() -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def campaign(tests: Tests) -> None:
        kept = json.loads(reach_file.read_text()) if reach_file.is_file() else {}  # by file of tests
        files = {nodeid.partition("::")[0] for nodeid in tests.items}
        digests = {file: hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in files}
        reach_file.parent.mkdir(parents=True, exist_ok=True)
        changed = {file for file in files if file not in kept or kept[file]["digest"] != digests[file]}
        for package in sorted({file.split("/")[1] for file in changed}):
            here = {file for file in changed if file.split("/")[1] == package}
            reach, _ = in_fork(lambda here=here: tests.baseline(here), folder)  # type: ignore[misc]
            for file in here:
                own = {nodeid: test for nodeid, test in reach.items() if nodeid.partition("::")[0] == file}
                kept[file] = {"digest": digests[file], "tests": own}
            reach_file.write_text(json.dumps(kept))
        timed = {nodeid: test for file in files for nodeid, test in kept[file]["tests"].items()}
        for nodeid, test in timed.items():
            if not test["passes"]:
                print(f"left out, for it fails without a mutant, too: {nodeid}", flush=True)
        tests.timed = timed
        for mutant, row in pairs:
            row |= {"commit": commit} | fate(mutant, tests, folder)
            rows.extend([] if arguments.again else [row])
            write()
            print("\t".join(str(row[name]) for name in ("fate", "by", "seconds", *KEY, "test")), flush=True)

    with tempfile.TemporaryDirectory(prefix="twinrun-mutants-") as name:
        folder = Path(name)
        copy_tree(folder)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = f"{folder / 'src'}:{folder}"
        sys.path[:0] = [str(folder / "src"), str(folder)]
        for name in [n for n in sys.modules if n.partition(".")[0] == "twinrun"]:
            del sys.modules[name]
        tests = Tests(folder, campaign)
        sys.settrace(tests.note)
        code = pytest.main(
            [*options(folder), *(f"tests/{part}" for part in arguments.tests or arguments.packages)], plugins=[tests]
        )
        if not tests.items:
            sys.exit(f"mutants.py: the tests were not collected ({code})")
    dead, own = sum(row["fate"] not in ALIVE for row in rows), sum(row["by"] == "own" for row in rows)
    explained = sum(bool(row.get("why")) for row in rows)
    print(f"{dead} of {len(rows)} killed, {own} by their module's own tests; {explained} survivors are explained")
    print(f"Python {platform.python_version()}, {commit}")


if __name__ == "__main__":
    main()
