"""Progress of long work: a bar on a terminal, plain lines elsewhere, and a sign of life where nothing else is said."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any

PART = "TWINRUN_PART"  # set in processes of a command that speaks for them
FIRST_SECONDS = 5.0  # until the first sign; then twice as long each time, and no longer than
MOST_SECONDS = 60.0

_state = {"said": time.monotonic(), "shown": 0}  # when something was last said; how many bars move on a terminal


def said() -> None:
    """Note that something was said just now."""
    _state["said"] = time.monotonic()


class Heartbeat:
    """While this is entered, a line on stderr when nothing was said for a while: `twinrun audit: at work for 5 s`.

    By a system call and without a lock of Python's, for the main thread may fork at any time.
    """

    def __init__(self, what: str) -> None:
        self._what, self._over = what, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Heartbeat:
        said()
        self._begin = time.monotonic()
        if sys.stderr is not None:  # where it is closed, its number may be that of another file
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        gap, last = FIRST_SECONDS, _state["said"]
        while not self._over.wait(max(0.01, last + gap - time.monotonic())):
            if _state["said"] > last:  # somebody else spoke
                gap, last = FIRST_SECONDS, _state["said"]
            elif time.monotonic() >= last + gap:
                gap, last = min(2 * gap, MOST_SECONDS), time.monotonic()
                if not _state["shown"]:
                    line = f"{self._what}: at work for {last - self._begin:.0f} s\n"
                    try:
                        os.write(2, line.encode())
                    except OSError:  # nobody listens
                        return


def say(text: str) -> None:
    """A line of progress on stderr; where that is closed, full or gone the line is lost, and the work goes on."""
    if sys.stderr is None:  # closed: print would take stdout in its place
        return
    said()
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


class Progress:
    """Counts steps of `total`; use as a context manager and call `advance` after each step."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self._bar: Any = None  # rich's bar, when there is a terminal

    def __enter__(self) -> Progress:
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._bar.start()
            _state["shown"] += 1  # which is a sign of life itself
            self._task = self._bar.add_task(self.title, total=self.total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
            _state["shown"] -= 1

    def advance(self, message: str) -> None:
        """Note that a step is done; `message` says which, or how it went."""
        self.done += 1
        if self._bar:
            self._bar.update(self._task, completed=self.done, description=f"{self.title} {message}".rstrip())
        else:
            say(f"{self.title} {self.done}/{self.total} {message}")

    def update(self, done: int, total: int) -> None:
        """For work that counts by itself; plain output gets a line now and then, and the last one."""
        self.done, self.total = done, total
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
        elif done == total or time.monotonic() - _state["said"] > FIRST_SECONDS:
            say(f"{self.title} {done}/{total}")
