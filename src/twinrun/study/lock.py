"""One lock for all: an advisory lock on a file, which the kernel drops when its holder ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twinrun.study.errors import BusyError
from twinrun.study.files import explain_os_error

LOOK_SECONDS = 0.3  # `is_held` takes the lock for a moment: whoever wants it just then tries again for so long
_PAUSE_SECONDS = 0.02


@contextmanager
def hold(
    path: Path, busy: str, hint: str = "wait for it, or stop it", *, patience: float = LOOK_SECONDS
) -> Iterator[None]:
    """Hold `path`, made where it is not there, for the length of the block, and note in it who holds it.

    Raises BusyError (`busy` and the holder's name) when another process has it for longer than `patience` seconds,
    ResourceError when the file cannot be made. The folder may be removed in the block, the file with it.
    """
    deadline = time.monotonic() + patience
    while (file := _try_to_hold(path)) is None:
        if time.monotonic() >= deadline:
            if not path.parent.is_dir():  # it went just now, or cannot be made, as in /proc
                if (file := _try_to_hold(path)) is not None:
                    break
                raise explain_os_error(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), path.parent)
            holder = _holder(path)
            raise BusyError(f"{busy}{holder and f': {holder}'}", hint)
        time.sleep(_PAUSE_SECONDS)
    try:
        with suppress(OSError):  # a full disk stops the work where it matters
            os.ftruncate(file, 0)
            job = os.environ.get("SLURM_JOB_ID")
            own = f"{platform.node()}, process {os.getpid()}{f', SLURM job {job}' if job else ''}"
            os.pwrite(file, own.encode(), 0)
        yield
    finally:
        os.close(file)
        # NFS and FUSE keep a file that is removed while it is open under another name, and with it the folder.
        with suppress(OSError):
            path.parent.rmdir()


def is_held(path: Path) -> bool:
    """Whether a process holds `path` now; a file that is not there is held by nobody."""
    try:
        with path.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _try_to_hold(path: Path) -> int | None:
    """The open and locked file, or None: another process holds it, or has removed it just now."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_CREAT | os.O_RDWR)
    except FileNotFoundError:  # the folder went in between
        return None
    except OSError as error:
        raise explain_os_error(error, path.parent) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last holder may have removed it before this one had it: then nobody else sees the lock on it.
        if os.path.samestat(os.fstat(file), path.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        os.close(file)
        raise explain_os_error(error, path) from error
    os.close(file)
    return None


def _holder(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:200]
    except OSError:
        return ""
