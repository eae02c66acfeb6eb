"""The work folder of a run: its lock, its recorded noise and its checkpoint; gone when the record is written."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from twinrun.study.documents import read_document
from twinrun.study.errors import ResourceError, TwinrunError
from twinrun.study.files import write_json
from twinrun.study.layout import CHECKPOINT, LOCK
from twinrun.study.lock import hold
from twinrun.study.records import AttemptNote
from twinrun.training.randomness import fresh_entropy

RESUMED = "wait for it, or stop it; it can be resumed"


@dataclass(frozen=True)
class Attempt:
    """One attempt at the run: its number, counted from 1, and the entropy of the noise that all attempts share."""

    number: int
    entropy: str | None


class Workspace:
    """Exclusive hold of a run's work folder, as a context manager; BusyError when another process has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoint = folder / CHECKPOINT

    def __enter__(self) -> Workspace:
        self._lock = hold(self.folder / LOCK, f"{self.folder}: another process is training this run", RESUMED)
        self._lock.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)

    def begin(self, identity: str, *, needs_entropy: bool) -> Attempt:
        """Count this attempt; draw and note the noise at the first one, so that a resumed run goes on with it."""
        path = self.folder / "attempt.json"
        before: dict[str, object] = {}
        if path.is_file():
            try:
                before = read_document(path, AttemptNote, "the note of an attempt", "").model_dump()
            except ResourceError:  # says nothing of the note, and a checkpoint may be hours of work
                raise
            except TwinrunError:
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
