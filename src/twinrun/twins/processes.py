"""The processes of one twin: started in a session of their own, stopped, and none of them left behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from twinrun.study.errors import InputError

GRACE_SECONDS = 5.0  # from the polite to the hard end
MARK = "TWINRUN_TWIN"  # an environment variable that tells the processes of one twin
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")  # a twin that finds what another compiled is no fresh start
# torchrun reads the second; whoever sets up torch.distributed by the environment, Lightning among them, the first.
PORTS = ("MASTER_PORT", "PET_MASTER_PORT")


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a session of its own, which ends with the block; what it prints is added to `log`.

    A program that no copy has, such as `../env/bin/python` or `.venv/bin/python`, is that of the current folder.
    Raises InputError when it cannot be started.
    """
    # Python would say the same, once for each twin and as a failure of the program.
    if re.fullmatch(r"python[\d.]*", Path(command[0]).name) and len(command) > 1:
        script = command[1]
        if not script.startswith("-") and not os.path.exists(folder / script):  # noqa: PTH110 - False for any name
            hint = "environments, caches and what --outputs names are not copied: give the whole path of what is there"
            raise InputError(f"{script}: no such file in the copy of this folder in which the command runs", hint)
    outside = os.sep in command[0] and not (folder / command[0]).exists()
    program = os.path.abspath(command[0]) if outside else command[0]  # noqa: PTH100 - links stay
    with log.open("ab") as stream:
        try:
            process = subprocess.Popen(
                [program, *command[1:]],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, so that its children end with it
            )
        except OSError as error:
            shell = len(command) == 1 and " " in command[0]
            hint = f"a line for a shell is: -- bash -c {shlex.quote(command[0])}" if shell else "check the command"
            raise InputError(f"{command[0]}: cannot be started ({error.strerror})", hint) from error
    try:
        yield process
    finally:
        # Also after a good end: what is left of the group would write into a folder that is being compared.
        end_group(process)


def wait(process: subprocess.Popen[bytes], seconds: float | None) -> int | None:
    """The exit code, or None where the process still runs after so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the process and to those of its children that are in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group, politely first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        signal_group(process, number)
        wait(process, GRACE_SECONDS)
    process.wait()


def end_marked(mark: str) -> tuple[str, ...]:
    """End what a twin left running in sessions of its own, found by its environment: it would disturb the next twin."""
    left: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
    names = []
    for process in left:
        with suppress(psutil.Error):
            names.append(f"{process.name()} (process {process.pid})")
            process.kill()
    psutil.wait_procs(left, GRACE_SECONDS)
    return tuple(names)


def new_mark(number: int) -> str:
    """A value of `MARK` that no other twin has."""
    return f"{os.getpid()}-{number}-{time.monotonic_ns()}"


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core busy with a process of its own: what depends on the order of events then shows sooner."""
    command = [sys.executable, "-c", "while True: sum(range(100_000))"]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def how_it_ended(code: int) -> str:
    """`exit code 1`, or `ended by signal SIGKILL`."""
    return f"ended by signal {signal_name(-code)}" if code < 0 else f"exit code {code}"


def with_ports(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with a port of this twin's own for those that meet at one, unless it names one."""
    port = str(free_port())
    return dict.fromkeys(PORTS, port) | dict(environment)


def signal_name(number: int) -> str:
    """SIGTERM for 15; most real-time signals have no name and stay numbers."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
