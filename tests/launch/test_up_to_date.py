"""What DVC found up to date is not asked again, and no change of any kind is overlooked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from twinrun.launch.up_to_date import NOTE, is_up_to_date, look, note_up_to_date

LOCK = """
schema: '2.0'
stages:
  train@a:
    cmd: none
    deps: [{path: data, md5: 0.dir}, {path: models, md5: 0.dir}]
    params: {params.yaml: {execution: {}}}
    outs: [{path: runs/a, md5: 1.dir}]
  analyze:
    cmd: none
    outs: [{path: analysis, md5: 1.dir}]
"""
AGAIN = LOCK.replace("path: analysis, md5: 1", "path: analysis, md5: 2")  # analyze ran, the training did not


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A study that `dvc repro` has just brought up to date."""
    (tmp_path / ".dvc/cache").mkdir(parents=True)
    outputs = ("runs/a/record.json", "analysis/a.csv", "analysis/b.csv")
    for name in (*outputs, "data/inner/x.bin", "params.yaml", "dvc.yaml", "data.dvc", ".dvc/config"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as it was")
    (tmp_path / "dvc.lock").write_text(LOCK)
    return tmp_path


def later(file: Path, text: str = "other") -> None:
    """Write a file when the clock of the file system has moved on."""
    time.sleep(0.02)
    file.write_text(text)


def edit_unseen(root: Path) -> None:
    """Of the same size, and with its time put back."""
    file = root / "data/inner/x.bin"
    times = file.stat()
    later(file, "as it WAS")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "an input": edit_unseen,
    "a new input": lambda root: (root / "data/new").touch(),
    "a folder that was not there": lambda root: ((root / "models").mkdir(), (root / "models/net.py").touch()),
    "an input that is gone": lambda root: (root / "data/inner/x.bin").unlink(),
    "an output": lambda root: later(root / "runs/a/record.json"),
    "an output that is gone": lambda root: (root / "runs/a/record.json").unlink(),
    "an empty folder of an output": lambda root: (root / "analysis/none").mkdir(),
    "the cache": lambda root: (root / ".dvc/cache").rmdir(),
    "the params": lambda root: later(root / "params.yaml"),
    "the pipeline": lambda root: later(root / "dvc.yaml"),
    "what is tracked": lambda root: later(root / "data.dvc"),
    "DVC's settings": lambda root: later(root / ".dvc/config.local"),
    "the lock": lambda root: later(root / "dvc.lock", LOCK),
    "a damaged lock": lambda root: later(root / "dvc.lock", "stages: ["),
    "a damaged note": lambda root: (root / NOTE).write_bytes(b"\xff"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_noticed(change: str, root: Path) -> None:
    assert not is_up_to_date(root)
    note_up_to_date(root, look(root))
    (root / "data/__pycache__").mkdir()
    (root / "data/__pycache__/x.pyc").touch()
    (root / "beside").touch()
    assert is_up_to_date(root), "of what DVC does not look at"
    CHANGES[change](root)
    assert not is_up_to_date(root)


@pytest.mark.parametrize(
    ("meanwhile", "noted"),
    [
        (["analysis/a.csv", "-analysis/b.csv", "dvc.lock"], True),  # a stage, and then DVC
        (["analysis/a.csv"], False),
        (["dvc.lock", "analysis/a.csv"], False),
        (["dvc.lock", "-analysis/b.csv"], False),
        (["runs/a/record.json", "dvc.lock"], False),  # of a stage that did not run
        (["-runs/a/record.json", "dvc.lock"], False),
        (["data/inner/x.bin", "dvc.lock"], False),
        (["params.yaml", "dvc.lock"], False),
    ],
)
def test_what_another_hand_changed_meanwhile_is_not_taken_for_dvcs_work(
    meanwhile: list[str], noted: bool, root: Path
) -> None:
    before = look(root)
    for name in meanwhile:
        if name.startswith("-"):
            time.sleep(0.02)
            (root / name[1:]).unlink()
        else:
            later(root / name, AGAIN if name == "dvc.lock" else "other")
    note_up_to_date(root, before)
    assert is_up_to_date(root) == noted


def test_a_lock_that_cannot_be_read_is_no_reason_to_rest(root: Path) -> None:
    for text in ("stages: [", "stages: {a: {outs: [{}]}}", "- a", "stages: {a: {cmd: none}}"):
        (root / "dvc.lock").write_text(text)
        note_up_to_date(root, look(root))
        assert not (root / NOTE).exists()
    (root / "dvc.lock").unlink()
    os.mkfifo(root / "dvc.lock")
    assert look(root).stages == {}


def test_make_is_told_by_the_exit_code(root: Path) -> None:
    command = [sys.executable, "-m", "twinrun.launch.up_to_date"]
    assert subprocess.run(command, cwd=root, check=False).returncode == 1
    note_up_to_date(root, look(root))
    assert subprocess.run(command, cwd=root, check=False).returncode == 0
