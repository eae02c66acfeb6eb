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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from twinrun.study.errors import TwinrunError
from twinrun.study.files import digest, refuse_pipe, write_text

State = tuple[int, int, int, int]  # inode, bytes, nanoseconds of the content's time and of that of the last change
LOCK, NOTE = "dvc.lock", ".dvc/tmp/up_to_date"
# What decides what DVC looks at; all else is named in its lock.
_SETTINGS = (".dvcignore", ".dvc/config", ".dvc/config.local", "dvc.yaml", LOCK)
_CACHE = ".dvc/cache"


@dataclass(frozen=True)
class Look:
    """Every file that the pipeline reads or writes and every folder of its outputs, and the stages of DVC's lock."""

    states: dict[str, State]  # by the path in the study folder
    stages: dict[str, Any]


def is_up_to_date(root: Path) -> bool:
    """Whether every file that the pipeline reads or writes is the one that DVC found up to date."""
    try:
        refuse_pipe(root / NOTE)
        noted = (root / NOTE).read_text()
    except (OSError, ValueError, TwinrunError):
        return False
    return noted == digest(look(root).states)


def note_up_to_date(root: Path, before: Look) -> None:
    """Note the files as they are after `dvc repro` has ended well; `before`: as they were when it began.

    Nothing is noted where anything changed meanwhile but the outputs of stages that ran, or these after DVC wrote its
    lock for the last time.
    """
    now = look(root)
    if not any(stage.get("outs") for stage in now.stages.values()):
        return
    ran = [stage for name, stage in now.stages.items() if before.stages.get(name) != stage]
    made = [entry["path"] for stage in ran for entry in stage.get("outs", ())]
    locked = now.states[LOCK][2]
    for name in (before.states.keys() | now.states.keys()) - {LOCK}:
        if before.states.get(name) == (state := now.states.get(name)):
            continue
        if not any(Path(name).is_relative_to(out) for out in made) or (state and state[3] > locked):
            return
    with suppress(TwinrunError):  # it saves time, no more
        write_text(root / NOTE, digest(now.states))


def look(root: Path) -> Look:
    """Look at the study as it is."""
    stages = _stages(root)
    outs = {entry["path"] for stage in stages.values() for entry in stage.get("outs", ())}
    read = {entry["path"] for stage in stages.values() for entry in stage.get("deps", ())}
    read |= {path for stage in stages.values() for path in stage.get("params", ())}
    tracked = {file.name for file in root.glob("*.dvc") if file.is_file()}
    tops = sorted({*_SETTINGS, *tracked, *outs, *read})
    states = {name: state for top in tops for name, state in _below(root, top, folders=top in outs)}
    if (root / _CACHE).is_dir():
        states[_CACHE] = (0, 0, 0, 0)
    return Look(states, stages)


def _stages(root: Path) -> dict[str, Any]:
    """The stages of DVC's lock; none where it cannot be read."""
    try:
        refuse_pipe(root / LOCK)
        content: Any = yaml.load((root / LOCK).read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        stages = {str(name): dict(stage) for name, stage in content["stages"].items()}
        for stage in stages.values():
            dict(stage.get("params", {}))
            for entry in (*stage.get("deps", ()), *stage.get("outs", ())):
                str(entry["path"])
    except (OSError, LookupError, TypeError, ValueError, AttributeError, yaml.YAMLError, TwinrunError):
        return {}
    return stages


def _below(root: Path, top: str, *, folders: bool) -> Iterator[tuple[str, State]]:
    """The files at or below a path, with `folders` those, too: an output that is gone shows in the times of its own."""
    path = root / top
    for folder, inner, names in os.walk(path) if path.is_dir() else [(str(root), [], [top])]:
        inner[:] = [name for name in inner if name != "__pycache__"]  # as .dvcignore says
        places = [Path(folder, name) for name in names]
        for place in [Path(folder), *places] if folders and path.is_dir() else places:
            with suppress(OSError):
                state = place.stat()
                size = state.st_size if not place.is_dir() else 0
                times = state.st_mtime_ns, state.st_ctime_ns
                yield place.relative_to(root).as_posix(), (state.st_ino, size, *times)


if __name__ == "__main__":
    sys.exit(not is_up_to_date(Path()))
