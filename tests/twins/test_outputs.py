"""`twinrun twins` with what trainers really write: dated folders, logs, JSON lines, numpy scalars; and with daemons."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.twins.conftest import Twins

from twinrun.study.errors import InputError
from twinrun.twins.comparing import flip_lowest_bit, plant, swap_two
from twinrun.twins.contents import read_contents
from twinrun.twins.metrics import read_metric
from twinrun.twins.nested import differences
from twinrun.twins.processes import CACHES
from twinrun.twins.reporting import differing_below
from twinrun.twins.running import Twin


@pytest.fixture
def twins(run_twins: Twins, monkeypatch: pytest.MonkeyPatch) -> Twins:
    """Runs two twins of a script, in a folder of its own; the exit code and what was printed."""
    for name in ("PYTHONHASHSEED", *CACHES):  # importing torch sets some
        monkeypatch.delenv(name, raising=False)

    def run(script: str, options: str = "", count: int = 2) -> tuple[int, str]:
        Path("train.py").write_text(script)
        return run_twins(f"-n {count} {options}", [sys.executable, "train.py"])

    return run


DATED = """
import os, pathlib, time
out = pathlib.Path(time.strftime("outputs/%Y-%m-%d"), str(time.time_ns())); out.mkdir(parents=True)
(out / "a.txt").write_text("same"); (out / "b.txt").write_text(os.urandom(4).hex())
"""


def test_files_in_dated_folders_are_compared_with_each_other(twins: Twins) -> None:
    code, said = twins(DATED, "--outputs 'outputs/*/*/*.txt'")
    assert code == 4
    assert "outputs/*-*-*/*/a.txt: the same bytes in all 2" in said
    assert "outputs/*-*-*/*/b.txt: twin 1 against twin 2" in said
    assert "not written by" not in said


def test_the_one_match_of_a_pattern_in_each_twin_is_compared_whatever_its_name(twins: Twins) -> None:
    script = "import random; open(''.join(random.choices('abcdefgh', k=20)) + '.txt', 'w').write('x')"
    code, said = twins(script, "--outputs '*.txt'")
    assert code == 0
    assert "*.txt: the same bytes in all 2" in said


def test_without_a_choice_everything_that_was_written_and_printed_is_compared(twins: Twins) -> None:
    code, said = twins("import os; open('a', 'w').write('x'); print('fixed'); print(os.urandom(4).hex())")
    assert code == 4
    assert "a: the same bytes in all 2" in said
    assert "what it printed: twin 1 against twin 2: 1 of 2 entries differ, the first is ['line 2']" in said
    assert twins("print('acc 0.5')", "--out again --metric log:acc --no-log")[0] == 0


CLOCKS = """
import json, os, time
print(f"W1128 14:09:0{time.time_ns() % 10}.773000 {os.getpid()} torch/run.py:851] begun, {time.time_ns() % 999} ms")
print({"train_runtime": str(time.time()), "train_steps_per_second": time.time(), "loss": 0.5})  # as Trainer does
json.dump({"acc": 0.5, "train_runtime": time.time()}, open("state.json", "w"))
if "loss" in os.environ: print("epoch 1 loss", os.urandom(2).hex())
"""


def test_clocks_in_what_a_program_prints_and_writes_are_told(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    _, said = twins(CLOCKS)
    assert (
        "what it printed: the same contents in all 2; they differ in dates, times, durations and speeds alone" in said
    )
    assert "1 of 2 entries differ, the first is a clock: ['train_runtime']: " in said
    assert "--metric FILE:KEY or --outputs compares what is no clock" in said
    monkeypatch.setenv("loss", "1")
    assert "what it printed: twin 1 against twin 2: 3 of 3 entries differ" in twins(CLOCKS, "--out again")[1]


def test_the_environment_of_nd_is_left_as_it_is(twins: Twins) -> None:
    script = "open('a', 'w').write(str(list({'crack', 'spall', 'rust', 'clean', 'stain', 'spot'})))"
    code, said = twins(script, "--arm nd", count=5)  # the same order five times: once in 720^4
    assert code == 4
    assert "arm nd (the same seed, the environment as it is)" in said
    code, said = twins(script, "--arm det --out pinned")
    assert code == 0
    assert "det pins the hash seed, threads and instruction set, arm nd runs in your own environment" in said


def test_a_seed_that_changes_nothing_is_a_finding(twins: Twins) -> None:
    code, said = twins("open('a', 'w').write('x')", "--arm all")
    assert code == 4
    assert "verdict: the seed changes nothing" in said
    assert "does the program use it?" in said
    code, said = twins("import os; print(os.environ['TWINRUN_SEED'], 'acc 0.9')", "--arm all --metric log:acc --out b")
    assert code == 4
    assert "verdict: every metric is the same in spite of different seeds, which may be chance" in said
    assert "the seed changes nothing" not in said


def test_what_identical_twins_can_bear() -> None:
    for n in (2, 5, 30):
        assert (1 - differing_below(n)) ** (n - 1) == pytest.approx(0.05)


def test_the_self_test_sees_what_is_planted(twins: Twins) -> None:
    script = "import numpy as np; np.save('w.npy', np.arange(6, dtype=np.float32)); open('one', 'w').write('x')"
    code, said = twins(script, "--self-test")
    assert code == 0
    assert "self-test: one changed bit seen in 2 of 2 files" in said
    assert "self-test: two swapped elements seen in 1 of 1 files" in said  # a file of one byte has no two


def test_planted_differences() -> None:
    weights = {"w": np.float32([1, 1, 2]), "n": 3}
    changed, swapped = plant(weights, flip_lowest_bit), plant(weights, swap_two)
    assert [place.ulps for place in differences(weights, changed)] == [1]
    assert "2 of 3 elements differ" in str(next(differences(weights, swapped)))
    assert plant({"n": 3, "t": "text"}, flip_lowest_bit) is None
    assert plant({"w": np.float32([1, 1])}, swap_two) is None


def test_every_second_twin_runs_under_load(twins: Twins) -> None:
    twins("print('x')", "--load", count=3)
    result = json.loads(Path("twins/twins.json").read_text())
    assert [twin["loaded"] for twin in result["twins"]] == [False, True, False]


def test_each_twin_compiles_for_itself(twins: Twins) -> None:
    script = "import os; print(os.environ.get('TORCHINDUCTOR_CACHE_DIR'))"
    assert twins(script)[0] == 0  # the same path for all, as every other, but empty at the start
    assert Path("twins/twin_1.log").read_text().strip() == str(Path("twins/caches/torchinductor_cache_dir").resolve())
    assert not Path("twins/caches").exists()
    twins(script, "--share-caches --out shared")
    assert Path("shared/twin_1.log").read_text().strip() == "None"


DAEMON = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
open("pid", "w").write(str(child.pid))
"""


NAMELESS = """
import os
os.mkdir(b"d\\xe9")
open(b"d\\xe9/x\\x1b[2J.csv", "w").write(os.urandom(4).hex())
"""


def test_names_of_outputs_need_not_be_text(twins: Twins, tmp_path: Path) -> None:
    code, said = twins(NAMELESS, "--out results")
    assert code == 4, said
    assert "d?/x?[2J.csv: " in said
    assert "d?/x?[2J.csv" in (tmp_path / "results" / "index.html").read_text()


def test_a_daemon_in_a_session_of_its_own_is_ended_and_named(twins: Twins) -> None:
    _, said = twins(DAEMON, "--metric log:none")
    pid = int(Path("twins/twin_1/pid").read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert f"(process {pid})" in said
    assert "twin 1 left running, now ended: " in said


def test_a_twin_that_removes_its_folder_fails_alone(twins: Twins) -> None:
    script = "import os, shutil\nif os.environ['TWINRUN_SEED'] == '0': shutil.rmtree(os.getcwd())\nelse: open('a', 'w')"
    code, said = twins(script)
    assert code == 3
    assert "twin 1: it removed the folder that it ran in" in said
    assert "Traceback" not in said


@pytest.fixture
def twin(tmp_path: Path) -> Twin:
    """A twin that wrote what trainers write."""
    folder = tmp_path / "twin_1"
    (folder / "logs" / "version_0").mkdir(parents=True)
    table = "\ufeffepoch, val_acc ,loss\n0,0.5,\n0,,0.9\n1, 0.75 ,\n1,,0.8\n"
    (folder / "logs/version_0/metrics.csv").write_text(table)
    lines = [json.dumps({"step": step, "acc": step / 10}) for step in range(3)]
    (folder / "log.jsonl").write_text("\n".join([*lines, '{"done": true}']) + "\n")
    (folder / "metrics.json").write_text("\n".join(lines))  # JSON lines, whatever the suffix
    (folder / "state.json").write_text(json.dumps({"history": [{"eval": 0.5}, {"eval": 0.6}, {"time": 3}]}))
    (tmp_path / "twin_1.log").write_text(
        "12s 3ms/step\nacc 0.1\nval_acc: 0.3 acc = 9e-1\nspeed 1\nacc is good\n" + "x" * 9999
    )
    return Twin(1, 0, folder, 0, 1.0, "")


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ("logs/version_0/metrics.csv:val_acc", 0.75),
        ("logs/*/metrics.csv:loss", 0.8),
        ("log.jsonl:acc", 0.2),
        ("metrics.json:acc", 0.2),
        ("state.json:history.eval", 0.6),
        ("state.json:history.0.eval", 0.5),
        ("state.json:history.-1.time", 3.0),
        ("log:acc", 0.9),
        ("log:val_acc", 0.3),
    ],
)
def test_metrics_as_trainers_write_them(twin: Twin, wanted: str, value: float) -> None:
    assert read_metric(twin, wanted) == value


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("logs/*/metrics.csv:top1", "no column 'top1'\n  columns: epoch, val_acc, loss"),
        ("*.json:acc", r"matches 2 files\n  narrow it down: metrics.json, state.json"),
        ("nothing.json:acc", "was not written\n  it wrote: log.jsonl, "),
        ("state.json:history.9.eval", "no entry 9 in state.json\n  the list has 3 entries"),
        ("state.json:history.acc", "no entry of the list in state.json has the key 'acc'"),
        ("log:top1", r"printed no number after 'top1'\n  it did after: acc, val_acc, speed"),
        ("metrics.json:lr", "no key 'lr' in metrics.json"),
    ],
)
def test_metrics_that_are_not_there(twin: Twin, wanted: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_metric(twin, wanted)
    assert said.replace("\\n", "\n") in str(caught.value)


def test_a_checkpoint_with_a_numpy_number_is_read_as_values(tmp_path: Path) -> None:
    import torch

    content = {"model": {"w": torch.ones(2)}, "best": np.float64(0.5), "count": np.int64(3)}
    torch.save(content, tmp_path / "a.pth")
    found, how = read_contents(tmp_path / "a.pth")
    assert how == "torch file (weights_only=True)"
    assert not list(differences(found, content))
    torch.save({"best": np.array([1, object()], dtype=object)}, tmp_path / "b.pth")
    assert read_contents(tmp_path / "b.pth")[1].startswith("bytes, not readable as torch file")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ("--outputs '**.pt'", 2, "--outputs '**.pt': no pattern of files"),
        ("--outputs ''", 2, "an empty word after --outputs"),
        ("--metric '**.json:a'", 2, "--metric '**.json:a': no pattern of files"),
        ("--no-log", 2, "nothing to compare: the twins wrote no file"),
    ],
)
def test_calls_that_compare_nothing_are_refused(twins: Twins, options: str, code: int, said: str) -> None:
    assert twins("pass", options)[0] == code
    assert said in twins("pass", f"{options} --out again")[1]


def test_a_self_test_passes_over_what_has_no_bits(twins: Twins) -> None:
    script = "import torch; torch.save({'dtype': torch.float32, 'w': torch.ones(2)}, 'a.pt')"
    code, said = twins(script, "--self-test")
    assert code == 0
    assert "self-test: one changed bit seen in 0 of 0 files" in said


def test_an_order_that_follows_the_file_system_is_named(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:  # lists the newest first, whatever the names are
        monkeypatch.chdir(name)
        Path("data").mkdir()
        for label in "abc":
            (Path("data") / label).write_text(label)
        code, said = twins("import os; open('out.txt', 'w').write(str(os.listdir('data')))")
        assert code == 4
        assert "the file system lists its folder, data in another order for twin 2: does the program sort" in said
        code, said = twins("import os; open('out.txt', 'w').write(str(sorted(os.listdir('data'))))", "--out again")
        assert code == 0
        assert "lists" not in said
        monkeypatch.undo()
