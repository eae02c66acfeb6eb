"""The work folder of a run: its lock, its recorded noise and its checkpoint; gone when the record is written."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from twinrun.study.errors import BusyError, InputError
from twinrun.study.files import explain_os_error, read_json, write_json
from twinrun.study.layout import CHECKPOINT, LOCK
from twinrun.training.randomness import fresh_entropy


@dataclass(frozen=True)
class Attempt:
    """This try at the run: the how manieth it is, and the noise that they all share."""

    number: int
    entropy: str | None


class Workspace:
    """Exclusive hold of a run's work folder, as a context manager; BusyError when another process has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / CHECKPOINT

    def __enter__(self) -> Workspace:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / LOCK, os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise explain_os_error(error, self.folder) from error
        try:
            _lock(self._lock)
            # The one who had it may have removed the folder since: then this lock is on a file that nobody else sees.
            if not os.path.samestat(os.fstat(self._lock), (self.folder / LOCK).stat()):
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError) as error:
            holder = os.pread(self._lock, 200, 0).decode(errors="replace")
            os.close(self._lock)
            raise BusyError(
                f"{self.folder}: another process is training this run{holder and f': {holder}'}",
                "wait for it, or stop it; it can be resumed",
            ) from error
        with suppress(OSError):  # a full disk stops the run where it matters
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{platform.node()}, process {os.getpid()}{_job()}".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)
        # NFS and FUSE keep a file that is removed while it is open under another name, and with it the folder.
        with suppress(OSError):
            self.folder.rmdir()

    def begin(self, identity: str, *, needs_entropy: bool) -> Attempt:
        """Count this attempt; draw and note the noise at the first one, so that a resumed run goes on with it."""
        path = self.folder / "attempt.json"
        before: dict[str, object] = {}
        if path.is_file():
            try:
                before = read_json(path)
            except InputError:
                before = {}  # damaged: begin afresh
        same = before.get("identity") == identity
        entropy = str(before["entropy"]) if same and before.get("entropy") else None
        if needs_entropy and entropy is None:
            entropy = fresh_entropy()
        number = int(str(before["number"])) + 1 if same else 1
        if not same:
            self.checkpoint.unlink(missing_ok=True)
        write_json(path, {"identity": identity, "entropy": entropy, "number": number})
        return Attempt(number, entropy)

    def finish(self) -> None:
        """Remove the folder: the record holds all that is to be kept."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _lock(file: int) -> None:
    # `twinrun status` tries the lock for a moment to see whether it is held: that must not stop a run.
    for _ in range(9):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.02)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _job() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    return f", SLURM job {job}" if job else ""
