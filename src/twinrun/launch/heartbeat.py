"""A sign of life from long work that says nothing: nobody should have to guess whether it hangs."""

from __future__ import annotations

import os
import sys
import threading
import time
from types import TracebackType

PART = "TWINRUN_PART"  # set in processes of a command that speaks for them
FIRST_SECONDS = 5.0  # until the first sign; then twice as long each time, and no longer than
MOST_SECONDS = 60.0

_state = {"said": time.monotonic(), "shown": 0}  # when something was last said; how many bars move on a terminal


def said() -> None:
    """Note that something was said just now."""
    _state["said"] = time.monotonic()


def silent_seconds() -> float:
    """For how long nothing was said."""
    return time.monotonic() - _state["said"]


def moving(change: int) -> None:
    """Note that a bar began (1) or ended (-1) to move, which is a sign of life itself."""
    _state["shown"] += change


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
