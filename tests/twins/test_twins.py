"""`twinrun twins`: identical and different twins, and every way in which a user's program can fail."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY
from tests.twins.conftest import Arguments

from twinrun.cli.app import main
from twinrun.study.errors import InputError
from twinrun.study.pins import NCCL, PINNED
from twinrun.twins import folders
from twinrun.twins.arms import environment, seeds

SCRIPT = """
import json, os, pathlib, random, sys
rng = random.Random(int(os.environ["TWINRUN_SEED"]) if "seeded" in sys.argv else None)
pathlib.Path("out").mkdir()
pathlib.Path("out/metrics.json").write_text(json.dumps({"accuracy": rng.random(), "list": [1, 2]}))
pathlib.Path("out/log.txt").write_text(os.getcwd() + pathlib.Path("data/x.txt").read_text())
"""
# The warm interpreter takes it for a program of ours.
WARM = "import torch; import runpy; runpy.run_path('train.py', run_name='__main__')"
EXAMPLES = ["plain_pytorch.py", "with_lightning.py"]
METRIC = ("--metric", "out/metrics.json:accuracy")


@pytest.fixture
def twins(call_twins: Arguments, tmp_path: Path) -> Arguments:
    """Runs `twinrun twins ARGS -- python train.py WORDS` in a folder with a script and data."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.txt").write_text("x")
    (tmp_path / "train.py").write_text(SCRIPT)

    def run(
        *options: str, script: str | None = None, words: str = "", count: int = 2, warm: bool = False
    ) -> tuple[int, str, str]:
        if script is not None:
            Path("train.py").write_text(script)
        command = [sys.executable, *(["-c", WARM] if warm else ["train.py"]), *shlex.split(words)]
        shutil.rmtree("twins", ignore_errors=True)
        return call_twins("-n", str(count), *options, "--", *command)

    return run


def result() -> dict[str, object]:
    found: dict[str, object] = json.loads(Path("twins/twins.json").read_text())
    return found


def alive(pid: Path) -> bool:
    """Whether the process with the number in the file runs; one that ended and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid.read_text()}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_seeded_program_has_identical_twins(twins: Arguments) -> None:
    code, out, _ = twins("--outputs", "out/*", *METRIC, words="seeded", count=3)
    assert code == 0
    assert "verdict: identical: 2 outputs with the same contents in all" in out
    assert "out/log.txt: the same bytes in all 3" in out  # although it holds the path it ran in
    assert "SD 0, the same in all, n = 3" in out
    page = Path("twins/index.html").read_text()
    assert "3 twins: identical" in page
    assert "http" not in page
    assert result()["verdict"] == "identical"
    kept = sorted(str(p.relative_to("twins")) for p in Path("twins/twin_2").rglob("*"))
    assert kept == ["twin_2/out", "twin_2/out/log.txt", "twin_2/out/metrics.json"]  # what it wrote, no copies


def test_an_unseeded_program_is_told_what_differs_first(twins: Arguments) -> None:
    code, out, _ = twins("--outputs", "out/*.json", *METRIC)
    assert code == 4
    assert "out/metrics.json: twin 1 against twin 2: 1 of 3 entries differ, the first is ['accuracy']: 0." in out
    assert "verdict: different, first in out/metrics.json" in out
    assert "(95 % from" in out
    seed = "the seed is only offered, in the variable TWINRUN_SEED"
    assert seed in out
    assert "if the program uses PyTorch: twinrun locate -- " in out
    assert seed in Path("twins/index.html").read_text()
    assert seed not in twins("--arm", "nd", *METRIC)[1]
    assert seed not in twins(*METRIC, words="seeded")[1]


def test_an_interrupt_names_the_folder_that_is_left(twins: Arguments) -> None:
    Path("train.py").write_text("import os, time; open('started', 'w'); time.sleep(60 * ('done' in os.environ))")
    command = [sys.executable, "-m", "twinrun", "twins", "--out", "mine", "--", sys.executable, "train.py"]
    for options, running in (({"done": ""}, "mine/running/started"), ({}, "mine/twin_1")):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | options)
        deadline = time.monotonic() + 60
        while not Path(running).exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 130
        kept = "the twins so far are in mine\n" in said
        assert kept == (not options)  # what no twin has finished is no reason to refuse the same command
        assert said.endswith("twinrun: interrupted\n")


def test_the_arm_all_gives_each_twin_its_seed(twins: Arguments) -> None:
    code, out, _ = twins("--arm", "all", *METRIC, words="seeded")
    assert ": mean " in out.splitlines()[0], "the metric first"
    assert code == 4
    used = [twin["seed"] for twin in result()["twins"]]  # type: ignore[attr-defined]
    assert len(set(used)) == 2
    assert twins("--arm", "nd", "--seed", "7", *METRIC, words="seeded")[0] == 0
    assert [twin["seed"] for twin in result()["twins"]] == [7, 7]  # type: ignore[attr-defined]


def test_what_each_arm_sets() -> None:
    base = {"PATH": "/bin", "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "8", "NVIDIA_TF32_OVERRIDE": "1"}
    det = environment("det", 5, base)
    assert det.items() >= {"TWINRUN_SEED": "5", "TWINRUN_ARM": "det", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}.items()
    foreign = {"PYTHONNOUSERSITE", "PYTHONSAFEPATH"}
    assert all(det[name] == value for name, value in PINNED.items() if name not in foreign)
    assert "NVIDIA_TF32_OVERRIDE" not in det
    assert det.items() >= NCCL.items()
    assert environment("det", 5, {"NCCL_ALGO": "Tree"})["NCCL_ALGO"] == "Tree"
    assert det["PYTHONSAFEPATH"] == "1"  # the user's own
    assert "PYTHONSAFEPATH" not in environment("det", 5, {})
    assert environment("nd", 5, base) == base | {"TWINRUN_SEED": "5", "TWINRUN_ARM": "nd"}
    assert environment("all", 6, base) == base | {"TWINRUN_SEED": "6", "TWINRUN_ARM": "all"}
    assert len(set(seeds("all", 0, 50))) == 50
    with pytest.raises(InputError, match="--arm shuffle is not known"):
        seeds("shuffle", 0, 2)


def test_one_twin_that_fails_is_named_and_the_others_are_kept(twins: Arguments) -> None:
    script = SCRIPT + (
        "mark = pathlib.Path(os.environ['MARK'])\n"
        "count = int(mark.read_text()) if mark.exists() else 0\n"
        "mark.write_text(str(count + 1))\n"
        "print('epoch 1')\n"
        "if count == 1: raise ValueError('the loss is nan')\n"
    )
    mark = Path("../mark").resolve()
    os.environ["MARK"] = str(mark)
    try:
        code, out, _ = twins("--outputs", "out/*", *METRIC, script=script, words="seeded", count=3)
    finally:
        del os.environ["MARK"]
        mark.unlink(missing_ok=True)
    assert code == 3
    assert "twin 2: exit code 1; it said last:" in out
    assert "ValueError: the loss is nan" in out
    assert "out/metrics.json: the same bytes in all 2" in out
    assert "incomplete: 2 of 3 twins count" in out
    assert "epoch 1" in Path("twins/twin_2.log").read_text()


def test_a_program_that_hangs_is_stopped_with_its_children(twins: Arguments) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('pid', 'w').write(str(child.pid)); print('training', flush=True); time.sleep(60)\n"
    )
    begin = time.monotonic()
    code, out, _ = twins("--seconds", "1", "--outputs", "pid", script=script)
    assert time.monotonic() - begin < 30
    assert code == 3
    assert "twin 1: stopped after the limit of 1 seconds, with all of its processes; it said last:\n    training" in out
    for number in (1, 2):
        assert not alive(Path(f"twins/twin_{number}/pid"))


def test_a_process_that_is_left_behind_is_stopped(twins: Arguments) -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('pid', 'w').write('1'); open('real', 'w').write(str(child.pid))\n"
    )
    assert twins("--outputs", "pid", script=script)[0] == 0
    assert not alive(Path("twins/twin_1/real"))


def test_a_signal_without_a_name_is_a_number(twins: Arguments) -> None:
    code, out, _ = twins("--outputs", "a", script="import os; os.kill(os.getpid(), 40)")
    assert code == 3
    assert "twin 1: ended by signal 40" in out


def test_a_program_that_writes_nothing(twins: Arguments) -> None:
    code, out, _ = twins("--outputs", "out/*", script="print('done')")
    assert code == 2
    assert "--outputs 'out/*' matches nothing that the twins wrote\n  they wrote no file at all" in out


def test_a_pattern_that_matches_nothing_names_what_there_is(twins: Arguments) -> None:
    code, out, _ = twins("--outputs", "out/*.pt", words="seeded")
    assert code == 2
    assert "they wrote: out/log.txt, out/metrics.json" in out


def test_a_metric_that_is_not_there(twins: Arguments) -> None:
    code, out, _ = twins("--metric", "out/metrics.json:acc", words="seeded")
    assert code == 2
    assert "twin 1: --metric 'out/metrics.json:acc': no key 'acc' in metrics.json\n  there is: accuracy, list" in out
    code, out, _ = twins("--metric", "out/metrics.json:list", words="seeded")
    assert code == 2
    assert "[1, 2] is no finite number" in out


@pytest.mark.parametrize("where", ["data/x.txt", "new.txt"])
def test_a_program_that_writes_into_the_users_folder_is_noticed(twins: Arguments, where: str) -> None:
    script = f"open({str(Path(where).resolve())!r}, 'a').write('more'); open('a', 'w').write('a')"
    code, out, _ = twins("--outputs", "a", script=script)
    assert code == 2
    assert f"twin 1: wrote outside of its folder, into {Path.cwd()}: {where}" in out
    assert "a: the same bytes in all 2" in out


def test_a_linked_folder_is_watched(twins: Arguments) -> None:
    script = "open('data/x.txt', 'a').write('more'); open('a', 'w').write('a')"
    code, out, _ = twins("--outputs", "a", "--link", "data", script=script)
    assert code == 2
    assert "wrote outside of its folder" in out
    assert twins("--outputs", "a", script=script)[0] == 0  # a copy is the twin's own
    assert Path("data/x.txt").read_text() == "xmoremore"


def test_a_twin_that_writes_fewer_files(twins: Arguments) -> None:
    script = (
        "import os\nword = os.environ['TWINRUN_SEED'].translate(str.maketrans('0123456789', 'cdefghijkl'))\n"
        "for name in ('a', 'b' + word, 'bb' + word): open(name, 'w')"
    )
    code, out, _ = twins("--outputs", "[ab]*", "--arm", "all", script=script)
    assert code == 4
    assert "not written by twin 1" in out
    assert "not written by twin 2" in out


def test_mistakes_of_the_call(twins: Arguments, tmp_path: Path) -> None:
    for options, words in (
        (("--outputs", "*.py"), "'*.py' matches train.py, a file of the program itself"),
        (("--outputs", "/tmp/*"), "leaves the twin's folder"),
        (("--outputs", "../*"), "leaves the twin's folder"),
        (("--metric", "/tmp/m.json:a"), "--metric '/tmp/m.json:a' leaves the twin's folder"),
        (("--metric", "m.json"), "--metric 'm.json': it is FILE:KEY, such as"),
        (("--metric", "../m.json:a"), "leaves the twin's folder"),
        (("--outputs", "a", "--arm", "init"), "--arm init is not known\n  arms: det, nd, all"),
        (("--outputs", "a", "--seed", "-1"), "--seed -1"),
        (("--outputs", "a", "--link", "nowhere"), "--link nowhere: no such file"),
        (("--outputs", "a", "--out", "data"), "data is there already\n  remove it"),
    ):
        code, _, err = twins(*options)
        assert code == 2
        assert words in err
        assert not Path("twins").exists()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-program"], "no-such-program: cannot be started (No such file or directory)"),
        (["python", "no-such-script.py"], "no-such-script.py: no such file in the copy of this folder"),
        (["python3.11", "x" * 300], "x: no such file in the copy of this folder"),
    ],
)
def test_a_command_that_does_not_exist(
    twins: Arguments,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    words: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["twinrun", "twins", "--outputs", "a", "--", *command])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not Path("twins").exists()


def test_a_program_whose_name_begins_as_pythons_is_no_interpreter(call_twins: Arguments) -> None:
    Path("python_train.sh").write_text("#!/bin/sh\necho $1 > a\n")
    Path("python_train.sh").chmod(0o755)
    code, out, _ = call_twins("-n", "2", "--outputs", "a", "--", "./python_train.sh", "resnet18")
    assert (code, "a: the same bytes in all 2" in out) == (0, True)


def test_too_much_to_copy_is_said_before(twins: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_BYTES", 100)
    Path("data/big").write_bytes(b"x" * 1000)
    code, _, err = twins("--outputs", "out/*", words="seeded")
    assert code == 2
    assert "most of it in data\n  link what the program only reads: --link data" in err
    monkeypatch.setattr(folders, "MOST_BYTES", 900)
    assert twins("--outputs", "out/*", "--link", "data", words="seeded")[0] == 0


def test_old_outputs_are_not_taken_for_new_ones(twins: Arguments) -> None:
    Path("out").mkdir()
    Path("out/metrics.json").write_text("{}")
    assert twins("--outputs", "out/*.json", words="seeded")[0] == 0
    assert Path("out/metrics.json").read_text() == "{}"
    assert twins("--outputs", "out/*.json", script="print()")[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_have_identical_twins(twins: Arguments, example: str) -> None:
    script = (REPOSITORY / "examples" / example).read_text()
    code, out, _ = twins("--outputs", "out/*", *METRIC, script=script, warm=True)
    assert code == 0, out
    assert "identical: 2 outputs" in out


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_take_the_seed_of_each_twin(twins: Arguments, example: str) -> None:
    script = (REPOSITORY / "examples" / example).read_text()
    code, out, _ = twins("--outputs", "out/model.*", "--arm", "all", script=script, warm=True)
    assert code == 4
    assert "4 of 4 entries differ" in out
