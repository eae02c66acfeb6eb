"""Fresh folders for twins: the user's files copied in, and a watch on the files that no twin may change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from twinrun.study.errors import InputError

# What a copy of a work folder never needs: version control, environments, caches.
SKIPPED = {
    ".git", ".dvc", ".venv", "venv", "node_modules", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache",
}  # fmt: skip
LOCK = "twins.lock"  # in a results' folder, as long as a call writes into it
MOST_BYTES = 1024**3  # of a copy; beyond it the user says what to link

Stamp = tuple[int, int, int]


def files_below(root: Path, skipped: Sequence[Path] = ()) -> Iterator[Path]:
    """Every file and link below `root`, relative to it, without the usual caches and the `skipped` folders."""
    left_out = {path.resolve() for path in skipped}
    for folder, names, files in os.walk(root):
        here = Path(folder)
        if {"twins.json", "twin_1.log", LOCK}.intersection(files) and here != root:
            names.clear()  # results of other calls
            continue
        names[:] = sorted(name for name in names if name not in SKIPPED and (here / name).resolve() not in left_out)
        linked = [name for name in names if (here / name).is_symlink()]
        for name in sorted([*files, *linked]):
            yield (here / name).relative_to(root)


def stamps(root: Path, skipped: Sequence[Path] = ()) -> dict[str, Stamp]:
    """Size, time of change and inode of every file below `root`: what a write to it changes."""
    stamped = {}
    for name in files_below(root, skipped):
        try:
            status = (root / name).lstat()
        except OSError:
            continue  # gone meanwhile: it shows as a change
        stamped[str(name)] = (status.st_size, status.st_mtime_ns, status.st_ino)
    return stamped


def changed(before: dict[str, Stamp], after: dict[str, Stamp]) -> list[str]:
    """The files that appeared, vanished or were written to."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def old_outputs(root: Path, outputs: Sequence[str], command: Sequence[str]) -> list[Path]:
    """What lies in `root` where a twin is to write: no twin gets it, so that none can count or go on from it.

    Raises InputError for a pattern that matches a file that the command names.
    """
    named = {os.path.normpath(word) for word in command}
    kept: dict[Path, None] = {}
    for pattern in outputs:
        for path in sorted(root.glob(pattern)):
            kept[path.relative_to(root)] = None
            if str(path.relative_to(root)) in named:
                raise InputError(
                    f"--outputs {pattern!r} matches {path}, a file of the program itself", "narrow it down"
                )
    return list(kept)


def plan_copy(root: Path, linked: Sequence[str], stale: Sequence[Path], out: Path) -> list[Path]:
    """The files of `root` that every twin gets a copy of: all but links, caches, `out` and `stale`.

    Raises InputError when they are more than can be copied lightly, or a linked path does not exist.
    """
    for name in linked:
        if not (root / name).exists() or Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"--link {name}: no such file or folder in {root.resolve()}", "give a path below it")
    links = [Path(name) for name in linked]
    skipped = [out, *(root / link for link in links)]
    chosen = [
        name
        for name in files_below(root, skipped)
        if name not in links and not any(name == old or old in name.parents for old in stale)
    ]
    size = sum((root / name).lstat().st_size for name in chosen)
    if size > MOST_BYTES:
        largest = _largest(root, chosen)
        raise InputError(
            f"every twin would get a copy of {size / 1024**3:.1f} GiB, most of it in {largest}",
            f"link what the program only reads: --link {largest}",
        )
    return chosen


def _largest(root: Path, names: Sequence[Path]) -> str:
    sizes: dict[str, int] = {}
    for name in names:
        sizes[name.parts[0]] = sizes.get(name.parts[0], 0) + (root / name).lstat().st_size
    return max(sizes, key=lambda part: sizes[part])


def fill(folder: Path, root: Path, names: Sequence[Path], linked: Sequence[str]) -> None:
    """Copy `names` of `root` into the new `folder` and link what is linked; links out of the copy become absolute."""
    folder.mkdir(parents=True)
    copied = set(names)
    for name in names:
        source, target = root / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            aim = source.resolve()
            inside = aim.is_relative_to(root.resolve()) and aim.relative_to(root.resolve()) in copied
            target.symlink_to(source.readlink() if inside and not source.readlink().is_absolute() else aim)
        elif source.is_file():
            shutil.copy2(source, target)
    for link in linked:
        (folder / link).parent.mkdir(parents=True, exist_ok=True)
        (folder / link).symlink_to((root / link).resolve())


def listings(folder: Path) -> dict[str, list[str]]:
    """What each folder below, by its name, holds, in the order in which the file system lists it."""
    return {str(Path(here).relative_to(folder)): [entry.name for entry in os.scandir(here)]
            for here, _, _ in os.walk(folder)}  # fmt: skip


def keep_what_changed(folder: Path, before: dict[str, Stamp]) -> None:
    """Remove from `folder` what lies there as it was put there: what remains is what the program wrote."""
    after = stamps(folder)
    for name, stamp in before.items():
        if after.get(name) == stamp:
            (folder / name).unlink(missing_ok=True)
    for path in sorted((folder / name for name in {str(p.parent) for p in map(Path, before)}), reverse=True):
        while path != folder and path.is_dir() and not any(path.iterdir()):
            path.rmdir()
            path = path.parent
    for cache in list(folder.rglob("__pycache__")):
        shutil.rmtree(cache, ignore_errors=True)
