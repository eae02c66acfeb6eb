"""Progress is told, never relied on: nobody need listen."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.warm.start import REAL

from twinrun.cli.app import main
from twinrun.launch import progress

COUNTING = (
    "import sys; from twinrun.launch.progress import Progress\n"
    "with Progress('work', 3) as bar:\n"
    "    for n in range(3): bar.advance('step'); bar.update(n + 1, 3)\n"
    "open(sys.argv[1], 'w').write('done')\n"
)


@pytest.mark.parametrize("stderr", ["/dev/full", "closed", "gone"])
def test_the_work_goes_on_where_nobody_listens(stderr: str, tmp_path: Path) -> None:
    command = [REAL, "-c", COUNTING, str(tmp_path / "result")]
    if stderr == "closed":
        command = ["sh", "-c", '"$@" 2>&-', "sh", *command]
    elif stderr == "gone":
        command = ["bash", "-c", '"$@" 2> >(exec 0<&-; true)', "sh", *command]
    with Path("/dev/full" if stderr == "/dev/full" else "/dev/null").open("w") as stream:
        done = subprocess.run(command, stderr=stream, check=False)
    assert done.returncode == 0
    assert (tmp_path / "result").read_text() == "done"


def test_a_closed_pipe_of_the_answer_ends_quietly() -> None:
    """Whether it is the command's own words that find it closed, or those at its end."""
    for word in ("--help", "--version"):
        script = f"exec 3> >(exec 0<&-); sleep 0.05; {REAL} -c 'from twinrun.cli import main; main()' {word} >&3"
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (141, ""), word


def test_output_that_is_closed_is_dropped(tmp_path: Path) -> None:
    """And no file that the command opens gets its number, nor one that a child of it opens."""
    child = "bash -c 'exec 3>>file; test -e /proc/self/fd/1 && test -e /proc/self/fd/2 && echo open >&3'"
    code = f"app.app = lambda: print(open(sys.argv[1], 'w').fileno()) or os.system({child!r})"
    code = f"import os; from twinrun.cli import app; {code}; app.main()"
    command = [REAL, "-c", f"import sys; {code}", str(tmp_path / "file")]
    done = subprocess.run(["bash", "-c", '"$@" <&- >&- 2>&-', "bash", *command], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "open\n"


@pytest.mark.parametrize(("command", "part"), [("audit", ""), ("audit", "1"), ("probe", "")])
def test_a_long_silence_is_broken(
    command: str, part: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a command that a user gave; not of the processes of another, which speaks for them."""
    said: list[str] = []

    def work() -> None:
        end = time.monotonic() + (0.05 if part or command == "probe" else 30)
        while not any(said) and time.monotonic() < end:
            time.sleep(0.01)
            said.append(capfd.readouterr().err)

    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.001)
    monkeypatch.setattr("twinrun.cli.app.app", work)
    monkeypatch.setattr(sys, "argv", ["twinrun", command])
    monkeypatch.setenv(progress.PART, part)
    main()
    watched = not part and command == "audit"
    assert bool(re.match(r"twinrun audit: at work for 0 s\n", "".join(said))) == watched, said


def test_a_moving_bar_is_sign_enough(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.001)
    beating = progress.Heartbeat("twinrun twins")
    progress._state["shown"] += 1
    with beating:
        time.sleep(0.05)
        assert capfd.readouterr().err == ""
        progress._state["shown"] -= 1
        while not (said := capfd.readouterr().err):
            time.sleep(0.01)
    assert said.startswith("twinrun twins: at work for 0 s\n")
