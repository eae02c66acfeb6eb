"""The warm interpreter does what the real one does; where it cannot, the real one is started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.test_cli import isolated
from tests.warm.start import REAL

from twinrun.study.files import read_json
from twinrun.study.layout import COMPUTED_FILES, Layout
from twinrun.study.params import Params

RUN = "shapes/sgd/0/det_1"
# As a caller's own package `twinrun`: it says who runs it, from where, with what, and ends as it is told to.
SPY = """
import json, os, signal, sys, time
facts = {"argv": sys.argv[1:], "folder": os.getcwd(), "mark": os.environ.get("MARK"), "torch": "torch" in sys.modules}
facts |= {"executable": sys.executable, "read": sys.stdin.read() if "read" in sys.argv else ""}
print(json.dumps(facts), flush=True)
print("a fault", file=sys.stderr)
word = sys.argv[1] if len(sys.argv) > 1 else ""
if word == "wait":
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))
    print("ready", flush=True)
    time.sleep(60)
if word == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if word == "raise":
    raise ValueError("unforeseen")
sys.exit({"": None, "three": 3, "words": "a sentence"}.get(word, 0))
"""


@pytest.fixture
def spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package `twinrun` that shadows ours."""
    package = tmp_path / "shadow" / "twinrun"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(SPY)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return tmp_path


def both(*words: str, **options: object) -> list[subprocess.CompletedProcess[str]]:
    """The same command by the warm interpreter and by the real one."""
    return [
        subprocess.run([program, "-m", "twinrun", *words], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
        for program in (sys.executable, REAL)
    ]


def facts(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    return json.loads(done.stdout.splitlines()[0])  # type: ignore[no-any-return]


@pytest.mark.parametrize(("word", "code"), [("", 0), ("three", 3), ("words", 1), ("raise", 1), ("kill", -9)])
def test_a_process_ends_as_a_real_one(word: str, code: int, spy: Path) -> None:
    warm, real = both(*word.split(), cwd=spy, env=os.environ | {"MARK": "1"})
    assert (warm.returncode, real.returncode) == (code, code)
    assert warm.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]
    assert ("Traceback" in warm.stderr) == ("Traceback" in real.stderr) == (word == "raise")
    theirs, ours = facts(warm), facts(real)
    assert (theirs.pop("torch"), ours.pop("torch")) == (True, False), "it is warm"
    assert theirs.pop("executable") == sys.executable
    assert ours.pop("executable") == REAL
    assert theirs == ours == {"argv": word.split(), "folder": str(spy), "mark": "1", "read": ""}


def test_it_reads_what_it_is_given(spy: Path) -> None:
    warm, real = both("read", input="some words")
    assert facts(warm)["read"] == facts(real)["read"] == "some words"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 7), (signal.SIGTERM, -15), (signal.SIGINT, -2)])
def test_a_signal_reaches_it(number: signal.Signals, code: int, spy: Path) -> None:
    for program in (sys.executable, REAL):
        process = subprocess.Popen(
            [program, "-m", "twinrun", "wait"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout
        process.stdout.readline()
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == code


def test_it_does_not_outlive_the_one_that_stands_for_it(spy: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "twinrun", "wait"], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    process.stdout.readline()
    process.kill()
    deadline = time.monotonic() + 30
    while process.stdout.readline() and time.monotonic() < deadline:
        pass  # the pipe ends when nobody holds it any more
    assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "changed", [{"OMP_NUM_THREADS": "2"}, {"NVIDIA_TF32_OVERRIDE": "0"}, {"PYTHONHASHSEED": "5"}, {"LANG": "C"}]
)
def test_other_variables_than_those_of_its_start_need_a_real_process(changed: dict[str, str], spy: Path) -> None:
    done = both(env=os.environ | changed)[0]
    assert facts(done)["torch"] is False


def test_other_mounts_need_a_real_process(spy: Path) -> None:
    done = isolated(spy, f"exec {sys.executable} -m twinrun")
    assert facts(done)["torch"] is False


def test_all_that_is_not_ours_is_the_real_interpreter(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import sys; print(sys.executable)")
    for words in (["-c", "import sys; print(sys.executable)"], ["own.py"]):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
        assert done.stdout == f"{REAL}\n"


def test_a_line_with_torch_and_a_benchmark_are_warm(tmp_path: Path) -> None:
    code = "import torch; import sys; print('pandas' in sys.modules, sys.argv, __name__)"
    script = tmp_path / "benchmarks" / "own.py"
    script.parent.mkdir()
    script.write_text(code + "; print(__file__)")
    for words, name, rest in ((["-c", code], "-c", ""), ([str(script)], str(script), f"{script}\n")):
        for program, pandas in ((sys.executable, True), (REAL, False)):
            done = subprocess.run([program, *words, "a", "b"], stdout=subprocess.PIPE, text=True, check=True)
            assert done.stdout == f"{pandas} {[name, 'a', 'b']} __main__\n{rest}"


@pytest.mark.slow
def test_a_run_is_the_same_to_the_last_byte(params: Params, study: Layout) -> None:
    run = params.find(RUN)
    for program, out in ((sys.executable, "warm"), (REAL, "real")):
        subprocess.run([program, "-m", "twinrun", "train", RUN, "--out", out], cwd=study.root, check=True)
    for name in COMPUTED_FILES:
        assert (study.root / "warm" / run.id / name).read_bytes() == (study.root / "real" / run.id / name).read_bytes()
    measured = [read_json(study.root / out / run.id / "measured.json") for out in ("warm", "real")]
    for kind in ("environment", "versions"):
        assert measured[0][kind] == measured[1][kind]
