"""A folder that is either the old one or the whole new one, never half of each."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twinrun.study.files import explain_os_error


@contextmanager
def replaced_folder(target: Path, *, locked: bool = False) -> Iterator[Path]:
    """A temporary sibling of `target` to write into; it takes the target's place when the block ends well.

    `locked` says that no other process can be at work on `target`: then what killed ones left is removed, too.

    An error inside the block leaves the target as it was and removes the sibling. Raises InputError for a full disk
    or a place that cannot be written.
    """
    building = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    retired = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        for kind in ("tmp", "old"):
            for stale in target.parent.glob(f".{target.name}.*.{kind}") if locked else ():
                shutil.rmtree(stale, ignore_errors=True)
        # A killed process may have had the same number, as the first one in every container has.
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
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
