"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Counts steps of `total`; use as a context manager and call `advance` after each step."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self._bar: Any = None  # rich's bar, when there is a terminal

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, message: str) -> None:
        """Note that a step is done; `message` says which, or how it went."""
        self.done += 1
        if self._bar:
            self._bar.update(self._task, completed=self.done, description=f"{self.title} {message}".rstrip())
        else:
            print(f"{self.title} {self.done}/{self.total} {message}", file=sys.stderr, flush=True)

    def update(self, done: int, total: int) -> None:
        """For work that counts by itself; plain output gets a line every tenth of the way."""
        before, self.done, self.total = self.done, done, total
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
        elif done == total or before * 10 // max(total, 1) != done * 10 // max(total, 1):
            print(f"{self.title} {done}/{total}", file=sys.stderr, flush=True)
