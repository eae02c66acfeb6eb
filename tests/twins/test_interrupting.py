"""`twinrun twins --interrupt`: exact resumes, what others forget, and programs that nobody can interrupt or resume."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY
from tests.twins.conftest import Twins, warm

from twinrun.twins import interrupting

EXAMPLE = (REPOSITORY / "examples" / "resumable.py").read_text()


@pytest.fixture
def interrupted(run_twins: Twins) -> Twins:
    """Two uninterrupted twins of the example and one that is stopped in the middle of an epoch."""
    Path("train.py").write_text(EXAMPLE)

    def run(forgets: str, options: str = "-n 3 --interrupt 'log:middle of epoch 2'") -> tuple[int, str]:
        return run_twins(f"--arm nd {options}", warm("train.py", *forgets.split()))

    return run


@pytest.mark.parametrize(
    ("forgets", "named"),
    [
        ("optimizer", "optimizer or weights, each of which makes the other differ; equal: data position, generator, d"),
        ("generator", "generator, which was not restored or was drawn from another number of times; and so does what"),
        ("position", "data position; and so does what follows from it: generator, data order, optimizer, weights"),
        (
            "generator file",
            "weights; equal: data position, scheduler; what is compared holds no state of: g",
        ),
    ],
)
def test_what_a_resume_forgets_is_named(interrupted: Twins, forgets: str, named: str) -> None:
    code, said = interrupted(forgets)
    assert code == 4, said
    assert "verdict: the resume is not exact, first in final.pt" in said
    assert re.search(f"the first to differ: .*{re.escape(named)}", said), said
    assert "the seed is only offered" not in said
    assert "finished, stopped by SIGTERM after" in Path("twins/index.html").read_text()


SIMPLE = """
import os, signal, sys, time
word, again = sys.argv[1], os.path.exists("state")
if word == "ignores": signal.signal(signal.SIGTERM, signal.SIG_IGN)
if word == "refuses" and os.path.exists("state"): sys.exit("there is an old state")
if word in ("resumes", "reads") and again: open("state").read()
if word == "resumes" and "again" in sys.argv: open("how", "w").write("again")
if word == "late": print("no state yet", flush=True)
if word == "late": time.sleep(1)
open("state", "w").write("1")
print("begun", flush=True)
for _ in range(0 if word in ("short", "late") else 30): time.sleep(0.02)
for _ in range(30 if word == "reads" and again else 0): sum(range(1_000_000))
open("result", "w").write(word if word != "unequal" else os.urandom(4).hex())
"""


@pytest.mark.parametrize(
    ("word", "options", "code", "named"),
    [
        ("short", "--interrupt 30", 3, " s, before the 30 s: nothing to resume"),
        ("late", "--interrupt 'log:no state yet'", 3, "it had written nothing when it was stopped by SIGTERM"),
        ("anew", "--interrupt log:begun", 3, "its second start read nothing of what the first had left (state): it be"),
        (
            "refuses",
            "--interrupt log:begun",
            3,
            "its second start: exit code 1; it said last:\n    begun\n    there is",
        ),
        ("ignores", "--interrupt log:begun", 3, "it had already written all that an uninterrupted twin writes"),
        ("unequal", "--interrupt log:begun", 4, "different without any interrupt, first in result"),
        ("resumes", "--interrupt log:begun --signal kill", 0, "stopped by SIGKILL after"),
        ("resumes", "--interrupt log:begun --resume './no-such'", 3, "--resume ./no-such: cannot be started"),
    ],
)
def test_programs_that_cannot_be_judged(run_twins: Twins, word: str, options: str, code: int, named: str) -> None:
    Path("train.py").write_text(SIMPLE)
    given, said = run_twins(f"-n 3 {options}", [sys.executable, "train.py", word])
    assert named in said
    assert given == code


def test_what_a_second_start_cost_stands_beside_what_a_whole_twin_did(run_twins: Twins) -> None:
    Path("train.py").write_text(SIMPLE)
    code, said = run_twins("-n 3 --interrupt log:begun", [sys.executable, "train.py", "reads"])
    assert code == 0
    match = re.search(r"went on from state for (\d\.\d) s of processor time \(a whole twin: (\d\.\d) s\)", said)
    assert match, said
    assert float(match[1]) > 2 * float(match[2])  # it read its state and began anew, and longer


def test_a_second_command_goes_on(run_twins: Twins) -> None:
    Path("train.py").write_text(SIMPLE)
    resume = f"--resume '{sys.executable} train.py resumes again'"
    code, said = run_twins(f"-n 3 --interrupt log:begun {resume}", [sys.executable, "train.py", "resumes"])
    assert code == 0
    assert "not compared, as only interrupted twins wrote it: how" in said


def test_who_ignores_the_signal_is_killed_in_the_end(run_twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupting, "STOP_SECONDS", 0.05)
    Path("train.py").write_text(SIMPLE)
    _, said = run_twins("-n 3 --interrupt log:begun", [sys.executable, "train.py", "ignores"])
    assert "stopped by SIGTERM after" in said
    assert "which it ignored for 0.05 s, so by SIGKILL" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--interrupt soon", "--interrupt 'soon' is no moment\n  give random, seconds such as 20, or 'log:TEXT'"),
        ("--interrupt 0", "--interrupt '0' is no moment"),
        ("--interrupt log:", "--interrupt 'log:' is no moment"),
        ("--interrupt 5 --signal TURN", "--signal TURN: no signal of this system\n  such as TERM, INT, USR1 or KILL"),
        ("--interrupt 5 --resume ''", "an empty word after --resume"),
        ('--interrupt 5 --resume "\'"', "no command (No closing quotation)"),
        ("--interrupt 5 --log", "--interrupt with --log"),
        ("--interrupt 5 --arm all", "--interrupt with --arm all"),
        ("--interrupt 5 -n 2", "--interrupt with -n 2\n  two twins stay uninterrupted: give 3 or more"),
        ("--signal INT", "--signal without --interrupt"),
        ("--resume true", "--resume without --interrupt"),
    ],
)
def test_calls_that_make_no_sense(run_twins: Twins, options: str, said: str) -> None:
    code, printed = run_twins(options, ["true"])
    assert code == 2
    assert said in printed
    assert not Path("twins").exists()
