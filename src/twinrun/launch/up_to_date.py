"""The state in which DVC last found the study up to date: while every file is the same, nothing need be asked again.

Of each file the number, size and times, as DVC itself remembers digests, and the time of its last change besides, which
nobody can set.

python -m twinrun.launch.up_to_date      # in a study folder: exit 0 where it is, 1 where DVC has to be asked
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from twinrun.study.errors import TwinrunError
from twinrun.study.files import digest, write_text

Files = dict[str, tuple[int, int, int, int]]  # path -> inode, bytes, nanoseconds of the content, of the last change
LOCK, NOTE = "dvc.lock", ".dvc/tmp/up_to_date"
# What decides what DVC looks at; all else is named in its lock.
_SETTINGS = (".dvcignore", ".dvc/config", ".dvc/config.local", "dvc.yaml", LOCK)


def is_up_to_date(root: Path) -> bool:
    """Whether every file that the pipeline reads or writes is the one that DVC found up to date."""
    try:
        noted = (root / NOTE).read_text()
    except (OSError, ValueError):
        return False
    return noted == digest(files(root))


def note_up_to_date(root: Path, before: Files) -> None:
    """Note the files as they are after `dvc repro` has ended well; `before`: as they were when it began.

    Nothing is noted where anything was changed meanwhile by another hand: what is no output, or an output after DVC
    wrote its lock, as it does when a stage has ended.
    """
    now = files(root)
    outs = _named(root)["outs"]
    if not outs:
        return
    locked = now[LOCK][2]
    for name in before.keys() | now.keys():
        if before.get(name) == now.get(name) or name == LOCK:
            continue
        is_out = any(Path(name).is_relative_to(out) for out in outs)
        if not is_out or (name in now and now[name][3] > locked):
            return
    with suppress(TwinrunError):  # it saves time, no more
        write_text(root / NOTE, digest(now))


def files(root: Path) -> Files:
    """Every file that the pipeline reads or writes, by its path in the study folder."""
    named = _named(root)
    tracked = {file.name for file in root.glob("*.dvc") if file.is_file()}
    names = {*_SETTINGS, *tracked, *(path for kind in named.values() for path in kind)}
    return {name: state for top in sorted(names) for name, state in _below(root, top)}


def _named(root: Path) -> dict[str, set[str]]:
    """The files and folders that DVC's lock names as `deps`, `params` and `outs`; none where it cannot be read."""
    named: dict[str, set[str]] = {"deps": set(), "params": set(), "outs": set()}
    try:
        content: Any = yaml.load((root / LOCK).read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for stage in content["stages"].values():
            named["params"].update(stage.get("params", ()))
            for kind in ("deps", "outs"):
                named[kind].update(entry["path"] for entry in stage.get(kind, ()))
    except (OSError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        pass
    return named


def _below(root: Path, top: str) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    path = root / top
    places = os.walk(path) if path.is_dir() else [(str(root), [], [top])]
    for folder, folders, names in places:
        folders[:] = [name for name in folders if name != "__pycache__"]  # as .dvcignore says
        for name in names:
            file = Path(folder, name)
            with suppress(OSError):
                state = file.stat()
                times = state.st_mtime_ns, state.st_ctime_ns
                yield file.relative_to(root).as_posix(), (state.st_ino, state.st_size, *times)


if __name__ == "__main__":
    sys.exit(not is_up_to_date(Path()))
