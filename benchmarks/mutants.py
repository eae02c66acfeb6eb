"""Random mutants of the package, and which of them its tests kill.

python benchmarks/mutants.py training collect --count 40 --seed 1 --out work/mutants.json
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
A_MODULE = 2  # at most so many mutants
# Each operator with what takes its place; a constant becomes its neighbour.
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


def sites(tree: ast.AST) -> Iterator[tuple[ast.AST, str, Any]]:
    """Every place that can be mutated: node, attribute and new value; annotations and texts are none."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            skipped |= {id(part) for part in ast.walk(annotation)} if annotation else set()
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


def draw(packages: list[str], count: int, seed: int) -> list[tuple[Path, int]]:
    """The mutants of this seed: module and number of the place in it."""
    chance = random.Random(f"{seed} {packages}")
    places: list[tuple[Path, int]] = []
    for package in packages:
        for module in sorted((ROOT / "src/twinrun" / package).rglob("*.py")):
            there = len(list(sites(ast.parse(module.read_text()))))
            chosen = chance.sample(range(there), min(A_MODULE, there))
            places += [(module.relative_to(ROOT), place) for place in chosen]
    return chance.sample(places, min(count, len(places)))


def mutate(module: Path, place: int) -> tuple[str, str]:
    """The text of the mutant, and its line with the change."""
    tree = ast.parse((ROOT / module).read_text())
    node, name, value = list(sites(tree))[place]
    before = ast.unparse(node)
    setattr(node, name, value)
    return ast.unparse(tree), f"{module}:{getattr(node, 'lineno', '?')}  {before}  ->  {ast.unparse(node)}"


def tests_of(module: Path) -> list[list[str]]:
    """The module's own tests, then those of its package."""
    inside = module.relative_to("src/twinrun")
    own, package = Path("tests") / inside.with_name(f"test_{inside.name}"), Path("tests") / inside.parts[0]
    return [[str(path)] for path in (own, package) if (ROOT / path).exists()]


def failing(folder: Path, tests: list[str], timeout: float) -> bool:
    """Whether any of these tests fails in the copy `folder`, or does not end in time."""
    options = ["-x", "-q", "-n", "0", "-m", "not slow", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": f"{folder / 'src'}:{folder}", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run([sys.executable, "-m", "pytest", *options, *tests], cwd=folder, env=environment,
                              capture_output=True, text=True, check=False, timeout=timeout)  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    return done.returncode not in (0, 5)  # 5: nothing was collected


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
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=900, help="seconds of one run of tests")
    parser.add_argument("--own", action="store_true", help="the module's own tests alone")
    parser.add_argument("--out", type=Path, default=Path("work/mutants.json"), help="what is done; goes on from there")
    arguments = parser.parse_args()
    done: dict[str, str] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    sound: dict[str, bool] = {}  # whether these tests pass without a mutant
    with tempfile.TemporaryDirectory(prefix="twinrun-mutants-") as name:
        folder = Path(name)
        copy_tree(folder)
        for module, place in draw(arguments.packages, arguments.count, arguments.seed):
            text, change = mutate(module, place)
            if change not in done:
                fate = "SURVIVED"
                for tests in tests_of(module)[: 1 if arguments.own else 2]:
                    (folder / module).write_text(text)
                    dead = failing(folder, tests, arguments.timeout)
                    shutil.copy(ROOT / module, folder / module)
                    key = " ".join(tests)
                    if dead and sound.setdefault(key, not failing(folder, tests, arguments.timeout)):
                        fate = f"killed by {key}"
                        break
                done[change] = fate
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                arguments.out.write_text(json.dumps(done, indent=1) + "\n")
            print(f"{done[change]}\t{change}", flush=True)
    for tests_name, passes in sound.items():
        if not passes:
            print(f"not counted, for it fails without a mutant, too: {tests_name}")
    print(f"{sum(fate != 'SURVIVED' for fate in done.values())} of {len(done)} killed")


if __name__ == "__main__":
    main()
