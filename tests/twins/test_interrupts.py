"""SIGTERM and a closed terminal end the work and the children in groups of their own, as ctrl-C does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.warm.start import REAL

from twinrun.twins import interrupts

# A child that leaves a child of its own at work, started by each command that starts groups.
CHILD = "sleep 60 & echo $! > {}; wait"
SCRIPT = """
import fcntl, sys, termios
from pathlib import Path
import twinrun.cli.app as cli
from twinrun.launch import dvc
from twinrun.twins import interrupts
terminal, what, child = sys.argv[1:]
if terminal == "terminal":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv = ["twinrun", "twins", "--", "bash", "-c", child]
if what == "dvc":
    dvc._command = lambda root, *words: (["bash", "-c", child], None)
    cli.app = lambda: interrupted(lambda: dvc.reproduce(Path()))
    sys.argv[1:] = ["finish"]
def interrupted(work):
    try:
        work()
    except KeyboardInterrupt:
        sys.exit(130)
cli.main()
"""


@pytest.fixture
def pid(tmp_path: Path) -> Iterator[Path]:
    file = tmp_path / "pid"
    yield file
    if file.exists() and running(file):
        os.kill(int(file.read_text()), signal.SIGKILL)


def running(pid: Path) -> bool:
    return Path(f"/proc/{pid.read_text().strip()}/cmdline").exists()


def wait(so_long: float, pid: Path, *, there: bool) -> bool:
    end = time.monotonic() + so_long
    while time.monotonic() < end:
        if (pid.exists() and bool(pid.read_text()) and running(pid)) == there:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(("what", "how"), [("dvc", "close"), ("twins", "close"), ("twins", "TERM"), ("twins", "HUP")])
def test_no_child_outlives_the_command(what: str, how: str, pid: Path, tmp_path: Path) -> None:
    master, slave = os.openpty()
    command = [REAL, "-c", SCRIPT, "terminal" if how == "close" else "pipe", what, CHILD.format(pid)]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    ) as process:
        os.close(slave)
        assert wait(30, pid, there=True)
        if how != "close":
            process.send_signal(signal.Signals[f"SIG{how}"])
            assert process.wait(30) == 130
        os.close(master)
        assert process.wait(30) == 130
    assert wait(10, pid, there=False)


def test_a_command_under_nohup_is_not_ended_by_a_hangup(pid: Path, tmp_path: Path) -> None:
    command = ["bash", "-c", 'trap "" HUP; exec "$@"', "bash", REAL, "-c", SCRIPT, "pipe", "twins", CHILD.format(pid)]
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        assert wait(30, pid, there=True)
        os.killpg(process.pid, signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        assert running(pid)
        process.terminate()
        assert process.wait(30) == 130
    assert wait(10, pid, there=False)


@pytest.fixture
def untouched() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_DFL) for number in interrupts.NUMBERS}
    # What a command that ran in this process has left.
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGINT])
def test_the_second_signal_does_not_interrupt_the_cleaning_up(first: signal.Signals) -> None:
    cleaned = False
    with interrupts.taken():
        try:
            os.kill(os.getpid(), first)
            time.sleep(5)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned = True
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("untouched")
def test_what_is_ignored_or_handled_is_left_as_it_is() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
    with interrupts.taken():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        with interrupts.taken():
            pass
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, "the outer one's"


@pytest.mark.usefixtures("untouched")
def test_a_forked_worker_ends_as_it_would_by_itself() -> None:
    with interrupts.taken():
        if not (child := os.fork()):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(5)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGHUP
