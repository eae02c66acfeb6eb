"""Two source trees on the same collected studies: every table and figure that one writes otherwise than the other.

    python benchmarks/compare_trees.py make OLD_TREE collected/ out/old
    python benchmarks/compare_trees.py make . collected/ out/new
    python benchmarks/compare_trees.py compare out/old/analysis out/new/analysis

`make` runs `twinrun analyze` and `twinrun report` with the package of a tree (its `src` goes first on the path of this
interpreter) on a collected folder, and on the `located/` beside it. `compare` takes CSV tables and figures byte by byte
and ends with exit code 1 when anything differs; with --frames it says which columns and rows of a table do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

KINDS = ("*.csv", "*.svg", "*.png", "statistics.json")


def make(tree: Path, collected: Path, out: Path) -> None:
    """Analyze and report `collected` in the folder `out` with the package of `tree`."""
    out.mkdir(parents=True, exist_ok=True)
    for folder in (collected, collected.parent / "located"):
        if folder.is_dir():
            shutil.copytree(folder, out / folder.name, dirs_exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve() / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    for command in ("analyze", "report"):
        subprocess.run([sys.executable, "-m", "twinrun", command], cwd=out, env=environment, check=True)


def differences(old: Path, new: Path, *, frames: bool = False) -> list[str]:
    """One line for each file that is only in one of the folders or has other bytes."""
    sides = [{p.relative_to(top) for kind in KINDS for p in top.rglob(kind)} for top in (old, new)]
    lines = [f"only in {old}: {name}" for name in sorted(sides[0] - sides[1])]
    lines += [f"only in {new}: {name}" for name in sorted(sides[1] - sides[0])]
    for name in sorted(sides[0] & sides[1]):
        if (old / name).read_bytes() != (new / name).read_bytes():
            lines.append(f"differs: {name}")
            if frames and name.suffix == ".csv":
                lines += _columns(old / name, new / name)
    return lines


def _columns(old: Path, new: Path) -> list[str]:
    """Which columns of two tables differ, each with its first row that does."""
    first, second = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (old, new))
    lines = [f"  columns {list(first)} -> {list(second)}"] if list(first) != list(second) else []
    if len(first) != len(second):
        return [*lines, f"  rows {len(first)} -> {len(second)}"]
    for name in [name for name in first if name in second]:
        other = first[name] != second[name]
        if other.any():
            row = int(other.to_numpy().argmax())
            lines.append(f"  {name}: {other.sum()} rows, row {row}: {first[name][row]!r} -> {second[name][row]!r}")
    return lines


def main() -> int:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="analyze a collected folder with a tree's package")
    for name in ("tree", "collected", "out"):
        maker.add_argument(name, type=Path)
    comparer = commands.add_parser("compare", help="compare two folders of outputs")
    for name in ("old", "new"):
        comparer.add_argument(name, type=Path)
    comparer.add_argument("--frames", action="store_true", help="name the columns of a table that differ")
    given = parser.parse_args()
    if given.command == "make":
        make(given.tree, given.collected, given.out)
        return 0
    lines = differences(given.old, given.new, frames=given.frames)
    same = len([p for kind in KINDS for p in given.new.rglob(kind)]) - sum(not line.startswith(" ") for line in lines)
    print("\n".join([*lines, f"{same} files are the same"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
