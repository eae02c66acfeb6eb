"""SIGTERM and SIGHUP end the work as ctrl-C does: what was begun is put in order, and no child is left at work.

A terminal sends ctrl-C, and SIGHUP when it is closed, to one group of processes; children in groups of their own go on
unless the one that started them ends them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = (signal.SIGTERM, signal.SIGHUP)


def take() -> list[signal.Signals]:
    """Raise KeyboardInterrupt at the first of `NUMBERS` from now on; all that were taken over, ctrl-C's among them.

    One that is ignored, as `nohup` has it, stays so, and one that the program has a handler for is left to it. Later
    ones of either kind, and those after ctrl-C, are passed over: cleaning up is not to be interrupted itself.
    """
    own = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # a worker that was forked meanwhile: it has nothing to put in order
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        quieten()
        _leave_closed_terminal()
        raise KeyboardInterrupt

    def interrupt_by_hand(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            quieten()
        signal.default_int_handler(number, frame)

    def quieten() -> None:
        for each in numbers:
            signal.signal(each, lambda number, frame: None)  # not ignored: a child would inherit that

    numbers = [number for number in NUMBERS if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return numbers
    signal.signal(signal.SIGINT, interrupt_by_hand)
    return [*numbers, signal.SIGINT]


def _leave_closed_terminal() -> None:
    """Say to nobody what would be said to a terminal that is gone: an error of that would stop the cleaning up."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


@contextmanager
def taken() -> Iterator[None]:
    """`take` for the length of the block; in a thread, which can take none, whatever the program has."""
    numbers = take() if threading.current_thread() is threading.main_thread() else []
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
