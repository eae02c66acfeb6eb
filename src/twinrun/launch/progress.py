"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any

from twinrun.launch.heartbeat import FIRST_SECONDS, moving, said, silent_seconds
from twinrun.launch.status import count
from twinrun.study.grid import Run


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
            moving(1)
            self._task = self._bar.add_task(self.title, total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
            moving(-1)

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
        elif done == total or silent_seconds() > FIRST_SECONDS:
            say(f"{self.title} {done}/{total}")


def follow(look: Callable[[], Mapping[Run, str]], seconds: float, finished: Collection[str]) -> None:
    """Show what `look` returns every so many `seconds` until every run is in one of the states `finished`."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    with Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        before: Mapping[Run, str] = {}
        while True:
            states = look()
            going = [
                f"{run.id}  {state}"
                for run, state in states.items()
                if state.split(",")[0] in ("running", "interrupted")
            ]
            if live:
                live.update("\n".join([count(states), *going[: console.height - 2]]), refresh=True)
            elif states != before:
                print("; ".join([count(states), *going]), flush=True)
            if all(state in finished for state in states.values()):
                return
            before = states
            time.sleep(seconds)
