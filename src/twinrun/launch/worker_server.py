"""The worker server: a process that has loaded what every run needs, and forks one child for each run.

`launch/workers.py` starts it and speaks to it. The standard library's forkserver is not used: it needs a socket in a
temporary folder, a second helper process and the caller's own environment, and it dies of a signal to its group.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from twinrun.study.records import current_code_digest

MESSAGE_BYTES = 65536
READY = b"ready"
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Load the modules named on the command line, then serve the socket with the number that stands before them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # the server ends after its children, when the client is gone
    descriptor, *modules = sys.argv[1:]
    requests = socket.socket(fileno=int(descriptor))
    code = current_code_digest()
    for name in modules:
        with suppress(ImportError):  # a run that needs it says so in its own words
            importlib.import_module(name)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
        sys.exit(f"importing {', '.join(modules)} started {threads - 1} threads, which a forked process would miss")
    gc.freeze()  # else a child's first collection copies every page of what it shares
    requests.send(READY)
    if request := serve(requests):
        end(exit_code(lambda: become(request, code)))


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork a child for each request until the client has gone and every child has ended; in a child, its request.

    A request is JSON with three file descriptors: where the child writes its output and its errors, and where the
    server writes the child's exit code (negative: the signal that ended it). Without a client, children get SIGTERM.
    """
    ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    server, children, listening = os.getpid(), dict[int, int](), True
    while listening or children:
        watched: list[Any] = [ended, requests] if listening else [ended]
        ready, _, _ = select.select(watched, [], [])
        if ended in ready:
            os.read(ended, MESSAGE_BYTES)
            _report_ended(children)
        if requests not in ready:
            continue
        try:
            message, descriptors, _, _ = socket.recv_fds(requests, MESSAGE_BYTES, 3)
        except ConnectionResetError:  # the client was killed before it read all that we sent
            message, descriptors = b"", []
        if not message:
            listening = False
            for child in children:
                os.kill(child, signal.SIGTERM)
            continue
        try:
            child = os.fork()
        except OSError:
            for descriptor in descriptors:  # without an exit code, as the client sees
                os.close(descriptor)
            continue
        if child == 0:
            _leave(server)
            for target, descriptor in enumerate(descriptors[:2], start=1):
                os.dup2(descriptor, target)
            for descriptor in (ended, wake, requests.detach(), *descriptors, *children.values()):
                os.close(descriptor)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            request: dict[str, Any] = json.loads(message)
            return request
        for descriptor in descriptors[:2]:
            os.close(descriptor)
        children[child] = descriptors[2]
    return None


def _report_ended(children: dict[int, int]) -> None:
    """Write the exit codes of those that have ended, and forget them."""
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        descriptor = children.pop(child)
        with suppress(BrokenPipeError):
            os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def _leave(server: int) -> None:
    """Make this child a process of its own, that is killed when the server is: nobody would hear of its end."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(-signal.SIGKILL)


def become(request: dict[str, Any], code: str) -> None:
    """Run `twinrun ARGUMENTS` in this process; from nothing, when the code is no longer the one that was loaded."""
    os.environ.update(request["variables"])
    if current_code_digest() != code:  # the record would name code that did not run
        os.execv(sys.executable, [sys.executable, "-m", "twinrun", *request["arguments"]])
    sys.argv[1:] = request["arguments"]
    runpy.run_module("twinrun", run_name="__main__", alter_sys=True)


def exit_code(work: Callable[[], None]) -> int:
    """Do `work`; the exit code of an interpreter whose program it is, with what it would say."""
    try:
        work()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(code: int) -> NoReturn:
    """End this process as an interpreter does, but for taking apart all that is loaded: of torch that takes 0.5 s."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads of a user's model
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main()
