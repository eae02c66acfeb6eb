"""`twinrun twins` as a careless user calls it: misspelt, twice, on programs that hide what went wrong."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from tests.twins.conftest import Twins

from twinrun.study.lock import hold
from twinrun.twins import running
from twinrun.twins.folders import LOCK
from twinrun.twins.running import own_folder


@pytest.mark.parametrize(
    ("options", "script", "code"),
    [
        ("", "trian.py", 2),
        ("", "fails.py", 3),
        ("--outputs 'uot/*'", "train.py", 2),
        ("--metric m.json:acc", "train.py", 2),
    ],
)
def test_a_misspelt_call_does_not_stand_in_the_way_of_the_right_one(
    run_twins: Twins, options: str, script: str, code: int
) -> None:
    Path("train.py").write_text("open('a', 'w')")
    Path("fails.py").write_text("import no_such_module")
    assert run_twins(f"-n 2 {options}", [sys.executable, script])[0] == code
    assert run_twins("-n 2", [sys.executable, "train.py"])[0] == 0
    assert sorted(path.name for path in Path("twins").iterdir()) == [
        "index.html", "twin_1", "twin_1.log", "twin_2", "twin_2.log", "twins.json",
    ]  # fmt: skip


def test_results_are_not_replaced(run_twins: Twins) -> None:
    Path("train.py").write_text("open('a', 'w')")
    command = [sys.executable, "train.py"]
    assert run_twins("-n 2", command)[0] == 0
    for change in (
        lambda: None,
        lambda: Path("twins/notes").touch(),
        lambda: Path("twins/twins.json").write_text("[]"),
    ):
        change()
        code, said = run_twins("-n 2 --out twins", command)
        assert code == 2
        assert "twins is there already\n  remove it, or give another folder with --out" in said
        assert Path("twins/twin_2/a").exists()
    code, said = run_twins("-n 2", command)
    assert code == 0
    assert "twins_2/index.html\n" in said
    assert not Path("twins_2/twin_1/twins").exists(), "former results are no files of the program's"


def test_a_call_that_runs_nothing_leaves_what_was_there(run_twins: Twins) -> None:
    Path("fails.py").write_text("import no_such_module")
    assert run_twins("-n 2", [sys.executable, "fails.py"])[0] == 3
    before = {path: path.read_bytes() for path in Path("twins").rglob("*") if path.is_file()}
    python = sys.executable
    for options, *command in (
        ("-n 2 --link none", python, "fails.py"), ("-n 2", "no-such-program", "fails.py"), ("-n 2", python, "trian.py")
    ):  # fmt: skip
        assert run_twins(options, command)[0] == 2
        assert {path: path.read_bytes() for path in Path("twins").rglob("*") if path.is_file()} == before != {}
    # Nor is it lost to a call that was killed.
    for aside, pattern in ((".former", "*"), (".former.part", "twins.json")):
        paths = list(Path("twins").glob(pattern))
        Path("twins", aside).mkdir()
        for path in paths:
            path.rename(Path("twins", aside, path.name))
        assert run_twins("-n 2 --link none", [python, "fails.py"])[0] == 2
        assert {path: path.read_bytes() for path in Path("twins").rglob("*") if path.is_file()} == before


def test_a_bad_call_of_another_program_is_kept(run_twins: Twins) -> None:
    Path("train.py").write_text("open('a', 'w')")
    Path("other.py").write_text("open('b', 'w')")
    assert run_twins("-n 2 --outputs none", [sys.executable, "train.py"])[0] == 2
    assert run_twins("-n 2", [sys.executable, "other.py"])[0] == 0
    assert Path("twins/twin_2/a").exists()
    assert Path("twins_2/twin_2/b").exists()


def test_two_calls_at_once_are_told_apart(run_twins: Twins) -> None:
    """Where no folder is named each takes one of its own, and knows nothing of the other's files."""
    Path("train.py").write_text("import os; open('a', 'w').write(str(os.path.exists('twins')))")
    command = [sys.executable, "train.py"]
    with hold(Path("twins") / LOCK, "busy"):
        Path("twins/running").mkdir()
        Path("twins/running/b").touch()
        code, said = run_twins("-n 2 --out twins", command)
        assert code == 5
        assert "twins is being written by another call" in said
        code, said = run_twins("-n 2", command)
    assert code == 0
    assert "twins_2/index.html\n" in said
    assert sorted(path.name for path in Path("twins_2").iterdir()) == [
        "index.html", "twin_1", "twin_1.log", "twin_2", "twin_2.log", "twins.json",
    ]  # fmt: skip
    assert Path("twins_2/twin_1/a").read_text() == "False"


def test_a_folder_in_which_another_call_has_just_ended_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("twins").mkdir()
    Path("twins/index.html").touch()
    seen = iter([True, False, True])  # it was free when it was looked at, and is not once it is held
    monkeypatch.setattr(running, "_replaceable", lambda folder, command: next(seen))
    with own_folder(Path(), None, ["true"]) as folder:
        assert folder == Path("twins_2")
    assert list(Path("twins").iterdir()) == [Path("twins/index.html")]


def test_of_calls_that_start_at_the_same_moment_each_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    together, taken = Barrier(8, timeout=10), list[Path]()

    def call() -> None:
        together.wait()
        with own_folder(Path(), None, ["true"]) as folder:
            taken.append(folder)
            together.wait()

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(call) for _ in range(8)]:
            future.result()
    assert sorted(map(str, taken)) == ["twins", *(f"twins_{number}" for number in range(2, 9))]


HIDDEN = """
import subprocess, sys
code = "import torch_that_is_absent"
subprocess.run([sys.executable, "-c", code])
open("rank_0", "w")
"""


def test_a_rank_that_failed_behind_an_exit_code_0_is_named(run_twins: Twins) -> None:
    Path("train.py").write_text(HIDDEN)
    code, said = run_twins("-n 3", [sys.executable, "train.py"])
    assert code == 0
    assert (
        "twin 1 ended with exit code 0, but printed a traceback (ModuleNotFoundError: No module named "
        "'torch_that_is_absent'): did a rank or worker fail?\nand 2 more twins did so"
    ) in said


def test_a_path_that_leaves_the_copy_is_explained(run_twins: Twins) -> None:
    Path("train.py").write_text("open('../data/x.csv')")
    code, said = run_twins("-n 2", [sys.executable, "train.py"])
    assert code == 3
    assert "it looked for a file above its folder, which is a copy of yours elsewhere: give absolute paths" in said


def test_a_program_above_the_folder_is_found(run_twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("work").mkdir()
    Path("work/train.py").write_text("open('out', 'w').write('1')")
    python = os.path.relpath(sys.executable, "work")
    monkeypatch.chdir("work")
    code, said = run_twins("-n 2", [python, "train.py"])
    assert code == 0, said


def test_many_files_are_counted_and_what_differs_is_shown(run_twins: Twins) -> None:
    script = "import os\nfor n in range(60): open(f'{n:02}', 'w').write(os.urandom(4).hex() if n == 40 else '')"
    Path("train.py").write_text(script)
    code, said = run_twins("-n 2", [sys.executable, "train.py"])
    assert code == 4
    assert "40: twin 1 against twin 2" in said
    assert "and 40 more files with the same bytes in all (twins.json lists them)" in said
    assert len(said.splitlines()) < 32


def test_one_line_of_json_for_scripts(run_twins: Twins, capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.py").write_text("import os; open('a', 'w').write(os.urandom(4).hex())")
    code, said = run_twins("-n 2 --json", [sys.executable, "train.py"])
    line = next(json.loads(line) for line in said.splitlines() if line.startswith("{"))
    assert code == line["exit_code"] == 4
    assert (line["verdict"], line["first"], line["twins"], line["finished"]) == ("different", "a", 2, 2)
    assert (line["arm"], line["compared"], line["folder"]) == ("det", 2, "twins")
    assert line["said"] == "different, first in a"


def test_a_program_that_writes_elsewhere_is_not_called_identical_in_silence(run_twins: Twins) -> None:
    Path("train.py").write_text("import os; os.chdir('/'); print('acc 0.5')")
    code, said = run_twins("-n 2", [sys.executable, "train.py"])
    assert code == 0
    assert "no file was written into the folders that the twins ran in: only what they printed was compared" in said


def test_a_program_that_leaves_nothing_has_no_verdict(run_twins: Twins) -> None:
    code, said = run_twins("-n 2", ["true"])
    assert code == 2
    assert "nothing to compare: the twins wrote no file into their folder and printed nothing" in said


def test_a_program_that_needs_a_terminal_says_so(run_twins: Twins) -> None:
    Path("train.py").write_text("input('which data? ')")
    code, said = run_twins("-n 2", [sys.executable, "train.py"])
    assert code == 3
    assert "EOFError: EOF when reading a line" in said
