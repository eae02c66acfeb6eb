"""Sweeping: failures are named and the rest is kept; only current runs count."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest
import yaml
from tests.test_cli import Cli, cli  # noqa: F401 - a fixture

from twinrun.launch.dvc import commit_stages, finish, only_one
from twinrun.launch.processes import Finished, train_processes
from twinrun.launch.status import follow, states
from twinrun.study.errors import BusyError, IncompleteError, InputError
from twinrun.study.files import write_text
from twinrun.study.layout import LOCK, Layout
from twinrun.study.params import Params, read_params
from twinrun.study.pins import JOBS
from twinrun.study.records import read_measured


@pytest.fixture
def small(study: Layout) -> Params:
    """Four runs of the tiny study."""
    file = study.root / "params.yaml"
    text = file.read_text().replace("tasks: [shapes, cuts]", "tasks: [shapes]").replace("[0, 7]", "[0]")
    file.write_text(text.replace("[det_1, det_2, nd_1, nd_2]", "[det_1, nd_1]"))
    return read_params(file)


@pytest.mark.slow
def test_a_failed_run_is_named_and_the_others_are_kept(small: Params, study: Layout, cli: Cli) -> None:  # noqa: F811
    blocked = study.root / "runs/shapes/adam/0"
    blocked.mkdir(parents=True)
    (blocked / "det_1").write_text("a file where a folder should be")
    code, _, err = cli("sweep", "--jobs", "2")
    assert code == 3
    assert "1 of 4 runs failed" in err
    assert "shapes/adam/0/det_1 (exit 2)" in err
    assert "a file stands where a folder should be" in err
    assert list(states(small, study).values()) == ["missing", "complete", "complete", "complete"]
    (blocked / "det_1").unlink()
    assert cli("sweep", "--jobs", "1")[1] == "1 run trained, 3 were there already\n"
    jobs = [read_measured(study.run(run)).environment[JOBS] for run in small.runs]
    assert jobs == ["1", "2", "2", "2"]


def test_every_run_gets_its_own_environment(small: Params, study: Layout) -> None:
    """The command before the interpreter is a real process: it prints what it was given."""
    seen: list[Finished] = []
    script = 'echo "$ATEN_CPU_CAPABILITY $OMP_NUM_THREADS $@" >&2; exit 1'
    train_processes(
        small.runs, root=study.root, jobs=2, arguments=lambda run: ["--mark", run.label], done=seen.append,
        prefix=["sh", "-c", script, "sh"],
    )  # fmt: skip
    assert len(seen) == 4
    for finished in seen:
        assert finished.message.startswith("avx2 1 ")
        assert finished.message.endswith(f"-m twinrun train {finished.run.id} --mark {finished.run.label}")


def test_processes_take_turns_on_the_gpus(small: Params, study: Layout) -> None:
    """No two at once on one of them, and none is left idle; the shell in place of a run says what it was given."""
    seen: list[Finished] = []
    script = 'gpu=$CUDA_VISIBLE_DEVICES; mkdir "$gpu" && sleep 0.2 && rmdir "$gpu" && echo "$gpu" >&2'
    train_processes(
        small.runs, root=study.root, jobs=2, arguments=lambda run: [], done=seen.append, gpus=["1", "GPU-b"],
        prefix=["sh", "-c", script, "sh"],
    )  # fmt: skip
    assert [finished.code for finished in seen] == [0] * 4
    assert {finished.message for finished in seen} == {"1", "GPU-b"}


@pytest.mark.parametrize(
    ("gpus", "words"), [("0,,1", "not a list"), ("0,0", "different GPUs"), ("0,1", "this study runs on the CPU")]
)
def test_gpus_that_make_no_sense(gpus: str, words: str, small: Params, study: Layout, cli: Cli) -> None:  # noqa: F811
    code, _, err = cli("sweep", "--gpus", gpus)
    assert code == 2
    assert words in err


def test_following_says_what_changes_and_ends(small: Params, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = small.runs[:2]
    looks = iter(
        [
            {first: "missing", second: "missing"},
            {first: "running, 0 of 4 epochs saved", second: "missing"},
            {first: "running, 0 of 4 epochs saved", second: "missing"},
            {first: "complete", second: "diverged"},
        ]
    )
    follow(lambda: next(looks), 0.0, ("complete", "diverged"))
    assert capsys.readouterr().out.splitlines() == [
        "2 runs: 2 missing",
        f"2 runs: 1 missing, 1 running; {first.id}  running, 0 of 4 epochs saved",
        "2 runs: 1 complete, 1 diverged",
    ]


def test_a_second_sweep_leaves_at_once(small: Params, study: Layout, cli: Cli) -> None:  # noqa: F811
    with only_one(study.sweep_lock):
        code, _, err = cli("sweep")
    assert code == 5
    assert "is at work in this study folder already" in err
    assert not (study.root / "runs").exists()


@pytest.mark.slow
def test_a_run_that_another_process_has_is_no_success(small: Params, study: Layout, cli: Cli) -> None:  # noqa: F811
    held = small.runs[1]
    (study.work(held)).mkdir(parents=True)
    with lock_for_a_moment(study.work(held) / LOCK):
        code, out, err = cli("sweep", "--jobs", "2")
    assert (code, out) == (5, "")
    assert f"1 of 4 runs is with another process: {held.id}\n  all others are there; when that process has ended" in err
    assert list(states(small, study).values()) == ["complete", "missing", "complete", "complete"]


def test_a_run_that_ends_while_the_others_are_recorded_is_not_given_to_dvc(
    small: Params, study: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be no run that DVC knows: `dvc repro` would remove it and train it again."""
    given: list[object] = []
    looks = [dict.fromkeys(small.runs, "complete") | {small.runs[0]: "running, 3 of 4 epochs saved"}]
    monkeypatch.setattr("twinrun.launch.dvc.is_dvc_study", lambda root: True)
    monkeypatch.setattr("twinrun.launch.dvc.Watch.look", lambda self: looks.pop())  # the second look would fail
    monkeypatch.setattr("twinrun.launch.dvc.commit_stages", lambda root, stages, **_: given.extend(stages))
    monkeypatch.setattr("twinrun.launch.dvc.reproduce", lambda root: given.append("repro"))
    with pytest.raises(IncompleteError, match=r"1 of 4 runs are not there:\n  \S+ \(running, 3 of 4 epochs saved\)"):
        finish(small, study.root)
    assert given == [run.stage for run in small.runs[1:]]
    looks = [dict.fromkeys(small.runs, "complete")]
    with only_one(study.sweep_lock), pytest.raises(BusyError, match="is at work in this study folder already"):
        finish(small, study.root, patience=0.3)
    # Nor has DVC a run that is no output of its stage, as of a dvc.yaml that lost its end.
    looks = [dict.fromkeys(small.runs, "complete")]
    outs = {run.stage: {"outs": [{"path": f"runs/{run.id}"}]} for run in small.runs}
    lost = small.runs[-1]
    write_text(study.root / "dvc.lock", yaml.safe_dump({"stages": outs | {lost.stage: {}}}))
    with pytest.raises(InputError, match=rf"runs/{lost.id} is no output of the stage {lost.stage}, so that DVC would"):
        finish(small, study.root)
    assert "repro" not in given
    looks = [dict.fromkeys(small.runs, "complete")]
    write_text(study.root / "dvc.lock", yaml.safe_dump({"stages": outs}))
    threading.Timer(0.5, lock_for_a_moment(study.sweep_lock).close).start()
    finish(small, study.root, patience=60)
    assert given[-1] == "repro"


def lock_for_a_moment(path: Path) -> IO[str]:
    stream = path.open("w")
    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return stream


def test_nothing_is_tried_without_prepared_data(small: Params, study: Layout, cli: Cli) -> None:  # noqa: F811
    (study.prepared("shapes") / "manifest.json").unlink()
    code, _, err = cli("sweep")
    assert code == 3
    assert "not prepared yet: shapes" in err


@pytest.mark.slow
def test_when_the_first_runs_all_fail_the_rest_is_not_tried(
    study: Layout,
    cli: Cli,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded: list[Path] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("twinrun.launch.sweep.record_finished", lambda root, found, trained: recorded.append(root))
    code, _, err = cli("sweep", "--jobs", "2", "--device", "cuda")
    assert recorded == [Path()]  # what was finished before is not lost to `dvc repro`
    assert code == 3
    assert "the first 4 runs all failed" in err
    assert "torch sees no CUDA device" in err
    assert "torch sees no CUDA device" in (study.root / "logs/shapes/adam/0/det_1.log").read_text()
    assert len([line for line in err.splitlines() if line.startswith("train ")]) == 4


GREEDY = """
import fcntl, time
from pathlib import Path
import torch
from torch import nn

class Greedy(nn.Module):  # two of them at a time do not fit into the memory
    def __init__(self, classes):
        super().__init__()
        self.head = nn.Linear(3, classes)
        self.memory = None
    def forward(self, x):
        if len(x) > 2 and self.memory is None:  # two images only look whether it works
            self.memory = open(Path(__file__).parent.parent / "memory", "a")
            try:
                fcntl.flock(self.memory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise torch.OutOfMemoryError('CUDA out of memory.')
            time.sleep(2)
        return self.head(x.mean((2, 3)))

def build(classes):
    return Greedy(classes)
"""


@pytest.mark.slow
def test_where_memory_runs_out_fewer_are_trained_at_a_time(small: Params, study: Layout, cli: Cli) -> None:  # noqa: F811
    """That a killed process counts as one without memory is held in test_worker_server.py."""
    (study.root / "models").mkdir()
    # The lock is held as long as the process lives: of any two at a time, one fails.
    (study.root / "models/net.py").write_text(GREEDY)
    use_own_model(study.root / "params.yaml")
    code, out, err = cli("sweep", "--jobs", "4")
    assert code == 0, err
    assert out == "4 runs trained, 0 were there already\n"
    assert "memory ran out in" in err
    assert "they are tried again, 2 at a time" in err
    assert list(states(read_params(study.root / "params.yaml"), study).values()) == ["complete"] * 4


@pytest.mark.slow
def test_a_run_that_does_not_fit_alone_says_what_to_lower(small: Params, study: Layout, cli: Cli) -> None:  # noqa: F811
    (study.root / "models").mkdir()
    (study.root / "models/net.py").write_text(GREEDY.replace("fcntl.flock", "raise BlockingIOError #"))
    use_own_model(study.root / "params.yaml")
    code, _, err = cli("sweep", "--jobs", "2")
    assert code == 3
    assert "they are tried again, 1 at a time" in err
    assert "out of memory: CUDA out of memory." in err
    assert "lower batch_size (32), image_size or model width" in err
    assert not (study.root / "runs").exists()


def use_own_model(file: Path) -> None:
    """Put `models.net:build` in the place of every model in the params."""
    tasks = yaml.safe_load(file.read_text())
    for task in tasks["tasks"].values():
        task["model"] = {"factory": "models.net:build", "head": "head"}
    file.write_text(yaml.safe_dump(tasks))


def test_a_lock_file_that_a_kill_left_empty_is_put_back(tmp_path: Path) -> None:
    lock, kept = tmp_path / "dvc.lock", tmp_path / ".dvc/tmp/dvc.lock.kept"
    kept.parent.mkdir(parents=True)
    lock.touch()
    kept.write_text("schema: '2.0'\n")
    commit_stages(tmp_path, [], every=False)
    assert lock.read_text() == "schema: '2.0'\n"
    lock.write_bytes(b"")
    commit_stages(tmp_path, [], every=False)
    assert not lock.exists()


def test_dvc_at_work_is_said_to_be_busy(tmp_path: Path) -> None:
    """DVC's own note that a living process writes into an output of ours, as `dvc repro` makes it."""
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text("stages: {train: {foreach: [a], do: {cmd: none, outs: [made]}}}")
    (tmp_path / "made").touch()
    holder = {"pid": os.getpid(), "cmd": "dvc repro"}
    (tmp_path / ".dvc/tmp").mkdir(exist_ok=True)
    (tmp_path / ".dvc/tmp/rwlock").write_text(json.dumps({"write": {str(tmp_path / "made"): holder}, "read": {}}))
    with pytest.raises(BusyError, match="DVC is at work in this study folder already") as caught:
        commit_stages(tmp_path, ["train@a"], every=True)
    assert f"(PID {os.getpid()}): dvc repro" in caught.value.message
    assert caught.value.hint == "wait for it; then `twinrun sweep` records what was trained"


@pytest.mark.cold
def test_a_file_in_the_study_folder_is_no_package_of_dvcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text("stages: {train: {foreach: [a], do: {cmd: none, outs: [made]}}}")
    (tmp_path / "made").touch()
    (tmp_path / "funcy.py").write_text("raise SystemExit('planted')")
    commit_stages(tmp_path, ["train@a"], every=True)
    assert "train@a:" in (tmp_path / "dvc.lock").read_text()


def test_what_another_dvc_wrote_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text("before")

    def dvc(root: Path, *arguments: str) -> str:
        if arguments[0] == "status":
            return '{"train@a": []}'
        lock.write_text("by another")
        raise BusyError("DVC is at work in this study folder already")

    monkeypatch.setattr("twinrun.launch.dvc._dvc", dvc)
    with pytest.raises(BusyError):
        commit_stages(tmp_path, ["train@a"], every=True)
    assert lock.read_text() == "by another"
    assert not list((tmp_path / ".dvc/tmp").iterdir())
