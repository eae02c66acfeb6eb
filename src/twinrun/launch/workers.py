"""`twinrun` commands in processes of their own: forked from a worker server, or each started from nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from twinrun.launch.progress import PART, say
from twinrun.launch.worker_server import READY
from twinrun.study.params import Params
from twinrun.study.pins import CpuBits, clean_environment

STOPPED = 130
OF_EVERY_RUN = ("twinrun.cli.app", "twinrun.launch.progress", "twinrun.training.loop")  # what every run imports


def modules_of(params: Params, tasks: Iterable[str]) -> list[str]:
    """What a worker server has to load for runs of these tasks."""
    names = {str(params.tasks[task].model.name) for task in tasks}
    modules = list(OF_EVERY_RUN)
    modules += ["torchvision.models"] if any(name.startswith(("mobilenet", "resnet")) for name in names) else []
    return modules + (["timm"] if any(name.startswith("timm:") for name in names) else [])


@dataclass(frozen=True)
class Ended:
    """A process after its end; a negative `code` is the signal that ended it."""

    code: int
    output: str
    errors: str


NOT_STARTED = Ended(STOPPED, "", "not started")


class Workers:
    """Runs `twinrun ARGUMENTS` in the folder `root`, as a context manager; call `run` from as many threads as you like.

    With `modules`, a worker server loads them once and each process is its child: it starts at once. Without, and when
    the server cannot be started or was killed, each process starts from nothing. `prefix` goes before the interpreter
    of such a process, as an emulator does. The environment is the pinned one of `cpu_bits` in either case.
    """

    def __init__(
        self, root: Path, modules: Sequence[str] = (), prefix: Sequence[str] = (), cpu_bits: CpuBits = "anywhere"
    ) -> None:
        self.root, self.prefix, self.cpu_bits = root, prefix, cpu_bits
        self._guard, self._stopping = threading.Lock(), False
        self._fresh: set[subprocess.Popen[str]] = set()
        self._server: _Server | None = None
        if modules:
            try:
                self._server = _Server(root, modules, cpu_bits)
            except OSError as error:
                _say_without(f"it cannot be started: {error.strerror}")

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._server:
            self._server.wait()

    def run(
        self, arguments: Sequence[str], variables: Mapping[str, str] | None = None, *, shown: bool = False
    ) -> Ended:
        """Run `twinrun ARGUMENTS` with these variables besides, and wait for its end.

        `shown`: it writes where this process does, and no output is given back.
        """
        if self._server and not self._server.lost:
            ended = self._server.run(arguments, variables or {}, shown=shown)
            if ended:
                return ended
            with self._guard:
                first, self._server.lost = not self._server.lost and not self._stopping, True
            if first:
                _say_without(self._server.reason())
        return self._run_fresh(arguments, variables or {}, shown=shown)

    def stop(self) -> None:
        """End all that are running, as ctrl-C does, and start no more."""
        with self._guard:
            self._stopping = True
            for process in self._fresh:
                process.terminate()
        if self._server:
            self._server.stop()

    def _run_fresh(self, arguments: Sequence[str], variables: Mapping[str, str], *, shown: bool) -> Ended:
        command = [*self.prefix, sys.executable, "-m", "twinrun", *arguments]
        with self._guard:
            if self._stopping:
                return NOT_STARTED
            # The environment is made here, before the interpreter starts: under an emulator nothing may be re-executed.
            process = subprocess.Popen(
                command,
                cwd=self.root,
                env=clean_environment(cpu_bits=self.cpu_bits) | {PART: "1"} | dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=None if shown else subprocess.PIPE,
                stderr=None if shown else subprocess.PIPE,
                text=True,
            )
            self._fresh.add(process)
        output, errors = process.communicate()
        with self._guard:
            self._fresh.discard(process)
        return Ended(process.returncode, output or "", errors or "")


def _say_without(reason: str) -> None:
    say(f"no worker server ({reason}): each run starts as a fresh process, with the same results")


class _Server:
    """The server's process and the socket to it."""

    def __init__(self, root: Path, modules: Sequence[str], cpu_bits: CpuBits) -> None:
        self.lost = False
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._said = _in_memory("said")  # a pipe that nobody reads would stop it once full
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "twinrun.launch.worker_server", str(theirs.fileno()), *modules],
                cwd=root,
                env=clean_environment(cpu_bits=cpu_bits) | {PART: "1"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
            )

    def run(self, arguments: Sequence[str], variables: Mapping[str, str], *, shown: bool) -> Ended | None:
        """Have a child run `twinrun ARGUMENTS`; None when the server is gone, and then its children are, too."""
        message = json.dumps({"arguments": list(arguments), "variables": dict(variables)}).encode()
        with _in_memory("output") as output, _in_memory("errors") as errors:
            reading, writing = os.pipe()
            with os.fdopen(reading) as status:
                try:
                    files = [1, 2] if shown else [output.fileno(), errors.fileno()]
                    socket.send_fds(self._requests, [message], [*files, writing])
                except OSError:
                    return None
                finally:
                    os.close(writing)
                code = status.read()
            return Ended(int(code), _content(output), _content(errors)) if code else None

    def stop(self) -> None:
        """Take no more requests and end the children; the server goes after them."""
        with suppress(OSError):  # it is gone already
            self._requests.shutdown(socket.SHUT_WR)
            try:
                self._requests.recv(len(READY), socket.MSG_DONTWAIT)
            except BlockingIOError:  # it is still loading and has no children
                self._process.kill()

    def wait(self) -> None:
        """Wait for its end."""
        self._process.wait()
        self._requests.close()
        self._said.close()

    def reason(self) -> str:
        """Why it serves no more."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it can start no more processes"
        said = _content(self._said).strip().splitlines()
        return f"it ended with exit {code}" + (f": {said[-1]}" if said else "")


def _in_memory(name: str) -> TextIO:
    return os.fdopen(os.memfd_create(name), encoding="utf-8", errors="replace")


def _content(file: TextIO) -> str:
    file.seek(0)
    return file.read()
