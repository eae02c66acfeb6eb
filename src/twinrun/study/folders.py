"""A folder that is either the old one or the whole new one, never half of each."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from twinrun.study.errors import InputError
from twinrun.study.files import explain_os_error


def foreign_content(folder: Path, only: Sequence[str]) -> str | None:
    """The first entry of a folder that no pattern of `only` allows; None where there is none, or no such folder."""
    if not folder.is_dir():
        return None
    for entry in sorted(folder.iterdir()):
        names = [pattern for pattern in (*only, ".gitignore") if "/" not in pattern]
        inner = [pattern.split("/", 1)[1] for pattern in only if "/" in pattern]
        if not any(fnmatch(entry.name, name) for name in names) and not any((entry / name).exists() for name in inner):
            return entry.name
    return None


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder as in use, for as long as this process lives at most; not every file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _in_use(folder: Path) -> bool:
    """Whether a process holds a folder; also where the file system does not say."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _clear_away(target: Path, *, locked: bool) -> None:
    """Remove what killed processes left beside `target`; put back what one had just moved aside."""
    for retired in target.parent.glob(f".{target.name}.*.old"):
        if locked or not _in_use(retired.with_suffix(".tmp")):
            if not target.exists():
                retired.replace(target)
            shutil.rmtree(retired, ignore_errors=True)
    for building in target.parent.glob(f".{target.name}.*.tmp"):
        if building.is_dir() and (locked or not _in_use(building)):
            shutil.rmtree(building, ignore_errors=True)


def require_replaceable(target: Path, only: Sequence[str], mark: str = "") -> None:
    """InputError where `replaced_folder` would leave `target` alone: other content, a file, a link to nothing."""
    foreign = foreign_content(target, only)
    if foreign:
        raise InputError(
            f"{target}: holds {foreign}, which is not of what is to be written there",
            "nothing was changed; move it away, or name another folder",
        )
    entry = foreign_content(target, ())
    if mark and entry and not (target / mark).exists():
        hint = "nothing was changed; move the folder away"
        raise InputError(f"{target}: holds {entry} and no {mark}, so that it may be somebody else's", hint)
    if target.is_symlink() and not target.exists():
        raise InputError(f"{target}: a link to nothing", f"remove it, or make {target.readlink()}")
    if target.exists() and not target.is_dir():
        raise explain_os_error(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)), target)


@contextmanager
def replaced_folder(target: Path, only: Sequence[str], *, mark: str = "", locked: bool = False) -> Iterator[Path]:
    """A temporary sibling of `target` to write into; it takes the target's place when the block ends well.

    `only` says what an old `target` may hold: patterns of names, or `*/name` for a folder that has `name` in it. With
    anything else in it, it is somebody else's folder and is left alone; so it is where it is not empty and lacks the
    file `mark`, which is for patterns that somebody else's files may have, too. What killed processes left beside
    `target` is removed; `locked` says that no other process can be at work on it, which needs no asking then.

    An error inside the block leaves the target as it was and removes the sibling. Raises InputError for a folder with
    other content, before anything is done, for a full disk and for a place that cannot be written.
    """
    require_replaceable(target, only, mark)
    made: list[Path] = []
    building = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    retired = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        _clear_away(target, locked=locked)
        # A killed process may have had the same number, as the first one in every container has.
        shutil.rmtree(building, ignore_errors=True)
        made = [parent for parent in target.parents if not parent.exists()]
        building.mkdir(parents=True)
        with _held(building):
            yield building
            # A folder cannot be renamed over a full one: the old one steps aside first.
            if target.exists():
                target.replace(retired)
            building.replace(target)
    except OSError as error:
        if retired.exists() and not target.exists():
            retired.replace(target)
        raise explain_os_error(error, target) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)
        for parent in made:  # those that are empty still
            with suppress(OSError):
                parent.rmdir()
