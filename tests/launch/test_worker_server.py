"""The worker server: the same results and exit codes as fresh processes, and no process left whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from tests.conftest import REPOSITORY

from twinrun import __version__
from twinrun.launch.processes import Finished, train_processes
from twinrun.launch.worker_server import become
from twinrun.launch.workers import Workers, modules_of
from twinrun.study.layout import Layout
from twinrun.study.params import Params, read_params
from twinrun.study.records import current_code_digest, read_measured, read_record

pytestmark = pytest.mark.cold  # the processes that are looked at are the real ones
LIGHT = ["twinrun.cli.app"]  # enough for commands that do not train
# A network that says which process it is in and what that process has seen, and waits there when it is told to.
WATCHED = """
import json, os, time
from pathlib import Path
import torch
from torch import nn

HERE = Path(__file__).parent.parent

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3, classes)
    def forward(self, x):
        return self.head(x.mean((2, 3)))

def build(classes):
    seen = {"cuda": torch.cuda.is_initialized(), "bad_fork": torch.cuda._is_in_bad_fork(),
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "parent": os.getppid(), "threads": torch.get_num_threads(),
            "tasks": len(os.listdir("/proc/self/task")), "hash": hash("twinrun")}
    (HERE / f"seen-{os.getpid()}").write_text(json.dumps(seen))
    try:
        while (HERE / "wait").exists():
            time.sleep(0.05)
    except KeyboardInterrupt:  # told to stop, which keeps what is finished; not killed
        (HERE / f"stopped-{os.getpid()}").touch()
        raise
    return Net(classes)
"""


@pytest.fixture
def watched(study: Layout) -> Params:
    """Two runs of a network that says what its process has seen."""
    file = study.root / "params.yaml"
    (study.root / "models").mkdir()
    (study.root / "models/net.py").write_text(WATCHED)
    params = yaml.safe_load(file.read_text())
    params["grid"] |= {"tasks": ["shapes"], "optimizers": ["sgd"], "seeds": [0], "runs": ["det_1", "nd_1"]}
    for task in params["tasks"].values():
        task["model"] = {"factory": "models.net:build"}
    file.write_text(yaml.safe_dump(params))
    return read_params(file)


def seen(root: Path) -> dict[int, dict[str, object]]:
    """What was seen, by process."""
    return {int(file.name[5:]): json.loads(file.read_text() or "{}") for file in root.glob("seen-*")}


@pytest.fixture
def sweeping(watched: Params, study: Layout) -> Iterator[Callable[[], tuple[subprocess.Popen[str], list[int]]]]:
    """Starts a sweep whose two runs are both under way and wait; gives it and their processes."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], list[int]]:
        (study.root / "wait").touch()
        command = [sys.executable, "-m", "twinrun", "sweep", "--jobs", "2", "--no-record"]
        sweep = subprocess.Popen(command, cwd=study.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 start_new_session=True)  # fmt: skip
        started.append(sweep)
        wait_for(lambda: len(seen(study.root)) == 2)
        return sweep, sorted(seen(study.root))

    yield start
    for sweep in started:
        for process in psutil.Process(sweep.pid).children(recursive=True) if sweep.poll() is None else []:
            process.kill()
        sweep.kill()
        sweep.communicate()


def wait_for(true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(*pids: int) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


def server_of(sweep: subprocess.Popen[str]) -> int:
    (server,) = psutil.Process(sweep.pid).children()
    assert "twinrun.launch.worker_server" in server.cmdline()
    return server.pid


def test_each_child_is_fresh_and_pinned_whatever_the_shell_says(
    watched: Params, study: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two cards are words: CUDA has not looked at them before the child's own first call."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("PYTHONHASHSEED")
    finished: list[Finished] = []
    train_processes(watched.runs, root=study.root, jobs=2, arguments=lambda run: [], done=finished.append,
                    modules=modules_of(watched, ["shapes"]), gpus=["GPU-a", "GPU-b"])  # fmt: skip
    assert [item.code for item in finished] == [0, 0], finished
    states = list(seen(study.root).values())
    assert len(states) == 2
    for state in states:
        assert (state["cuda"], state["bad_fork"], state["threads"], state["tasks"]) == (False, False, 1, 1)
    assert {state["gpu"] for state in states} == {"GPU-a", "GPU-b"}
    assert len({state["parent"] for state in states}) == 1
    pinned = "import sys; sys.stdout.write(str(hash('twinrun')))"
    expected = subprocess.check_output([sys.executable, "-c", pinned], env=os.environ | {"PYTHONHASHSEED": "0"})
    assert {state["hash"] for state in states} == {int(expected)}


@pytest.mark.parametrize("modules", [LIGHT, []])
def test_what_is_shown_comes_where_this_process_writes(modules: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with Workers(Path(), modules) as workers:
        ended = [workers.run(words, shown=True) for words in (["--version"], ["nonsense"])]
    assert [(item.code, item.output, item.errors) for item in ended] == [(0, "", ""), (2, "", "")]
    out, err = capfd.readouterr()
    assert out == f"{__version__}\n"
    assert "No such command" in err


@pytest.mark.slow
def test_the_runs_of_an_array_task_are_children_of_one_server(watched: Params, study: Layout) -> None:
    command = [sys.executable, "-m", "twinrun", "train-chunk", *(run.id for run in watched.runs)]
    with subprocess.Popen(command, cwd=study.root, stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate()
    assert process.returncode == 0
    assert [line.split()[:2] for line in out.splitlines()] == [[run.id, "complete"] for run in watched.runs]
    parents = [state["parent"] for state in seen(study.root).values()]
    assert len(parents) == 2
    assert len(set(parents)) == 1
    assert parents[0] != process.pid, "not fresh processes of the task's own"


@pytest.mark.slow
def test_records_are_those_of_fresh_processes(study: Layout, params: Params) -> None:
    """But for what was measured; of each task and each optimizer."""
    runs = [params.find("shapes/adam/0/det_1"), params.find("cuts/sgd/0/det_1")]
    for out, modules in (("fresh", []), ("forked", modules_of(params, params.grid.tasks))):
        finished: list[Finished] = []
        train_processes(runs, root=study.root, jobs=2, arguments=lambda run, out=out: ["--out", out],  # type: ignore[misc]
                        done=finished.append, modules=modules, logs=study.root / "logs" / out)  # fmt: skip
        assert [item.code for item in finished] == [0, 0], finished
    for run in runs:
        fresh, forked = (read_record(study.root / out / run.id) for out in ("fresh", "forked"))
        assert forked == fresh
        said = [(study.root / "logs" / out / f"{run.id}.log").read_text() for out in ("fresh", "forked")]
        assert said[0] == said[1]
        assert "epoch 2/" in said[0]


@pytest.mark.slow
def test_this_cpus_own_bits_come_again_and_are_named(study: Layout) -> None:
    file = study.root / "params.yaml"
    file.write_text(file.read_text().replace("device: cpu", "device: cpu, cpu_bits: this_cpu"))
    params, finished = read_params(file), list[Finished]()
    runs = [params.find(f"shapes/sgd/0/det_{number}") for number in (1, 2)]
    train_processes(runs, root=study.root, jobs=2, arguments=lambda run: [], done=finished.append,
                    modules=modules_of(params, ["shapes"]), cpu_bits="this_cpu")  # fmt: skip
    assert [item.code for item in finished] == [0, 0], finished
    first, second = (read_record(study.run(run)) for run in runs)
    assert first.fingerprints == second.fingerprints
    level = str(first.flags["cpu_capability"])
    assert str(first.flags["instruction_set"]).startswith(f"{level} ")
    assert read_measured(study.run(runs[0])).environment["MKL_CBWR"] == "AUTO"
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert level == ("AVX512" if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags else "AVX2")


@pytest.mark.slow
def test_a_child_that_is_stopped_is_named_and_one_killed_for_memory_is_tried_again_alone(
    sweeping: Callable[[], tuple[subprocess.Popen[str], list[int]]], study: Layout
) -> None:
    sweep, children = sweeping()
    assert psutil.Process(children[0]).ppid() == server_of(sweep)
    os.kill(children[0], signal.SIGTERM)
    os.kill(children[1], signal.SIGKILL)
    wait_for(lambda: gone(*children))
    (study.root / "wait").unlink()
    _, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 3
    assert "memory ran out in 1 run: it is tried again, 1 at a time" in err
    assert "1 of 2 runs failed" in err
    assert "(exit 130): twinrun: interrupted; what was finished is kept" in err
    assert len(list(study.root.glob("runs/**/record.json"))) == 1


@pytest.mark.slow
def test_when_the_server_is_killed_the_runs_go_on_as_fresh_processes(
    sweeping: Callable[[], tuple[subprocess.Popen[str], list[int]]], study: Layout
) -> None:
    sweep, children = sweeping()
    os.kill(server_of(sweep), signal.SIGKILL)
    wait_for(lambda: gone(*children))  # nobody would hear of their end
    (study.root / "wait").unlink()
    out, err = sweep.communicate(timeout=120)
    assert (sweep.returncode, out) == (0, "2 runs trained, 0 were there already\n")
    assert err.count("no worker server (it ended with exit -9): each run starts as a fresh process") == 1
    assert set(seen(study.root)) > set(children)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whole_group"),
    [
        (signal.SIGINT, True),
        (signal.SIGHUP, True),
        (signal.SIGTERM, False),
        (signal.SIGKILL, False),
    ],
)
def test_no_process_outlives_the_sweep(
    number: signal.Signals,
    whole_group: bool,
    sweeping: Callable[[], tuple[subprocess.Popen[str], list[int]]],
    study: Layout,
) -> None:
    """A terminal's ctrl-C, or its end, signals the whole group."""
    sweep, children = sweeping()
    server = server_of(sweep)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(server, each)  # it stays: nobody would hear how its children end
    (os.killpg if whole_group else os.kill)(sweep.pid, number)
    _, err = sweep.communicate(timeout=120)
    assert sweep.returncode == (-9 if number == signal.SIGKILL else 130)
    assert "no worker server" not in err
    wait_for(lambda: gone(server, *children), seconds=60)
    stopped = {int(file.name[8:]) for file in study.root.glob("stopped-*")}
    # Each was told to stop, not killed; ctrl-C and the server's own signal may interrupt even the stopping.
    assert stopped <= {*children}
    assert number == signal.SIGINT or len(stopped) == len(children)


def test_a_sweep_that_is_stopped_while_the_server_loads_ends_at_once(tmp_path: Path) -> None:
    with Workers(tmp_path, ["twinrun.training.loop"]) as workers:
        workers.stop()
        assert workers.run(["--version"]).code == 130


def test_exit_codes_and_words_are_those_of_a_fresh_process(study: Layout) -> None:
    asked = [["--version"], ["plan", "--params", "none.yaml"], ["status"], ["train"], ["nonsense"]]
    with Workers(study.root, LIGHT) as forking, Workers(study.root) as starting:
        for arguments in asked:
            assert forking.run(arguments) == starting.run(arguments), arguments
        assert forking.run(["plan", "--params", "none.yaml"]).code == 2


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("pass", 0),
        ("raise SystemExit", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('no room')", 1),
        ("1 / 0", 1),
        ("sys.exit(-1)", 255),
    ],
)
def test_a_child_ends_as_an_interpreter_does(program: str, code: int) -> None:
    """Although nothing is taken apart: its threads are waited for, and what it wrote and registered is not lost."""
    body = (
        "import atexit, sys, threading, time; from twinrun.launch.worker_server import end, exit_code\n"
        "atexit.register(print, 'registered')\n"
        "threading.Timer(0.1, print, ['a thread']).start()\n"
        "class Torch:\n    def __del__(self): time.sleep(9)\n"
        "torch = Torch()\n"
        f"def work():\n    print('work'); {program}\n"
        "end(exit_code(work))"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=False, timeout=8)
    assert (done.returncode, done.stdout) == (code, "work\na thread\nregistered\n")
    assert {"sys.exit('no room')": "no room\n", "1 / 0": "ZeroDivisionError"}.get(program, "") in done.stderr


def test_a_run_after_an_edit_of_the_code_starts_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its record would name code that did not run: the server has the old code loaded."""
    done: list[object] = []
    monkeypatch.setattr(sys, "argv", ["worker_server"])
    monkeypatch.setattr("twinrun.launch.worker_server.os.execv", lambda path, command: done.append(command[1:]))
    monkeypatch.setattr("twinrun.launch.worker_server.runpy.run_module", lambda name, **options: done.append(sys.argv))
    request = {"arguments": ["train", "a/b/0/det_1"], "variables": {}}
    become(request, current_code_digest())
    assert done == [["worker_server", "train", "a/b/0/det_1"]]
    become(request, "0" * 64)
    assert done[1] == ["-m", "twinrun", "train", "a/b/0/det_1"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("raise SystemExit('no room')", "it ended with exit 1: no room"),
        ("import threading, time; threading.Thread(target=time.sleep, args=[9], daemon=True).start()", "1 threads"),
    ],
)
def test_without_a_server_each_run_starts_from_nothing_and_that_is_said_once(
    broken: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Workers(tmp_path, ["broken"]) as workers:
        assert [workers.run(["--version"]).output for _ in range(2)] == ["0.1.0\n"] * 2
    err = capsys.readouterr().err
    assert err.count("each run starts as a fresh process, with the same results") == 1
    assert words in err


def test_a_server_that_cannot_be_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("twinrun.launch.workers.socket.socketpair", refuse)
    with Workers(tmp_path, LIGHT) as workers:
        assert workers.run(["--version"]).code == 0
    assert capsys.readouterr().err.startswith("no worker server (it cannot be started: Operation not permitted): ")


def test_what_a_module_prints_while_it_loads_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud.py").write_text("import sys; sys.stderr.write('x' * 300_000)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Workers(tmp_path, ["loud"]) as workers:
        assert workers.run(["--version"]).code == 0


def test_many_children_leave_nothing_in_the_server(tmp_path: Path) -> None:
    with Workers(tmp_path, LIGHT) as workers:
        workers.run(["--version"])
        (server,) = (p for p in psutil.Process().children() if "twinrun.launch.worker_server" in p.cmdline())
        before = server.memory_info().rss, server.num_fds()
        for _ in range(20):
            workers.run(["--version"])
        assert server.num_fds() == before[1]
        assert server.memory_info().rss - before[0] < 2**20
        assert server.children() == []


def test_torchvision_and_timm_are_loaded_for_the_models_that_need_them() -> None:
    sample = read_params(REPOSITORY / "params.yaml")
    assert "torchvision.models" not in modules_of(sample, ["digits"])
    assert "torchvision.models" in modules_of(sample, ["digits", "cracks"])
